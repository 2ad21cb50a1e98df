"""What a file of samples says of its own length, and what is there.

A writer that cannot seek back leaves its length fields as they were before the first sample. Of
such a file libsndfile makes what the field says, which may be silence or an error; so the length
that is there is written in, in our own copy, and the file counts as whole. Where a field promises
more than came, the file was cut off. Positions and lengths are bytes; nothing is allocated by what
a field says. Worker thread.

Sources: libsndfile's reading of each format, tried field by field; RFC 2361 and EBU Tech 3306 (WAV,
RF64), Apple's "Audio Interchange File Format" and "Core Audio Format Specification", Sony's
"Sound Forge Wave64", Sun's audio(4).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator

from app.audio.mp3_repair import Write

_MAX_CHUNKS = 1000

_OPEN = 0x7FFF_0000
"""What a writer leaves that cannot seek back is a length that cannot be: ffmpeg all ones, arecord
and sox about 2 GiB, some firmware zero. From here on it is taken for such, as 0 is."""

_OPEN_AIFF = 0x7F00_0000
"""sox's of an AIFF."""

_OPEN_LONG = 1 << 62
"""The same of a 64-bit field: no file is as long. ffmpeg leaves all ones."""

_MOST = 0xFFFF_FFFE
"""The greatest length a 32-bit field can say; what lies behind it is not reached."""

_AU_UNKNOWN = 0xFFFF_FFFF

_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


def mend(name: str, magic: bytes, descriptor: int, size: int, write: Write = os.pwrite) -> bool:
    """Write the true length in where it was left open; whether more was promised than came.

    `name` is one of `app.audio.sniff.READABLE`, `magic` the file's first four bytes, `size` its
    length. What is mended goes through `write`. False for a format without such a field. Raises
    `OSError`.
    """
    if name == "WAV":
        return _wav(magic, descriptor, size, write)
    if name == "AIFF":
        return _aiff(descriptor, size, write)
    if name == "AU":
        return _au(descriptor, size, write)
    if name == "W64":
        return _w64(descriptor, size)
    if name == "CAF":
        return _caf(descriptor, size, write)
    return False


def _chunks(
    descriptor: int, size: int, position: int, head: struct.Struct, whole: Callable[[int], int]
) -> Iterator[tuple[int, bytes, int]]:
    """Position, name and stated length of each chunk from `position` on; no name where the file
    ends before one. `head` is a chunk's head; `whole` tells by a length how far the next one is."""
    for _ in range(_MAX_CHUNKS):
        # A 64-bit length can point further than any file, and `pread`, can go.
        data = os.pread(descriptor, head.size, position) if position < size else b""
        if len(data) < head.size:
            yield position, b"", 0
            return
        name, length = head.unpack(data)
        yield position, name, length
        position += whole(length)


def _even(length: int) -> int:
    """From one chunk of WAV or AIFF to the next."""
    return 8 + length + length % 2


def _wav(magic: bytes, descriptor: int, size: int, write: Write) -> bool:
    order = ">" if magic == b"RIFX" else "<"
    long_length = long_at = 0
    for position, name, length in _chunks(
        descriptor, size, 12, struct.Struct(order + "4sI"), _even
    ):
        if not name:
            return True
        if name == b"ds64":
            lengths = os.pread(descriptor, 16, position + 8)
            if len(lengths) == 16:
                (long_length,) = struct.unpack("<8xQ", lengths)
                long_at = position + 8
        if name == b"data":
            there = size - position - 8
            if (
                magic == b"RF64"
                and long_at
                and there
                and (long_length == 0 or long_length >= _OPEN_LONG)
            ):
                write(descriptor, struct.pack("<QQ", size - 8, there), long_at)
                return False
            if magic != b"RF64" and (length == 0 or length >= _OPEN) and there:
                return _fill_in(descriptor, size, position, order, write)
            # An RF64's real length stands in its ds64 chunk; all ones here only points to it.
            return (long_length if magic == b"RF64" else length) > there
    return False


def _aiff(descriptor: int, size: int, write: Write) -> bool:
    """The count of frames in COMM is left alone: libsndfile goes by the bytes."""
    for position, name, length in _chunks(descriptor, size, 12, struct.Struct(">4sI"), _even):
        if not name:
            return True
        if name == b"SSND":
            there = size - position - 8
            # Its own two numbers, offset and block size, are counted: 8 bytes are no samples.
            if not (length <= 8 or length >= _OPEN_AIFF) or there <= 8:
                return length > there
            return _fill_in(descriptor, size, position, ">", write)
    return False


def _fill_in(descriptor: int, size: int, position: int, order: str, write: Write) -> bool:
    """Write what is there as the length of the chunk at `position`, which is the last one, and of
    the file; whether that is more than the fields can say."""
    there = size - position - 8
    for value, at in ((there, position + 4), (size - 8, 4)):
        write(descriptor, struct.pack(order + "I", min(value, _MOST)), at)
    return there > _MOST


def _au(descriptor: int, size: int, write: Write) -> bool:
    head = os.pread(descriptor, 12, 0)
    if len(head) < 12:
        return True
    offset, length = struct.unpack(">4xII", head)
    there = size - offset
    if 0 < length <= there or there <= 0:
        return bool(length not in (0, _AU_UNKNOWN) and length > there)
    # Of what is too long libsndfile makes nothing at all, once it is added to the offset.
    write(descriptor, struct.pack(">I", _AU_UNKNOWN), 8)
    return bool(0 < length < _OPEN)


def _w64(descriptor: int, size: int) -> bool:
    """libsndfile reads an open one to its end: nothing is written."""
    head = struct.Struct("<16sQ")
    for position, name, length in _chunks(
        descriptor, size, 40, head, lambda length: max(head.size, (length + 7) & ~7)
    ):
        if not name:
            return True
        if name == _W64_DATA:
            return length < _OPEN_LONG and position + length > size
    return False


def _caf(descriptor: int, size: int, write: Write) -> bool:
    """Written in where more should have come as well: libsndfile refuses both."""
    head = struct.Struct(">4sq")
    for position, name, length in _chunks(
        descriptor, size, 8, head, lambda length: head.size + max(0, length)
    ):
        if not name:
            return True
        if name == b"data":
            there = size - position - head.size
            # The count of edits in front of the samples is 4 bytes.
            if 4 < length <= there or there <= 4:
                return length > there
            write(descriptor, struct.pack(">q", there), position + 4)
            return 4 < length < _OPEN_LONG
    return False
