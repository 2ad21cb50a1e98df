"""MPEG audio frames: the length of each, and the place of the first in a file.

Source: ISO/IEC 11172-3 2.4.1 and 2.4.2, ISO/IEC 13818-3 2.4.2.3. Worker thread.
"""

from __future__ import annotations

import functools
import os

from app.audio.tags import tag_length, tags_length

SHORTEST_FRAME = 24
"""Bytes of the shortest frame of layer 3: 8 kbit/s at 24 kHz."""

# Bit rates in kbit/s and sample rates in Hz by MPEG version and layer. Version 1 is keyed 3,
# version 2 keyed 2, version 2.5 keyed 0.
_V1_L1 = (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_V1_L2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_V1_L3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_V2_L1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_V2_L23 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAMPLE_RATES = {
    3: (44100, 48000, 32000),
    2: (22050, 24000, 16000),
    0: (11025, 12000, 8000),
}

_JUNK_BYTES = 1 << 16
"""The first frame is searched within so many bytes after the tags. A stream cut anywhere begins
with less than 3 KiB of a frame; HTTP headers and recorders' headers are shorter than this, too."""

_CHAIN = 32
"""So many frames in a row, of one version, layer and sample rate, make a stream. An AVI has fewer
frames of its MP3 in a row."""

_LONGEST_CHAIN = 4096
"""So many frames may be equal to the first: 100 s of silence. In raw samples of a pure tone all can
be equal, where the tone's period divides the length of a frame."""

_SHORT_CHAIN = 3
"""So many frames are enough at the end of a file."""


def starts_with_frames(head: bytes) -> bool:
    """Return whether two frame headers of one stream lie in `head` at the right distance. A single
    header is found in every second raw recording."""
    length = frame_length(head[:4])
    if length is None:
        return False
    following = head[length : length + 4]
    return frame_length(following) is not None and frame_kind(following) == frame_kind(head)


def frame_length(header: bytes) -> int | None:
    """Return the bytes of the frame that begins with these four, or None if no frame does."""
    if len(header) < 4 or header[0] != 0xFF:
        return None
    return length_by_bytes(header[1], header[2])


@functools.cache
def length_by_bytes(second: int, third: int) -> int | None:
    """Return the length of a frame by the second and third byte of its header; the first is 255."""
    if second & 0xE0 != 0xE0:
        return None
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    rate_index, frequency_index = third >> 4, third >> 2 & 3
    if version == 1 or layer == 4 or rate_index in (0, 15) or frequency_index == 3:
        return None
    if version == 3:
        kilobits = (_V1_L1, _V1_L2, _V1_L3)[layer - 1][rate_index]
    else:
        kilobits = (_V2_L1, _V2_L23, _V2_L23)[layer - 1][rate_index]
    frequency = _SAMPLE_RATES[version][frequency_index]
    padding = third >> 1 & 1
    if layer == 1:
        return (12000 * kilobits // frequency + padding) * 4
    samples = 576 if layer == 3 and version != 3 else 1152
    return samples // 8 * 1000 * kilobits // frequency + padding


def is_layer_3(header: bytes) -> bool:
    """Return whether a frame header is that of an MP3."""
    return header[1] >> 1 & 3 == 1


def side_info_offset(header: bytes) -> int:
    """Return the bytes between the start of a layer 3 frame and the end of its side information,
    where a Xing tag begins."""
    mono = header[3] >> 6 == 3
    return 4 + ((32, 17) if header[1] >> 3 & 3 == 3 else (17, 9))[mono]


def first_frame(descriptor: int, size: int) -> int | None:
    """Return the position of the first frame, after tags or junk; None if no stream is found.

    Junk is searched for layer 3 only, because raw tones hold headers of the other layers. Raises
    `OSError`.
    """
    tags = tags_length(descriptor)
    block = os.pread(descriptor, _JUNK_BYTES, tags)
    if starts_with_frames(block):
        return tags
    failed: set[int] = set()
    at = block.find(b"\xff")
    while at >= 0:
        header = block[at : at + 4]
        is_candidate = frame_length(header) is not None and is_layer_3(header)
        if is_candidate and _is_stream(descriptor, tags + at, size, failed):
            return tags + at
        at = block.find(b"\xff", at + 1)
    return None


def _is_stream(descriptor: int, start: int, size: int, failed: set[int]) -> bool:
    """Return whether a chain of frames begins at `start`. Positions that lead nowhere are added to
    `failed`."""
    position, kind, first, differ = start, None, b"", False
    for count in range(_LONGEST_CHAIN):
        head = os.pread(descriptor, 16, position)
        if position + 4 > size or tag_length(head) is not None:
            return differ and count >= _SHORT_CHAIN
        length = frame_length(head)
        if length is None or position in failed or kind not in (None, frame_kind(head)):
            return False
        first = first or head
        differ = differ or head != first
        if differ and count >= _CHAIN:
            return True
        kind = frame_kind(head)
        failed.add(position)
        position += length
    return False


def frame_kind(header: bytes) -> tuple[int, int]:
    """Return version, layer and sample rate, which all frames of a stream share."""
    return header[1] & 0xFE, header[2] & 0x0C
