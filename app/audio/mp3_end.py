"""Find out whether an MP3 breaks off.

An MP3 states its length only in a Xing or VBRI tag in the first frame, if the encoder wrote one.
Without it the end shows: a recording that was cut ends within a frame. Tags of text at the end are
not audio. Reads a few kilobytes; worker thread.

Sources: the descriptions of the tags by Xing ("Xing"), Fraunhofer ("VBRI"), id3.org (ID3v1) and the
Hydrogenaudio wiki (APEv2).
"""

from __future__ import annotations

import os
import struct

from app.audio.mpeg_frames import frame_kind, frame_length, is_layer_3, side_info_offset

_TAIL_BYTES = 16_384
"""Enough for eleven of the longest frames."""

_CHAIN = 3
"""So many frames in a row show that bytes are frames."""

_LONGEST_FRAME = 1_441
"""Bytes by which a stated length may exceed the file: some encoders count a frame too many. The
last frame then decides."""

_VBRI_OFFSET = 36

_ID3V1_BYTES, _APE_FOOTER_BYTES = 128, 32
_APE_HAS_HEADER = 1 << 31


def breaks_off(descriptor: int, start: int, size: int) -> bool:
    """Return whether the frames from `start` on end before they should. Raises `OSError`."""
    end = _audio_end(descriptor, size)
    first = os.pread(descriptor, 512, start)
    if frame_length(first[:4]) is None or not is_layer_3(first):
        return False
    stated = _stated_bytes(first)
    missing = None if stated is None else stated - (end - start)
    if missing is not None and (missing == 0 or missing > _LONGEST_FRAME):
        return missing > 0
    return _ends_within_a_frame(descriptor, max(start, end - _TAIL_BYTES), end, first)


def _audio_end(descriptor: int, size: int) -> int:
    """Return the position after the audio: before an ID3v1 and an APE tag."""
    end = size
    if os.pread(descriptor, 3, end - _ID3V1_BYTES if end > _ID3V1_BYTES else 0) == b"TAG":
        end -= _ID3V1_BYTES
    footer = os.pread(descriptor, _APE_FOOTER_BYTES, max(0, end - _APE_FOOTER_BYTES))
    if footer[:8] == b"APETAGEX" and len(footer) == _APE_FOOTER_BYTES:
        length, flags = struct.unpack("<12xI4xI8x", footer)
        length += _APE_FOOTER_BYTES if flags & _APE_HAS_HEADER else 0
        end = max(0, end - length)
    return end


def _stated_bytes(first: bytes) -> int | None:
    """Return the bytes of all frames by the tag in the first one; None without a tag."""
    at = side_info_offset(first)
    if first[at : at + 4] in (b"Xing", b"Info") and len(first) >= at + 16:
        flags, one, two = struct.unpack_from(">III", first, at + 4)
        # The number of frames comes before that of bytes, if it is there.
        if flags & 2:
            return int(two if flags & 1 else one) or None
    if first[_VBRI_OFFSET : _VBRI_OFFSET + 4] == b"VBRI":
        return int(struct.unpack_from(">I", first, _VBRI_OFFSET + 10)[0]) or None
    return None


def _ends_within_a_frame(descriptor: int, begin: int, end: int, first: bytes) -> bool:
    tail = os.pread(descriptor, end - begin, begin)
    kind = frame_kind(first)
    at = tail.find(b"\xff")
    while at >= 0:
        reached, count = at, 0
        while (length := frame_length(tail[reached : reached + 4])) is not None:
            if frame_kind(tail[reached : reached + 4]) != kind or reached + length > len(tail):
                break
            reached, count = reached + length, count + 1
        if count >= _CHAIN:
            rest = tail[reached:]
            # Junk after the last frame is not a frame that was cut.
            is_frame = len(rest) < 4 or (frame_length(rest[:4]) and frame_kind(rest) == kind)
            return bool(rest) and rest[0] == 0xFF and bool(is_frame)
        at = tail.find(b"\xff", at + 1)
    return False
