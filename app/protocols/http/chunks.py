"""The lines before the chunks of a body, as h11 reads them (RFC 9112, section 7.1).

h11 rejects white space before an extension, which a recipient has to accept. So each line is
reduced to the size of its chunk; everything else passes through. Pure.
"""

from __future__ import annotations

import re

MAX_LINE_BYTES = 16_384
"""Most bytes of a line with its extensions."""

_INVALID = b"-\r\n"
"""A line that h11 rejects, for any that is invalid."""

_LINE = re.compile(rb"([0-9A-Fa-f]{1,20})[ \t]*(?:;[^\r\n]*)?\r\n")


class ChunkLines:
    """Reduces the lines of one body."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._left = 0
        """Bytes to the next line: the data of a chunk and the line break after it."""
        self._passes = False
        """True after the last chunk, and after a line that h11 has to reject."""

    def feed(self, data: bytes) -> bytes:
        """Return the next bytes for h11."""
        pieces = []
        at = 0
        while at < len(data):
            if self._passes:
                pieces.append(data[at:])
                break
            if self._left:
                pieces.append(data[at : at + self._left])
                at += len(pieces[-1])
                self._left -= len(pieces[-1])
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or len(data)]
            at = end or len(data)
            if end or len(self._line) > MAX_LINE_BYTES:
                pieces.append(self._reduced())
        return b"".join(pieces)

    def _reduced(self) -> bytes:
        line, self._line = bytes(self._line), bytearray()
        found = _LINE.fullmatch(line) if len(line) <= MAX_LINE_BYTES else None
        if found is None:
            self._passes = True
            return _INVALID
        size = int(found[1], 16)
        self._left = size + 2
        self._passes = size == 0
        return found[1] + b"\r\n"
