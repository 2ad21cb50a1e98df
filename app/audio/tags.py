"""ID3 and APE tags in front of audio, and between MP3 files that were joined.

Sources: id3.org's ID3v1 and ID3v2.4, section 3; the APEv2 specification of the Hydrogenaudio wiki.
"""

from __future__ import annotations

import os
import struct

HEAD_BYTES = 16
"""Enough of a tag for `tag_length`."""

_MAX_TAGS = 8


def tags_length(descriptor: int) -> int:
    """Return the bytes that the tags at the beginning of a file take; there may be several."""
    position = 0
    for _ in range(_MAX_TAGS):
        length = tag_length(os.pread(descriptor, HEAD_BYTES, position))
        if length is None:
            break
        position += length
    return position


def tag_length(head: bytes) -> int | None:
    """Return the bytes of the tag that begins with `head`, or None if no tag does."""
    if len(head) < HEAD_BYTES:
        return None
    if head[:3] == b"ID3":
        footer = 10 if has_footer(head) else 0
        return 10 + footer + sum((head[6 + i] & 127) << 7 * (3 - i) for i in range(4))
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX":
        return 32 + int(struct.unpack("<12xI", head)[0])
    return None


def has_footer(head: bytes) -> bool:
    """Return whether the ID3 tag that begins with `head` repeats its head at its end."""
    return bool(head[5] & 16)


def id3_head(length: int) -> bytes:
    """Return the first 20 bytes of an ID3v2.4 tag of `length` bytes that holds only padding."""
    size = bytes(length - 10 >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + size + bytes(10)
