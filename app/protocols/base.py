"""What a protocol is to the rest of the node.

A protocol object belongs to one connection and lives on the loop thread. It is fed what the socket
gave, and asked for events until it has none; it never sees a socket, a clock, a thread or a log.

The order of events in one message is `Begin`, any number of `BodyData`, `End`. After a `Begin` no
further event comes until the server has said `accept()` or `reject()`: so a body that nobody has
made room for is not even looked at, and the server can let the sender wait simply by not answering
yet and not reading on. `Broken` takes the place of `End` where the body showed a fault in the
message. `Rejected` stands for a message whose header already rules it out; it needs no answer, its
body is discarded by the protocol. `Send` and `Query` are messages without audio. Bodies pass
through and are never collected here.

A protocol that takes one message at a time (HTTP) has no further event until `encode` has made the
last reply to the one before; the connection asks again after every final reply. What arrives
meanwhile is fed all the same, so that an end of the stream is noticed, until the protocol is
`full`.
"""

from __future__ import annotations

from typing import Protocol as Interface

from app.messages import Event, Failure, Reply

MAX_HELD_BYTES = 65_536
"""What a protocol that takes one message at a time holds of further ones while a reply is due."""


class ProtocolError(Exception):
    """The peer's bytes make no sense from here on, so nothing after them can be read.

    The one exception a protocol raises. `failure` is what to tell the peer before closing, unless
    it asked to be told nothing (`silent`); `request_id` is None where no id was parsed. `headed` if
    a header was read, in which a `token` would have stood: without it even this is not told.
    """

    def __init__(
        self,
        failure: Failure,
        request_id: str | None = None,
        silent: bool = False,
        *,
        headed: bool = False,
        token: str | None = None,
    ) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure
        self.request_id = request_id
        self.silent = silent
        self.headed = headed
        self.token = token


class Protocol(Interface):
    """One connection's parser and encoder."""

    end_means_gone: bool
    """True if a peer that sends no more does not wait for replies either, so that its requests are
    cancelled; False if it may shut its sending side and read on."""

    def feed(self, data: bytes) -> None:
        """Take bytes as they came from the socket; any split of the stream is the same stream."""

    def next_event(self) -> Event | None:
        """The next event, or None until there are more bytes or an answer to `Begin`.

        Raises `ProtocolError` where the position in the stream is lost; after that the object
        yields nothing more.
        """

    def accept(self) -> bytes:
        """The answer to `Begin`: pass the body on. Returns what the peer is to be told at once (a
        `100 Continue`), mostly nothing."""

    def reject(self) -> None:
        """The answer to `Begin`: discard the body. Telling the peer why is the server's part."""

    def abandon(self) -> None:
        """Read no further: the server has given up on the peer."""

    @property
    def idle(self) -> bool:
        """True between two messages, where an end of the stream loses nothing; also while the last
        one's reply is awaited."""

    @property
    def reading_body(self) -> bool:
        """True within a body (accepted or being discarded): which deadline applies."""

    @property
    def full(self) -> bool:
        """True while it holds as much unread input as it will: it is fed no more until `encode`
        made a final reply. Always False where input is held only while a `Begin` is undecided, in
        which nothing is fed anyway."""

    def encode(self, request_id: str | None, reply: Reply) -> bytes:
        """One reply as it goes on the wire. May be asked for before any message was read: `busy`
        where there are too many connections, or the failure of a `ProtocolError`."""
