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

from app.mpeg import Write

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

    `name` is one of `app.containers.READABLE`, `magic` the file's first four bytes, `size` its
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


def _chunk(descriptor: int, count: int, position: int, size: int) -> bytes:
    """A chunk's head. A 64-bit length can point further than any file, and `pread`, can go."""
    return os.pread(descriptor, count, position) if position < size else b""


def _wav(magic: bytes, descriptor: int, size: int, write: Write) -> bool:
    length_format = ">I" if magic == b"RIFX" else "<I"
    position = 12
    long_length = long_at = 0
    for _ in range(_MAX_CHUNKS):
        chunk = _chunk(descriptor, 8, position, size)
        if len(chunk) < 8:
            return True
        (length,) = struct.unpack(length_format, chunk[4:])
        if chunk[:4] == b"ds64":
            lengths = os.pread(descriptor, 16, position + 8)
            if len(lengths) == 16:
                (long_length,) = struct.unpack("<8xQ", lengths)
                long_at = position + 8
        if chunk[:4] == b"data":
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
                for value, at in ((there, position + 4), (size - 8, 4)):
                    write(descriptor, struct.pack(length_format, min(value, _MOST)), at)
                return there > _MOST
            # An RF64's real length stands in its ds64 chunk; all ones here only points to it.
            return (long_length if magic == b"RF64" else length) > there
        position += 8 + length + length % 2
    return False


def _aiff(descriptor: int, size: int, write: Write) -> bool:
    """The count of frames in COMM is left alone: libsndfile goes by the bytes."""
    position = 12
    for _ in range(_MAX_CHUNKS):
        chunk = _chunk(descriptor, 8, position, size)
        if len(chunk) < 8:
            return True
        (length,) = struct.unpack(">I", chunk[4:])
        if chunk[:4] == b"SSND":
            there = size - position - 8
            # Its own two numbers, offset and block size, are counted: 8 bytes are no samples.
            if not (length <= 8 or length >= _OPEN_AIFF) or there <= 8:
                return bool(length > there)
            for value, at in ((there, position + 4), (size - 8, 4)):
                write(descriptor, struct.pack(">I", min(value, _MOST)), at)
            return there > _MOST
        position += 8 + length + length % 2
    return False


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
    position = 40
    for _ in range(_MAX_CHUNKS):
        chunk = _chunk(descriptor, 24, position, size)
        if len(chunk) < 24:
            return True
        (length,) = struct.unpack("<Q", chunk[16:])
        if chunk[:16] == _W64_DATA:
            return bool(length < _OPEN_LONG and position + length > size)
        position += max(24, (length + 7) & ~7)
    return False


def _caf(descriptor: int, size: int, write: Write) -> bool:
    """Written in where more should have come as well: libsndfile refuses both."""
    position = 8
    for _ in range(_MAX_CHUNKS):
        chunk = _chunk(descriptor, 12, position, size)
        if len(chunk) < 12:
            return True
        (length,) = struct.unpack(">q", chunk[4:])
        if chunk[:4] == b"data":
            there = size - position - 12
            # The count of edits in front of the samples is 4 bytes.
            if 4 < length <= there or there <= 4:
                return bool(length > there)
            write(descriptor, struct.pack(">q", there), position + 4)
            return bool(4 < length < _OPEN_LONG)
        position += 12 + max(0, length)
    return False
