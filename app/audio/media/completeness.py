"""Tells whether a file of phones and browsers breaks off: a part states more bytes than arrived.

Only the heads of the outermost parts are read. A file whose parts have no stated length (a live
recording) cannot be judged. Pure but for the descriptor. Worker thread.

Sources: ISO/IEC 14496-12, section 4.2 (boxes); RFC 8794, sections 4 to 6 (EBML); RIFF; the ASF
specification, section 3.2 (file properties); ISO/IEC 13818-1 (transport streams); ISO/IEC 13818-7,
section 6.2 (ADTS); RFC 4867, section 5 (AMR).
"""

from __future__ import annotations

import os

_MAX_PARTS = 100_000
"""Most parts read: a fragmented file of a day in seconds. The rest counts as whole."""

_MAX_FRAMES = 1 << 20
"""Most frames of AMR followed: six hours."""

_SEGMENT = 0x18538067
"""Matroska's element that holds all others (RFC 9559)."""


_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_HEAD_BYTES = 16_384

_TS_PACKETS = (188, 192)

_ADTS_TAIL_BYTES = 65_536
_ADTS_FRAMES = 3
"""Frames in a row that are no accident."""

_AMR_BYTES = {
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6),
}
"""Bytes of a frame for each type; further types have one byte."""


def breaks_off(name: str, descriptor: int, size: int) -> bool:
    """Return whether the file of `size` bytes in the container `name` (`app.audio.sniff`) breaks
    off. Raises `OSError`."""
    if name == "mp4/m4a":
        return _boxes_break_off(descriptor, size)
    if name == "webm/Matroska":
        return _elements_break_off(descriptor, size)
    if name == "AVI":
        head = os.pread(descriptor, 8, 0)
        return 8 + int.from_bytes(head[4:8], "little") > size
    if name == "WMA":
        return _asf_breaks_off(descriptor, size)
    if name == "MPEG-TS":
        step = _TS_PACKETS[os.pread(descriptor, 1, 0) != b"G"]
        return size % step != 0
    if name == "AAC":
        return _adts_breaks_off(
            os.pread(descriptor, _ADTS_TAIL_BYTES, max(0, size - _ADTS_TAIL_BYTES))
        )
    if name == "AMR":
        return _amr_breaks_off(descriptor, size)
    return False


def _boxes_break_off(descriptor: int, size: int) -> bool:
    position = 0
    for _ in range(_MAX_PARTS):
        if position >= size:
            break
        head = os.pread(descriptor, 16, position)
        if len(head) < 8:
            return True
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            return False  # it reaches to the end of the file, wherever that is
        if length < 8:
            return False  # not a box; the decoder judges
        position += length
    return position > size


def _elements_break_off(descriptor: int, size: int) -> bool:
    position = 0
    for _ in range(_MAX_PARTS):
        if position >= size:
            return position > size
        head = os.pread(descriptor, 12, position)
        id_length = _vint_length(head[:1])
        size_length = _vint_length(head[id_length : id_length + 1])
        end = id_length + size_length
        if not id_length or not size_length or len(head) < end:
            return False
        length = int.from_bytes(head[id_length:end], "big") & ((1 << 7 * size_length) - 1)
        if length == (1 << 7 * size_length) - 1:
            return False  # a live recording states no length
        position += end + length
        if int.from_bytes(head[:id_length], "big") == _SEGMENT:
            # Players ignore bytes behind the segment.
            return position > size
    return False


def _vint_length(first: bytes) -> int:
    """Return the bytes of the number that begins with `first`; 0 if none does."""
    return 9 - first[0].bit_length() if first and first[0] else 0


def _asf_breaks_off(descriptor: int, size: int) -> bool:
    head = os.pread(descriptor, _ASF_HEAD_BYTES, 0)
    at = head.find(_ASF_PROPERTIES)
    fields = head[at + 24 : at + 24 + 68]
    if at < 0 or len(fields) < 68:
        return False
    # A broadcast has no valid length.
    return not fields[64] & 1 and int.from_bytes(fields[16:24], "little") > size


def _adts_breaks_off(tail: bytes) -> bool:
    """Follow the frames from the first place where several are in a row."""
    at = tail.find(b"\xff")
    while at >= 0:
        position, frames = at, 0
        while (length := _adts_length(tail[position : position + 7])) and position < len(tail):
            position += length
            frames += 1
        if frames >= _ADTS_FRAMES:
            # Less than a head is left of a frame that broke off.
            return position > len(tail) or 0 < len(tail) - position < 7
        at = tail.find(b"\xff", at + 1)
    return False


def _adts_length(head: bytes) -> int:
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5


def _amr_breaks_off(descriptor: int, size: int) -> bool:
    head = os.pread(descriptor, 9, 0)
    magic = next((one for one in _AMR_BYTES if head.startswith(one)), None)
    if magic is None:
        return False
    lengths = _AMR_BYTES[magic]
    position, start, block = len(magic), 0, b""
    for _ in range(_MAX_FRAMES):
        if position >= size:
            break
        if not start <= position < start + len(block):
            start, block = position, os.pread(descriptor, 1 << 16, position)
        kind = block[position - start] >> 3 & 15
        position += lengths[kind] if kind < len(lengths) else 1
    return position > size
