"""The contract between a protocol and the rest of the node.

A protocol object belongs to one connection and lives on the loop thread. The connection feeds it
bytes and asks for events until there are none; it never sees a socket, clock, thread or log.

The events of one message are `Begin`, any number of `BodyData`, and `End`. After a `Begin` the
protocol yields no event until the server calls `accept()` or `reject()`. The server can therefore
let a sender wait by neither answering nor reading. `Broken` replaces `End` if the body shows a
fault of the message. `Rejected` reports a message with an unacceptable header; it needs no answer,
and the protocol discards its body. `Send` and `Query` are messages without audio. Bodies pass
through and are never collected here.

The request of a `Begin` may be a stream (`Request.live`). Its `BodyData` is live audio, between
which `Commit`, `Clear` and `Configure` may come, and `encode` also receives the `LiveReport`s of
its worker. It returns nothing for those that the protocol does not have.

A protocol with one message at a time (HTTP) yields no further event until `encode` has made the
last reply to the previous message; the connection asks again after every final reply. Until the
protocol is `full` it is still fed, so that the connection notices an end of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol as Interface

from app.messages import Event, Failure, Reply

MAX_HELD_BYTES = 65_536
"""Bytes of further messages that a protocol with one message at a time holds before a reply."""


class ProtocolError(Exception):
    """The position in the stream is lost, so nothing after it can be read.

    This is the only exception that a protocol raises. `failure` is the reply before closing, unless
    the client asked for none (`silent`); `request_id` is None if no id was parsed. `headed` is true
    if a header was read, which may hold a `token`: without a valid one the reply is `unauthorized`.
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


@dataclass(frozen=True, slots=True)
class FromClient:
    """The next message comes from the client at `address`, which a trusted proxy states; None if
    it states none. It precedes each message of such a proxy, and only the connection reads it."""

    address: str | None


class Protocol(Interface):
    """The parser and encoder of one connection."""

    end_means_gone: bool
    """True if a client that ends its stream no longer waits for replies, so that its requests are
    cancelled; False if it may shut down its sending side and continue to read."""

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket; any split of the stream gives the same events."""

    def next_event(self) -> Event | FromClient | None:
        """Return the next event, or None until more bytes or an answer to `Begin` arrive.

        Raises `ProtocolError` if the position in the stream is lost; after that there are no
        events.
        """

    def accept(self) -> bytes:
        """Answer `Begin` by passing the body on. Return bytes to send at once (`100 Continue`)."""

    def reject(self) -> None:
        """Answer `Begin` by discarding the body. The server sends the reason."""

    def abandon(self) -> None:
        """Stop reading: the server has given up on the client."""

    @property
    def idle(self) -> bool:
        """True between two messages, when an end of the stream loses nothing, and while the last
        message waits for its reply."""

    @property
    def reading_body(self) -> bool:
        """True within a body, accepted or discarded; this selects the deadline."""

    @property
    def full(self) -> bool:
        """True while it holds its maximum of unread input: the connection does not feed it until
        `encode` has made a final reply. Always False for a protocol that holds input only while a
        `Begin` is undecided, because nothing is fed then."""

    def encode(self, request_id: str | None, reply: Reply) -> bytes:
        """Encode one reply. Also used before any message was read: for `busy` at too many
        connections, and for the failure of a `ProtocolError`."""


class Session(Protocol, Interface):
    """A protocol to which a connection has switched. Its client may be silent for long; the only
    timeout of its input is that for the next audio."""

    def farewell(self) -> bytes:
        """Return the bytes with which the node ends the session; none if it has ended."""


@dataclass(frozen=True, slots=True)
class Successor:
    """The answer to an upgrade: bytes for the client, the protocol that follows, and input that
    belongs to it."""

    response: bytes
    session: Session
    unread: bytes


class Upgradable(Protocol, Interface):
    """A protocol that may yield `Upgrade`, which the server answers with `upgrade`, or with a
    `Failure` as the last reply."""

    def upgrade(self) -> Successor:
        """Answer `Upgrade`; this protocol is used no further."""
