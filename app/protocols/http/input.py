"""The receiving side of one HTTP connection: h11's events, with bounds on what a client can cost.

A head is collected here until it is whole, and only then passed to h11. Each request has an h11
connection of its own, because h11 ends one after a request of HTTP/1.0. Loop thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import h11

from app.protocols.http.chunks import ChunkLines
from app.protocols.http.head import MAX_HEAD_BYTES, BadInput, checked

MAX_CHUNKS = 4_096
"""Chunks of a body in what is fed at one time. Each takes h11 some 40 microseconds, whatever its
size, so that more would be a long turn of the loop."""

CHUNKS_AT_ONCE = 64
"""Chunks between two events, so that the connection decides how many make a turn."""

_FRAMING_BYTES, _FRAMING_SHARE = 65_536, 8
"""Most bytes of chunk sizes, extensions and trailers: a fixed number, and a number for each byte of
the body, because a chunk of one byte already has five."""

_HEAD_END = re.compile(rb"\n\r?\n")
_BLANK_LINES = re.compile(rb"(?:\r?\n)+")


class Input:
    """Reads requests. `max_body` is in bytes. `http` is h11's connection of the request."""

    def __init__(self, max_body: int) -> None:
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._max_body = max_body
        self._head = bytearray()
        """Bytes of the next request, until h11 has them."""
        self._searched = 0
        self._begun = False
        """True if h11 has the head of the request."""
        self._held = 0
        """Bytes that came after the head of a request and before its decision."""
        self._lines: ChunkLines | None = None
        """Reads the lines of a body in chunks."""
        self._chunks = 0
        """Pieces of a body since the last `feed`."""
        self._body_fed = 0
        """Bytes that came since the head, framing included."""
        self.body_bytes = 0
        """Bytes of the request's body so far."""

    @property
    def held(self) -> int:
        """The number of bytes kept for requests that the server has not admitted yet."""
        return len(self._head) + self._held

    @property
    def in_body(self) -> bool:
        """True until the end of the request's body was read."""
        return self.http.their_state is h11.SEND_BODY

    def feed(self, data: bytes, hold: bool) -> None:
        """Take bytes; `hold` if the server has not admitted their request yet."""
        if not self._begun:
            self._head += data
            return
        if hold:
            self._held += len(data)
        self._chunks = 0
        self._receive(data)

    def request(self) -> h11.Request | None:
        """Return the next request; None if it is not complete. Raises `BadInput`."""
        end = self._end_of_head()
        if end is None:
            return None
        data = bytes(self._head)
        self._head.clear()
        self._begun = True
        self.http.receive_data(checked(data[:end]))
        event = self._step()
        assert isinstance(event, h11.Request), "the head was complete"
        if any(name == b"transfer-encoding" for name, _ in event.headers):
            self._lines = ChunkLines()
        self._receive(data[end:])
        return event

    def body(self) -> tuple[bytes, bool]:
        """Return the next bytes of the body, and whether that was its end. Raises `BadInput`."""
        data = bytearray()
        event: object = None
        for _ in range(CHUNKS_AT_ONCE):
            if not isinstance(event := self._step(), h11.Data):
                break
            data += event.data
        self.body_bytes += len(data)
        self._check_framing(event)
        return bytes(data), isinstance(event, h11.EndOfMessage)

    def discard(self) -> object:
        """Read on in a body that is not wanted, and return h11's `NEED_DATA` if that is all there
        is; None at its end, or if it is longer than any body may be; anything else if there is
        more. Raises `BadInput`."""
        event: object = None
        for _ in range(CHUNKS_AT_ONCE):
            if not self.in_body or self.body_bytes > self._max_body:
                return None
            event = self._step()
            if isinstance(event, h11.Data):
                self.body_bytes += len(event.data)
            elif event is h11.NEED_DATA:
                break
        self._check_framing(event)
        return event

    @property
    def unread(self) -> bytes:
        """The bytes after the request."""
        return bytes(self.http.trailing_data[0])

    def start_next(self) -> bool:
        """Begin the next request; return whether there can be one: this one was read to its end."""
        if self.http.their_state not in (h11.DONE, h11.MUST_CLOSE):
            return False
        unread = self.unread
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._head = bytearray(unread)
        self._searched = self._held = self._chunks = self._body_fed = self.body_bytes = 0
        self._begun = False
        self._lines = None
        return True

    def _receive(self, data: bytes) -> None:
        """Pass on bytes that follow the head."""
        self._body_fed += len(data)
        if self._lines is not None:
            data = self._lines.feed(data)
        if data:
            self.http.receive_data(data)

    def _end_of_head(self) -> int | None:
        """Return the length of the head; None if it is not complete. Raises `BadInput`."""
        head = self._head
        if not self._searched and (blank := _BLANK_LINES.match(head)):
            # Some clients end a body with a line break that does not belong to it.
            del head[: blank.end()]
        if head == b"\r":
            return None
        if head and head[0] < 0x21:
            raise BadInput(400)
        found = _HEAD_END.search(head, max(0, self._searched - 2))
        self._searched = len(head)
        if (len(head) if found is None else found.end()) <= MAX_HEAD_BYTES:
            return None if found is None else found.end()
        if head.find(b"\n", 0, MAX_HEAD_BYTES) < 0:
            raise BadInput(414, f"the address has more than {MAX_HEAD_BYTES} bytes")
        raise BadInput(431, f"the header fields have more than {MAX_HEAD_BYTES} bytes")

    def _check_framing(self, event: object) -> None:
        # Bytes that h11 has not read yet are not framing.
        if event is h11.NEED_DATA or isinstance(event, h11.EndOfMessage):
            framing = self._body_fed - self.body_bytes - len(self.http.trailing_data[0])
            if framing > _FRAMING_BYTES + _FRAMING_SHARE * self.body_bytes:
                raise BadInput(400, "the chunk extensions or trailers are too long; leave them out")

    def _step(self) -> object:
        in_body = self.in_body
        try:
            event = self.http.next_event()
        except h11.RemoteProtocolError as error:
            # Without h11's message, which may quote the input. The hint of a chunk whose size line
            # is too long is meant for a head.
            raise BadInput(400 if in_body else error.error_status_hint) from None
        if isinstance(event, h11.Data):
            self._chunks += 1
            if self._chunks > MAX_CHUNKS:
                raise BadInput(400)
        return event


def bearer_token(headers: Mapping[bytes, str]) -> str | None:
    """Return the token in the headers of a request; None if there is none."""
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
