"""Compare the length that the header of a sample file states with the length of the file.

A program that writes into a pipe cannot seek back, so the length fields keep the values they had
before the first sample. libsndfile reads most of these files to their end. For the others it
returns an error or silence, and `repair` returns the patches that prevent this. A field that states
more than arrived means that the file is truncated. One that states less is corrected where nothing
else follows the samples (`trailing_chunks.py`). Positions and lengths are bytes; nothing is
allocated by the value of a field. Worker thread.

Sources: libsndfile 1.2.2's reading of each format, tried field by field; RFC 2361 and EBU Tech 3306
(WAV, RF64), Apple's "Audio Interchange File Format" and "Core Audio Format Specification", Sony's
"Sound Forge Wave64", Sun's audio(4).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.audio.patch import Patch
from app.audio.trailing_chunks import samples_follow

_MAX_CHUNKS = 1000

_OPEN = 0x7FFF_0000
"""Least stated length that means "not known", as 0 does: ffmpeg leaves all ones, arecord and sox
about 2 GiB, some firmware zero."""

_OPEN_AIFF = 0x7F00_0000
"""Least stated length that means "not known" in an AIFF by sox."""

_OPEN_LONG = 1 << 62
"""Least value of a 64-bit field that means "not known": no file is as long. ffmpeg leaves all
ones."""

_MAX_LENGTH = 0xFFFF_FFFE
"""Greatest length that a 32-bit field can state; libsndfile does not read the bytes after it."""

_AU_UNKNOWN = 0xFFFF_FFFF

_LONGEST_TAG = 4096
"""Bytes after the samples of an AU that are not taken for samples."""

_G722_TAGS = (b"\x8f\x02", b"\x65\x00")
"""Format tags of G.722 in a WAV, little-endian: FFmpeg's, and the registered one."""

_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@dataclass(frozen=True, slots=True)
class Repair:
    """The patches a file needs, and whether it states more bytes than arrived."""

    truncated: bool
    patches: tuple[Patch, ...] = ()


def repair(name: str, magic: bytes, descriptor: int, size: int) -> Repair:
    """Check the length that a file of `size` bytes states.

    `name` is one of `app.audio.sniff.READABLE`, `magic` the file's first four bytes. A format
    without a length field needs no repair. Raises `OSError`.
    """
    if name == "WAV":
        return _rf64(descriptor, size) if magic == b"RF64" else _wav(magic, descriptor, size)
    if name == "AIFF":
        return _aiff(descriptor, size)
    if name == "AU":
        return _au(descriptor, size)
    if name == "W64":
        return _w64(descriptor, size)
    if name == "CAF":
        return _caf(descriptor, size)
    return Repair(False)


def _chunks(
    descriptor: int, size: int, position: int, head: struct.Struct, whole: Callable[[int], int]
) -> Iterator[tuple[int, bytes, int]]:
    """Yield position, name and stated length of each chunk from `position` on; an empty name where
    the file ends before a chunk. `head` is the layout of a chunk's head; `whole` returns by the
    stated length the distance to the next chunk."""
    for _ in range(_MAX_CHUNKS):
        # A 64-bit length can exceed every file, and the positions that `pread` accepts.
        data = os.pread(descriptor, head.size, position) if position < size else b""
        if len(data) < head.size:
            yield position, b"", 0
            return
        name, length = head.unpack(data)
        yield position, name, length
        position += whole(length)


def _even(length: int) -> int:
    """Return the distance from a chunk of WAV or AIFF to the next."""
    return 8 + length + length % 2


def _wav(magic: bytes, descriptor: int, size: int) -> Repair:
    order = ">" if magic == b"RIFX" else "<"
    head = struct.Struct(order + "4sI")
    chunks = _chunks(descriptor, size, 12, head, _even)
    for position, name, length in chunks:
        if not name:
            return Repair(True)
        if name == b"data":
            there = size - position - 8
            if there and (length == 0 or length >= _OPEN):
                return _open(size, position, length, order)
            if samples_follow(descriptor, position + _even(length), size, head, _even):
                return _open(size, position, length, order)
            return Repair(length > there)
    return Repair(False)


def g722_data(head: bytes, descriptor: int, size: int) -> tuple[int, int] | None:
    """Return position and length of the samples of a WAV file in G.722, which libsndfile does not
    read; None for other codecs. `head` are the first bytes of the file. Raises `OSError`."""
    head_of_chunk = struct.Struct("<4sI")
    is_g722 = False
    for position, name, length in _chunks(descriptor, size, 12, head_of_chunk, _even):
        if name == b"fmt ":
            at = position + head_of_chunk.size
            is_g722 = head[:4] != b"RIFX" and os.pread(descriptor, 2, at) in _G722_TAGS
        if not name or (name == b"fmt " and not is_g722):
            return None
        if name == b"data":
            begin = position + head_of_chunk.size
            there = size - begin
            end = position + _even(length)
            is_open = length == 0 or length >= _OPEN
            if is_open or samples_follow(descriptor, end, size, head_of_chunk, _even):
                length = there
            return (begin, min(length, there)) if is_g722 else None
    return None


