"""A reader of multipart bodies: RFC 2046, section 5.1, as RFC 7578 needs it.

Bytes in, parts out, in any split. It skips a preamble and an epilogue, and accepts spaces after a
boundary and folded fields of a part. Data passes through without being collected. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

MAX_PART_HEAD = 4_096
"""Most bytes of the fields of a part. Browsers write two, with the name of the file."""

_MAX_PADDING = 256
"""Most spaces after a boundary."""

_LINE_END = re.compile(rb"(--)|[ \t]*\r\n")
_OPEN_END = re.compile(rb"-?|[ \t]*\r?")
"""The beginning of a line's end that has not arrived in full."""

_FOLD = re.compile(rb"\r\n[ \t]+")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")


class MultipartError(ValueError):
    """The body is not valid multipart."""


@dataclass(frozen=True, slots=True)
class PartHead:
    """The beginning of a part: its fields by name in lower case."""

    fields: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class PartData:
    """The next bytes of the part."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete."""


Piece = PartHead | PartData | PartEnd


class _Place(Enum):
    PREAMBLE = auto()
    HEAD = auto()
    DATA = auto()
    EPILOGUE = auto()


class Multipart:
    """The reader of one body."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter has no line before it.
        self._held = b"\r\n"
        self._place = _Place.PREAMBLE
        self._skip = 0
        """Bytes before the data of the part: the line break after its fields."""

    @property
    def begun(self) -> bool:
        """True after the first boundary."""
        return self._place is not _Place.PREAMBLE

    @property
    def ended(self) -> bool:
        """True after the closing boundary."""
        return self._place is _Place.EPILOGUE

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Yield the pieces in the next bytes; the iterator must be used up. Raises
        `MultipartError`."""
        data, self._held = self._held + data if self._held else data, b""
        at = 0
        while not self.ended:
            if self._place is _Place.HEAD:
                end = data.find(b"\r\n\r\n", at)
                if (len(data) if end < 0 else end) - at > MAX_PART_HEAD:
                    raise MultipartError("a part has too many fields")
                if end < 0:
                    self._held = data[at:]
                    return
                yield PartHead(_fields(data[at + 2 : end]))
                self._place = _Place.DATA
                # The second line break may be the one before the next delimiter.
                self._skip, at = 2, end + 2
            else:
                end, after = self._next_delimiter(data, at)
                if (piece := self._data(data, at, end)) is not None:
                    yield piece
                if after is None:
                    self._held = data[end:]
                    return
                if self._place is _Place.DATA:
                    yield PartEnd()
                is_last = data[after - 2 : after] == b"--"
                self._place = _Place.EPILOGUE if is_last else _Place.HEAD
                at = after - 2

    def _data(self, data: bytes, start: int, end: int) -> PartData | None:
        skipped = min(self._skip, end - start)
        self._skip -= skipped
        if self._place is _Place.PREAMBLE or start + skipped == end:
            return None
        return PartData(memoryview(data)[start + skipped : end])

    def _next_delimiter(self, data: bytes, at: int) -> tuple[int, int | None]:
        """Return the positions of the next delimiter, and after its line or its two hyphens. The
        second is None if more bytes must show whether it is one."""
        found = data.find(self._delimiter, at)
        while found >= 0:
            after = found + len(self._delimiter)
            if end := _LINE_END.match(data, after):
                return found, end.end()
            if _OPEN_END.fullmatch(data, after) and len(data) - after <= _MAX_PADDING:
                return found, None
            # The boundary is the beginning of a line of the data.
            found = data.find(self._delimiter, found + 1)
        # Only the last CR can begin a delimiter, because a boundary has none.
        start = data.rfind(b"\r", max(at, len(data) - len(self._delimiter) + 1))
        if start >= 0 and self._delimiter.startswith(data[start:]):
            return start, None
        return len(data), None


def _fields(head: bytes) -> dict[bytes, bytes]:
    fields = {}
    for line in _FOLD.sub(b" ", head).split(b"\r\n") if head else ():
        found = _FIELD.fullmatch(line)
        if found is None:
            raise MultipartError("a field of a part is not valid")
        fields[found[1].lower()] = found[2]
    return fields
