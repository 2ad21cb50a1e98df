"""The two forms of a native body: bytes whose number the header declares, and frames.

A frame is a 2-byte length in network order and that many bytes. Live audio comes in frames; the
length 0 ends it, and 65535 is reserved. Pure: each class takes input and returns the next piece of
the body. Loop thread.
"""

from __future__ import annotations

import struct
from typing import Protocol as Interface

from app.messages import BAD_HEADER, Failure
from app.protocols.base import ProtocolError

_LENGTH = struct.Struct("!H")

RESERVED_LENGTH = 0xFFFF


class BodyReader(Interface):
    """Finds the end of one body."""

    @property
    def ended(self) -> bool:
        """True once all of the body was taken."""

    def take(self, data: memoryview) -> tuple[memoryview, memoryview]:
        """Split input into the next piece of the body and the rest. The piece is empty only if all
        input is used up or the body has ended. Raises `ProtocolError` if the end is lost."""


class CountedBody:
    """A body of `length` bytes."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def ended(self) -> bool:
        return self._left == 0

    def take(self, data: memoryview) -> tuple[memoryview, memoryview]:
        piece = data[: self._left]
        self._left -= len(piece)
        return piece, data[len(piece) :]


class FramedBody:
    """A body in frames; pieces do not follow the edges of frames."""

    def __init__(self) -> None:
        self._left = 0
        """Bytes of the current frame that are not taken."""
        self._high: int | None = None
        """The first byte of a length whose second byte is missing."""
        self._lost = False
        self.ended = False

    def take(self, data: memoryview) -> tuple[memoryview, memoryview]:
        while data and not self._left and not self.ended:
            data = self._begin_frame(data)
        piece = data[: self._left]
        self._left -= len(piece)
        return piece, data[len(piece) :]

    def _begin_frame(self, data: memoryview) -> memoryview:
        """Take a length, or half of one, and return the rest of the input."""
        if self._lost:
            return data[:0]
        if self._high is None and len(data) == 1:
            self._high = data[0]
            return data[1:]
        if self._high is None:
            (length,) = _LENGTH.unpack_from(data)
            data = data[2:]
        else:
            length = self._high << 8 | data[0]
            self._high = None
            data = data[1:]
        if length == RESERVED_LENGTH:
            self._lost = True
            message = f"a frame of length {RESERVED_LENGTH} is reserved; send shorter frames"
            raise ProtocolError(Failure(BAD_HEADER, message))
        self._left = length
        self.ended = length == 0
        return data
