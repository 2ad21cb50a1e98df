"""The receiving side of one HTTP connection: h11's events, with bounds on what a client can cost.

Loop thread.
"""

from __future__ import annotations

from collections.abc import Mapping

import h11

MAX_CHUNKS = 4_096
"""Chunks of a body in what is fed at one time. Each takes h11 some 40 microseconds, whatever its
size, so that more would be a long turn of the loop."""

CHUNKS_AT_ONCE = 64
"""Chunks between two events, so that the connection decides how many make a turn."""


class BadInput(Exception):
    """The input cannot be parsed any further. `status` is the HTTP status of the error."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Input:
    """Reads requests from `http`. `max_body` is in bytes."""

    def __init__(self, http: h11.Connection, max_body: int) -> None:
        self._http = http
        self._max_body = max_body
        self.held = 0
        """Bytes that belong to no request that was begun."""
        self._chunks = 0
        """Pieces of a body since the last `feed`."""
        self.body_bytes = 0
        """Bytes of the request's body so far."""

    @property
    def in_body(self) -> bool:
        """True until the end of the request's body was read."""
        return self._http.their_state is h11.SEND_BODY

    def feed(self, data: bytes, hold: bool) -> None:
        """Take bytes; `hold` if they belong to no request that was begun."""
        if hold:
            self.held += len(data)
        self._chunks = 0
        self._http.receive_data(data)

    def request(self) -> h11.Request | None:
        """Return the next request; None if it is not complete. Raises `BadInput`."""
        event = self._step()
        if not isinstance(event, h11.Request):
            return None
        self.held = 0
        self.body_bytes = 0
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
        return event

    @property
    def unread(self) -> bytes:
        """The bytes after the request."""
        return bytes(self._http.trailing_data[0])

    def start_next(self) -> bool:
        """Begin the next request; return whether there can be one."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        self.held = len(self._http.trailing_data[0])
        return True

    def _step(self) -> object:
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            # Without h11's message, which may quote the input.
            raise BadInput(error.error_status_hint) from None
        if isinstance(event, h11.Data):
            self._chunks += 1
            if self._chunks > MAX_CHUNKS:
                raise BadInput(400)
        return event


def bearer_token(headers: Mapping[bytes, str]) -> str | None:
    """Return the token in the headers of a request; None if there is none."""
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
