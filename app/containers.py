"""What kind of file a body is, by its bytes, and whether all of it arrived.

The label a client sends cannot be trusted, and libsndfile guesses: it takes some raw samples for
an MP3, and reads a WAV whose length field was never filled in (streamed by ffmpeg or arecord) as
silence. So the bytes are recognised here first, from a short list, and such a file gets its length
written in, in our own copy. Works on a descriptor, reads a few kilobytes (of some MP3 all,
`app/mpeg.py`), allocates nothing that a file can choose the size of. Worker thread.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from app import mpeg

_HEAD_BYTES = 4096
_MAX_CHUNKS = 1000
_OPEN_LENGTH = 0x7FFF_0000
"""A WAV writer that cannot seek back leaves a length that cannot be: ffmpeg all ones, arecord and
sox about 2 GiB, some firmware zero. From here on it is taken for such, as 0 is."""

_OPEN_LONG_LENGTH = 1 << 63
"""The same of an RF64's."""

_MOST = 0xFFFFFFFE
"""The greatest length the field can say; what lies behind it is not reached."""

READABLE = frozenset({"WAV", "FLAC", "Ogg", "MP3", "AIFF", "AU", "CAF", "W64"})

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@dataclass(frozen=True, slots=True)
class Container:
    """A recognised file. `readable` says whether the node decodes it."""

    name: str
    readable: bool
    truncated: bool = False
    """True where the file itself says that more should have come."""


def inspect(descriptor: int, size: int) -> Container | None:
    """Recognise the file of `size` bytes behind `descriptor`, and mend a WAV's or CAF's length.

    None where nothing is recognised. Leaves the file position where it was. Raises `OSError`.
    """
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    name = recognise(head)
    if name is None:
        return None
    if name not in READABLE:
        return Container(name, readable=False)
    return Container(name, True, _is_truncated(name, head, descriptor, size))


def recognise(head: bytes) -> str | None:
    """The container's name by the first bytes of a file, READABLE or not; None if unknown."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    if head[:16] == _W64_RIFF:
        return "W64"
    for magic, name in (
        (b"fLaC", "FLAC"),
        (b"OggS", "Ogg"),
        (b".snd", "AU"),
        (b"caff", "CAF"),
        (b"\x1aE\xdf\xa3", "webm/Matroska"),
        (b"#!AMR", "AMR"),
        (b"0&\xb2u", "WMA"),
        (b"MThd", "MIDI"),
    ):
        if head.startswith(magic):
            return name
    if head[4:8] in (b"ftyp", b"moov", b"mdat"):
        return "mp4/m4a"
    if head[:3] == b"ID3" or mpeg.starts_with_frames(head):
        return "MP3"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "AAC"
    return None


def _is_truncated(name: str, head: bytes, descriptor: int, size: int) -> bool:
    if name == "WAV":
        return _mend_wav(head[:4], descriptor, size)
    if name == "AIFF":
        return len(head) >= 8 and struct.unpack(">I", head[4:8])[0] + 8 > size
    if name == "AU":
        if len(head) < 12:
            return True
        offset, length = struct.unpack(">II", head[4:12])
        return bool(length != 0xFFFFFFFF and offset + length > size)
    if name == "W64":
        return _w64_is_truncated(descriptor, size)
    if name == "CAF":
        return _mend_caf(descriptor, size)
    if name == "Ogg":
        return not _ogg_has_last_page(head, descriptor, size)
    if name == "MP3":
        mpeg.mend(descriptor, size)
    # FLAC: the decoder knows better. MP3 has no length to compare with.
    return False


def _chunk(descriptor: int, count: int, position: int, size: int) -> bytes:
    """A chunk's head. A 64-bit length can point further than any file, and `pread`, can go."""
    return os.pread(descriptor, count, position) if position < size else b""


def _mend_wav(magic: bytes, descriptor: int, size: int) -> bool:
    """Find the data chunk; write its true length in where it was left open."""
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
                and (long_length == 0 or long_length >= _OPEN_LONG_LENGTH)
            ):
                os.pwrite(descriptor, struct.pack("<QQ", size - 8, there), long_at)
                return False
            is_open = length == 0 or length >= _OPEN_LENGTH
            if magic != b"RF64" and is_open and there:
                for value, at in ((there, position + 4), (size - 8, 4)):
                    os.pwrite(descriptor, struct.pack(length_format, min(value, _MOST)), at)
                return there > _MOST
            # An RF64's real length stands in its ds64 chunk; all ones here only points to it.
            return (long_length if magic == b"RF64" else length) > there
        position += 8 + length + length % 2
    return False


def _w64_is_truncated(descriptor: int, size: int) -> bool:
    position = 40
    for _ in range(_MAX_CHUNKS):
        chunk = _chunk(descriptor, 24, position, size)
        if len(chunk) < 24:
            return True
        (length,) = struct.unpack("<Q", chunk[16:])
        if chunk[:16] == _W64_DATA:
            return bool(position + length > size)
        position += max(24, (length + 7) & ~7)
    return False


def _mend_caf(descriptor: int, size: int) -> bool:
    """Find the data chunk; write its true length in where it was left open or more should have
    come: libsndfile refuses both."""
    position = 8
    for _ in range(_MAX_CHUNKS):
        chunk = _chunk(descriptor, 12, position, size)
        if len(chunk) < 12:
            return True
        (length,) = struct.unpack(">q", chunk[4:])
        if chunk[:4] == b"data":
            there = size - position - 12
            if 0 <= length <= there:
                return False
            os.pwrite(descriptor, struct.pack(">q", there), position + 4)
            return bool(length >= 0)
        position += 12 + max(0, length)
    return False


def _ogg_has_last_page(head: bytes, descriptor: int, size: int) -> bool:
    """Whether the last page is whole, carries the end-of-stream flag (RFC 3533, section 6), and is
    of a stream that the file begins with: of several files joined to one libsndfile reads the first
    one only."""
    # A page is at most 65,307 bytes, so the last one begins within that distance of the end.
    tail = os.pread(descriptor, 65_307, max(0, size - 65_307))
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or not page[5] & 4 or page[14:18] not in _ogg_streams(head):
        return False
    # 27 bytes, the last of them the number of segments; their lengths; the segments.
    lengths = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(lengths)


def _ogg_streams(head: bytes) -> set[bytes]:
    """The serial numbers of the streams that begin here: their first pages stand before others."""
    found = set()
    position = 0
    while len(page := head[position : position + 282]) >= 27 and page[5] & 2:
        found.add(page[14:18])
        position += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return found
