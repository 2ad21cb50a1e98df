"""Patches for MP3 files that libsndfile would reject or read only in part.

An MP3 states its length only if the encoder wrote it into a Xing tag in the first frame. Without
that tag libsndfile estimates the length from the first frame, and it stops decoding there. It would
thus silently lose the end of a recording of variable bit rate that was encoded into a pipe, or of
several joined MP3 files. `repair` writes the number of frames into the Xing tag, or makes the first
frame one. libsndfile also rejects a file that does not begin with a frame or an ID3 tag, for
example a piece cut out of a stream: `repair` turns such a beginning into an ID3 tag. Worker thread.

Source: the descriptions of the tag by Xing and LAME ("Mp3 Info Tag rev 1").
"""

from __future__ import annotations

import os
import struct

from app.audio import mp3_end
from app.audio.mpeg_frames import (
    SHORTEST_FRAME,
    first_frame,
    frame_length,
    is_layer_3,
    length_by_bytes,
    side_info_offset,
)
from app.audio.patch import Patch
from app.audio.tags import HEAD_BYTES, has_footer, id3_head, tag_length

_BLOCK_BYTES = 1 << 16

_MAX_FRAMES = 1 << 20
"""Most frames counted one by one: seven hours, at 300,000 a second on a busy PC. The rest of the
file, and all bytes after an invalid frame, count as the most frames that they can hold."""

_SMALLEST_TAG = 20
"""Bytes of the smallest ID3 tag that libmpg123 accepts without a warning: head and 10 more."""

_LARGEST_TAG = 10 + (1 << 28)

_TRAILER_BYTES = 4096
"""Most bytes after the length in a Xing tag that are certainly not audio."""


def repair(descriptor: int, size: int) -> tuple[Patch, ...] | None:
    """Return the patches with which libsndfile reads an MP3 of `size` bytes from its first frame to
    its last; None if it has no frames. Raises `OSError`."""
    found = first_frame(descriptor, size)
    if found is None:
        return None
    cover, start = _cover(descriptor, found)
    return cover + _state_count(descriptor, start, size)


def breaks_off(descriptor: int, size: int) -> bool:
    """Return whether an MP3 ends before it should. Raises `OSError`."""
    start = first_frame(descriptor, size)
    return start is not None and mp3_end.breaks_off(descriptor, start, size)


def _cover(descriptor: int, start: int) -> tuple[tuple[Patch, ...], int]:
    """Return the patches that make one ID3 tag of the bytes before `start`, unless they are one,
    and the position of the first frame after it."""
    head = os.pread(descriptor, HEAD_BYTES, 0)
    # libsndfile does not know footers.
    is_tag = head[:3] == b"ID3" and not has_footer(head) and tag_length(head) == start
    if start == 0 or (is_tag and start >= _SMALLEST_TAG) or start > _LARGEST_TAG:
        return (), start
    if start < _SMALLEST_TAG:
        # The tag needs more bytes: the first frame, 26 ms, becomes a part of it.
        start += frame_length(os.pread(descriptor, 4, start)) or 0
    return (Patch(0, id3_head(start)),), start


def _state_count(descriptor: int, start: int, size: int) -> tuple[Patch, ...]:
    """Correct the frame count of an MP3 whose header understates it.

    Without a Xing tag the first frame becomes one: it holds the encoder's delay before the sound.
    """
    first = os.pread(descriptor, _BLOCK_BYTES, start)
    length = frame_length(first)
    if length is None or not is_layer_3(first):
        return ()  # the other layers have a constant bit rate and no such tags
    frame = first[:length]
    at = max(frame.find(b"Xing", 4, 44), frame.find(b"Info", 4, 44))
    if at < 0:
        # libmpg123 estimates by the length without padding.
        unpadded = length - (first[2] >> 1 & 1)
        stated = (size - start) // unpadded
    elif (found := _stated(frame[at:], size - start)) is not None:
        stated = found
    else:
        return ()
    # The tag's own frame is not counted.
    count = _count(descriptor, start, size) - 1
    if count <= stated + 1:
        return ()
    if at >= 0:
        return (Patch(start + at + 8, struct.pack(">I", count)),)
    at = side_info_offset(first)
    if len(frame) < at + 12:
        return ()
    # Without a checksum and with empty side information the frame is silence.
    header = bytes((0xFF, first[1] | 1, *first[2:4]))
    tag = b"Xing" + struct.pack(">II", 1, count)
    return (Patch(start, (header.ljust(at, b"\0") + tag).ljust(length, b"\0")),)


def _stated(tag: bytes, size: int) -> int | None:
    """Return the frame count in a Xing tag; None if it is reliable or absent."""
    if len(tag) < 16:
        return None
    flags, frames, length = struct.unpack(">4xIII", tag[:16])
    if not flags & 1 or (flags & 2 and length + _TRAILER_BYTES >= size):
        return None
    return int(frames)


def _count(descriptor: int, start: int, size: int) -> int:
    """Return the number of frames from `start` to the end, or a greater number."""
    count, position = 0, start
    while position < size and count < _MAX_FRAMES:
        block = os.pread(descriptor, _BLOCK_BYTES, position)
        at = 0
        while at + 4 <= len(block):
            length = length_by_bytes(block[at + 1], block[at + 2]) if block[at] == 0xFF else None
            if length is None:
                if at + HEAD_BYTES > len(block) and at:
                    break  # perhaps a tag, whose head is whole in the next block
                length = tag_length(block[at : at + HEAD_BYTES])
                if length is None:
                    return count + _most_frames(size - position - at)
            # Tags are counted like frames: the count may be too great.
            count += 1
            at += length
        if at == 0:
            break
        position += at
    return count + _most_frames(size - position)


def _most_frames(size: int) -> int:
    return size // SHORTEST_FRAME if size > _TRAILER_BYTES else 0
