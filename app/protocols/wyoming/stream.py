"""Wyoming's framing: the boundaries of events.

An event is one line of JSON (`type`, and optionally `data`, `data_length`, `payload_length`), then
`data_length` bytes of JSON that are merged over `data`, then `payload_length` bytes that are not
JSON. `EventStream` cuts a stream into heads, which it collects, and payloads, which pass through.
Sans-IO, loop thread. It raises `ProtocolError` if the end of an event is unknown or a length
exceeds its limit; the reference library has no limits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from app.messages import BAD_HEADER, MISSING_FIELD, TOO_LARGE, Failure
from app.protocols.base import ProtocolError

MAX_LINE_BYTES = 65_536
"""The limit of the reference library, too: asyncio's default for a line."""

MAX_DATA_BYTES = 262_144
"""Enough for 5,000 names of 50 bytes, the entities of a large home. The data are collected and
parsed whole, in a millisecond or two."""

MAX_PAYLOAD_BYTES = 1_048_576
"""More than five seconds at 48 kHz, 16-bit, stereo; clients send 20 to 100 ms at a time."""


@dataclass(frozen=True, slots=True)
class Head:
    """An event without its payload of `payload_length` bytes."""

    kind: str
    data: dict[str, Any]
    payload_length: int


class _Part(Enum):
    """The part of an event that is being read."""

    LINE = auto()
    DATA = auto()
    PAYLOAD = auto()


class EventStream:
    """One direction of one connection. It cannot be used after a `ProtocolError`."""

    def __init__(self) -> None:
        self._input = b""
        self._at = 0
        """Position of the first unread byte of the input."""
        self._part = _Part.LINE
        # Line and data gather here, so that bytes sent one by one are copied once.
        self._gathered = bytearray()
        self._head = Head("", {}, 0)
        self._data_length = 0
        self._payload_left = 0

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket. Unread bytes are copied; the caller leaves few."""
        self._input = self._input[self._at :] + data if self.held else data
        self._at = 0

    @property
    def held(self) -> int:
        """Number of fed and unread bytes."""
        return len(self._input) - self._at

    @property
    def between(self) -> bool:
        """True at the end of an event, with nothing of the next one read."""
        return self._part is _Part.LINE and not self._gathered

    def clear(self) -> None:
        """Discard all input."""
        self._input = b""
        self._at = 0

    def head(self) -> Head | None:
        """Return the next event once it is complete up to its payload; None before that, and until
        the previous payload has been read."""
        if self._part is _Part.LINE and self._gather_line():
            self._read_line()
        if self._part is not _Part.DATA:
            return None
        self._gathered += self._take(self._data_length - len(self._gathered))
        if len(self._gathered) < self._data_length:
            return None
        if self._gathered:
            more = _parse_object(bytes(self._gathered), "an event's data")
            self._head = replace(self._head, data={**self._head.data, **more})
            self._gathered.clear()
        self._payload_left = self._head.payload_length
        self._part = _Part.PAYLOAD if self._payload_left else _Part.LINE
        return self._head

    def payload(self) -> memoryview | None:
        """Return the next bytes of the last event's payload; None if there are none at present."""
        if self._part is not _Part.PAYLOAD or not self.held:
            return None
        piece = self._take(self._payload_left)
        self._payload_left -= len(piece)
        if self._payload_left == 0:
            self._part = _Part.LINE
        return piece

    def _gather_line(self) -> bool:
        room = MAX_LINE_BYTES - len(self._gathered)
        end = self._input.find(b"\n", self._at, self._at + room)
        self._gathered += self._take(room if end < 0 else end - self._at)
        # TLS or HTTP on this port never send a line of JSON: reject them at once.
        if self._gathered and self._gathered[:1] != b"{":
            message = "an event's line must be a JSON object, beginning with {"
            raise ProtocolError(Failure(BAD_HEADER, message))
        if end >= 0:
            self._at += 1
            return True
        if len(self._gathered) == MAX_LINE_BYTES:
            message = f"an event's line exceeds the limit of {MAX_LINE_BYTES} bytes"
            raise ProtocolError(Failure(TOO_LARGE, message))
        return False

    def _read_line(self) -> None:
        fields = _parse_object(bytes(self._gathered), "an event's line")
        self._gathered.clear()
        kind, data = fields.get("type"), fields.get("data")
        if not isinstance(kind, str):
            raise ProtocolError(Failure(MISSING_FIELD, "an event needs a type, a string"))
        if not isinstance(data, dict | None):
            raise ProtocolError(Failure(BAD_HEADER, "an event's data must be an object"))
        self._data_length = _length(fields, "data_length", MAX_DATA_BYTES)
        self._head = Head(kind, data or {}, _length(fields, "payload_length", MAX_PAYLOAD_BYTES))
        self._part = _Part.DATA

    def _take(self, most: int) -> memoryview:
        piece = memoryview(self._input)[self._at : self._at + most]
        self._at += len(piece)
        return piece


def _parse_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        message = f"{what} is not a UTF-8 JSON object: {reason[:200]}"
        raise ProtocolError(Failure(BAD_HEADER, message)) from None
    if not isinstance(value, dict):
        raise ProtocolError(Failure(BAD_HEADER, f"{what} is JSON but not an object"))
    return value


def _length(fields: dict[str, Any], name: str, most: int) -> int:
    length = fields.get(name)
    if length is None:
        return 0
    if type(length) is not int or length < 0:
        message = f"{name} must be a whole number of bytes, 0 or more"
        raise ProtocolError(Failure(BAD_HEADER, message))
    if length > most:
        message = f"{name} exceeds the limit of {most} bytes"
        raise ProtocolError(Failure(TOO_LARGE, message))
    return length