def _rf64(descriptor: int, size: int) -> Repair:
    """The length is in the ds64 chunk; the data chunk's own is all ones."""
    stated = stated_at = 0
    head = struct.Struct("<4sI")
    for position, name, _ in _chunks(descriptor, size, 12, head, _even):
        if not name:
            return Repair(True)
        if name == b"ds64":
            lengths = os.pread(descriptor, 16, position + 8)
            if len(lengths) == 16:
                (stated,) = struct.unpack("<8xQ", lengths)
                stated_at = position + 8
        if name == b"data":
            there = size - position - 8
            is_open = stated == 0 or stated >= _OPEN_LONG
            end = position + _even(stated)
            is_less = stated < there and samples_follow(descriptor, end, size, head, _even)
            if stated_at and there and (is_open or is_less):
                return Repair(False, (Patch(stated_at, struct.pack("<QQ", size - 8, there)),))
            return Repair(stated > there)
    return Repair(False)


def _aiff(descriptor: int, size: int) -> Repair:
    """The count of frames in COMM does not matter: libsndfile goes by the bytes."""
    head = struct.Struct(">4sI")
    for position, name, length in _chunks(descriptor, size, 12, head, _even):
        if not name:
            return Repair(True)
        if name == b"SSND":
            there = size - position - 8
            # The chunk's own two numbers, offset and block size, are 8 bytes before the samples.
            if there > 8 and (length <= 8 or length >= _OPEN_AIFF):
                # libsndfile reads to the end of the file where this field is 0.
                return _open(size, position, length or _MAX_LENGTH, ">")
            if samples_follow(descriptor, position + _even(length), size, head, _even):
                return _open(size, position, length, ">")
            return Repair(length > there)
    return Repair(False)


def _open(size: int, position: int, length: int, order: str) -> Repair:
    """The chunk at `position`, the last one, has an unknown length and states `length`: state the
    true one, unless libsndfile reads to the end of the file anyway."""
    there = size - position - 8
    fields = ((position + 4, there), (4, size - 8))
    patches = tuple(
        Patch(at, struct.pack(order + "I", min(true, _MAX_LENGTH))) for at, true in fields
    )
    # libsndfile stops at the end of the file where more is stated.
    is_enough = length >= min(there, _MAX_LENGTH)
    return Repair(there > _MAX_LENGTH, () if is_enough else patches)


def _au(descriptor: int, size: int) -> Repair:
    head = os.pread(descriptor, 12, 0)
    if len(head) < 12:
        return Repair(True)
    offset, length = struct.unpack(">4xII", head)
    there = size - offset
    # No chunks can follow, so a length that is too small is unknown, too. A tag is shorter.
    is_stated = there - _LONGEST_TAG <= length < _OPEN
    if there <= 0 or length == _AU_UNKNOWN or is_stated:
        return Repair(length != _AU_UNKNOWN and length > there)
    # libsndfile adds the stated length to the offset; beyond 2 GiB it then reads nothing.
    return Repair(False, (Patch(8, struct.pack(">I", _AU_UNKNOWN)),))


def _w64(descriptor: int, size: int) -> Repair:
    """libsndfile reads a file of unknown length to its end, so there is nothing to patch."""
    head = struct.Struct("<16sQ")
    for position, name, length in _chunks(
        descriptor, size, 40, head, lambda length: max(head.size, (length + 7) & ~7)
    ):
        if not name:
            return Repair(True)
        if name == _W64_DATA:
            return Repair(length < _OPEN_LONG and position + length > size)
    return Repair(False)


def _caf(descriptor: int, size: int) -> Repair:
    """A length that exceeds the file is patched like an unknown one: libsndfile rejects both."""
    head = struct.Struct(">4sq")

    def whole(length: int) -> int:
        return head.size + max(0, length)

    for position, name, length in _chunks(descriptor, size, 8, head, whole):
        if not name:
            return Repair(True)
        if name == b"data":
            there = size - position - head.size
            # The count of edits in front of the samples is 4 bytes.
            end = position + whole(length)
            is_less = 4 < length < there and samples_follow(descriptor, end, size, head, whole)
            if (4 < length <= there and not is_less) or there <= 4:
                return Repair(length > there)
            patch = Patch(position + 4, struct.pack(">q", there))
            return Repair(there < length < _OPEN_LONG, (patch,))
    return Repair(False)
