"""Wyoming's framing: where an event begins and ends.

An event is one line of JSON (`type`, and optionally `data`, `data_length`, `payload_length`), then
`data_length` bytes of JSON that are laid over `data`, then `payload_length` bytes that are not
JSON. `EventStream` cuts a stream into heads, which are collected, and payloads, which are not: they
pass through as they come. What an event means is not its business. Sans-IO, loop thread; raises
`ProtocolError` where an event's end cannot be known, or where it is longer than is taken: the
reference library reads any length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from app.messages import BAD_HEADER, MISSING_FIELD, TOO_LARGE, Failure
from app.protocols.base import ProtocolError

MAX_LINE_BYTES = 65_536
"""The reference library reads no longer line either: it is asyncio's limit."""

MAX_DATA_BYTES = 262_144
"""For a `transcribe` that names everything in a large home: 5,000 names of some 50 bytes. Collected
and parsed whole, so it is what a peer can make the node hold, and parse in a millisecond or two."""

MAX_PAYLOAD_BYTES = 1_048_576
"""Clients send 20 to 100 ms of audio at a time; this is over five seconds at 48 kHz, 16-bit,
stereo."""


@dataclass(frozen=True, slots=True)
class Head:
    """An event but for its payload, of which `payload_length` is the length in bytes."""

    kind: str
    data: dict[str, Any]
    payload_length: int


class _Part(Enum):
    """Where in an event the stream is."""

    LINE = auto()
    DATA = auto()
    PAYLOAD = auto()


class EventStream:
    """One direction of one connection. After a `ProtocolError` it is good for nothing more."""

    def __init__(self) -> None:
        self._input = b""
        self._at = 0
        """Where in the input the unread begins."""
        self._part = _Part.LINE
        # Line and data gather here, so that what is sent byte by byte costs its size once.
        self._gathered = bytearray()
        self._head = Head("", {}, 0)
        self._data_length = 0
        self._payload_left = 0

    def feed(self, data: bytes) -> None:
        """Take bytes as they came. What was not read is copied: the caller lets little remain."""
        self._input = self._input[self._at :] + data if self.held else data
        self._at = 0

    @property
    def held(self) -> int:
        """Bytes that were fed and not read."""
        return len(self._input) - self._at

    @property
    def between(self) -> bool:
        """True at the end of an event, with nothing of the next one read."""
        return self._part is _Part.LINE and not self._gathered

    def clear(self) -> None:
        """Forget what was fed."""
        self._input = b""
        self._at = 0

    def head(self) -> Head | None:
        """The next event, once it is there up to its payload; None before, and until the payload
        of the one before was read."""
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
        """The next bytes of the last event's payload; None if there are no more for now."""
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
        # TLS or HTTP, spoken here by mistake, never send a line of JSON: they are told at once.
        if self._gathered and self._gathered[:1] != b"{":
            message = "an event's line is not a JSON object: it does not begin as one"
            raise ProtocolError(Failure(BAD_HEADER, message))
        if end >= 0:
            self._at += 1
            return True
        if len(self._gathered) == MAX_LINE_BYTES:
            message = f"an event's line is over this node's limit of {MAX_LINE_BYTES} bytes"
            raise ProtocolError(Failure(TOO_LARGE, message))
        return False

    def _read_line(self) -> None:
        fields = _parse_object(bytes(self._gathered), "an event's line")
        self._gathered.clear()
        kind, data = fields.get("type"), fields.get("data")
        if not isinstance(kind, str):
            raise ProtocolError(Failure(MISSING_FIELD, "an event needs a type, which is a string"))
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
        message = f"{name} is over this node's limit of {most} bytes"
        raise ProtocolError(Failure(TOO_LARGE, message))
    return length
