"""MPEG audio frames: where the first is, how long each is, and how many of them a file has.

An MP3 does not say how long it is, unless its encoder could go back and write that into a first
frame of its own, the Xing tag. Where there is none libsndfile takes the length of the first frame
for that of all, and where there is one it believes it; and it stops decoding there. So a recording
of variable bit rate that was encoded into a pipe, and several MP3 files joined to one, would lose
their ends without a word. And it refuses a file that begins with anything but a frame or an ID3
tag, as what was cut out of a stream does. `mend` counts the frames of the one, writing the number
in, and makes a tag of what the other begins with; in our own copy. Worker thread.

Sources: ISO/IEC 11172-3 2.4.1 and 2.4.2, ISO/IEC 13818-3 2.4.2.3 for the frames; Xing's and LAME's
descriptions of their tag ("Mp3 Info Tag rev 1"); id3.org's of ID3v1 and ID3v2.4, section 3; the
APEv2 specification of the Hydrogenaudio wiki.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable

Write = Callable[[int, bytes, int], object]
"""Writes into a descriptor at a position, as `os.pwrite` does; whoever keeps what a file was like
has one of his own."""

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

_SHORTEST = 24
"""Bytes of the shortest frame of layer 3: 8 kbit/s at 24 kHz."""

_BLOCK_BYTES = 1 << 16

_MOST_FRAMES = 1 << 20
"""Counted one by one, 300,000 a second on a busy PC; these are seven hours. For what lies behind
them, and behind what is no frame, there is only the most that it can be."""

_MOST_TAGS = 8

_JUNK_BYTES = 1 << 16
"""Within these, behind the tags, the first frame is looked for. A stream cut anywhere has less than
3 KiB of a frame in front; the headers of a radio's answer and what recorders leave are not more.
Layer 3 only: the others' headers are found in raw tones, too."""

_CHAIN = 32
"""So many frames in a row, of one version, layer and sample rate, make a stream; an AVI has fewer
of its MP3's in a row."""

_LONGEST_CHAIN = 4096
"""So many of them may be as the first: 100 s of silence. In raw samples of a pure tone all may be,
where its period divides the length of a frame."""

_SHORT_CHAIN = 3
"""The same at the end of a file."""

_SMALLEST_TAG = 20
"""libmpg123 complains of an ID3 tag with less than 10 bytes behind the 10 of its head."""

_LARGEST_TAG = 10 + (1 << 28)

_TRAILER_BYTES = 4096
"""More than this behind what the tag speaks of may be audio."""


def starts_with_frames(head: bytes) -> bool:
    """Two frame headers of one stream in the right distance: one alone is found in any second raw
    recording."""
    length = frame_length(head[:4])
    if length is None:
        return False
    following = head[length : length + 4]
    return frame_length(following) is not None and _kind(following) == _kind(head)


def frame_length(header: bytes) -> int | None:
    """The bytes of the frame that begins with these four, or None if none does."""
    if len(header) < 4 or header[0] != 0xFF:
        return None
    return _length(header[1], header[2])


@functools.cache
def _length(second: int, third: int) -> int | None:
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


def mend(descriptor: int, size: int, write: Write = os.pwrite) -> bool:
    """Make an MP3 of `size` bytes one that libsndfile reads from its first frame to its last.

    What is mended goes through `write`. False, and nothing done, where no frames are found. Raises
    `OSError`.
    """
    start = _first_frame(descriptor, size)
    if start is None:
        return False
    _mend_count(descriptor, _cover(descriptor, start, write), size, write)
    return True


def _first_frame(descriptor: int, size: int) -> int | None:
    """Where the frames begin: behind the tags, or behind what else is there."""
    tags = tags_length(descriptor)
    block = os.pread(descriptor, _JUNK_BYTES, tags)
    if starts_with_frames(block):
        return tags
    failed: set[int] = set()
    at = block.find(b"\xff")
    while at >= 0:
        header = block[at : at + 4]
        is_candidate = frame_length(header) is not None and _is_layer_3(header)
        if is_candidate and _is_stream(descriptor, tags + at, size, failed):
            return tags + at
        at = block.find(b"\xff", at + 1)
    return None


def _is_stream(descriptor: int, start: int, size: int, failed: set[int]) -> bool:
    """Whether a chain of frames begins at `start`. Those that lead nowhere go into `failed`."""
    position, kind, first, differ = start, None, b"", False
    for count in range(_LONGEST_CHAIN):
        head = os.pread(descriptor, 16, position)
        if position + 4 > size or _tag_length(head) is not None:
            return differ and count >= _SHORT_CHAIN
        length = frame_length(head)
        if length is None or position in failed or kind not in (None, _kind(head)):
            return False
        first = first or head
        differ = differ or head != first
        if differ and count >= _CHAIN:
            return True
        kind = _kind(head)
        failed.add(position)
        position += length
    return False


def _kind(header: bytes) -> tuple[int, int]:
    """Version, layer and sample rate: what is the same in all frames of a stream."""
    return header[1] & 0xFE, header[2] & 0x0C


def _is_layer_3(header: bytes) -> bool:
    return header[1] >> 1 & 3 == 1


def _cover(descriptor: int, start: int, write: Write) -> int:
    """Make one ID3 tag of what stands before `start`, unless it is one; where the frames begin."""
    head = os.pread(descriptor, 16, 0)
    # libsndfile knows no footer.
    is_tag = head[:3] == b"ID3" and not head[5] & 16 and _tag_length(head) == start
    if start == 0 or (is_tag and start >= _SMALLEST_TAG) or start > _LARGEST_TAG:
        return start
    if start < _SMALLEST_TAG:
        # No room for a tag: the first frame, 26 ms, becomes a part of it.
        start += frame_length(os.pread(descriptor, 4, start)) or 0
    length = bytes(start - 10 >> shift & 127 for shift in (21, 14, 7, 0))
    # What comes then is padding, by its first bytes.
    write(descriptor, b"ID3\4\0\0" + length + bytes(10), 0)
    return start


def _mend_count(descriptor: int, start: int, size: int, write: Write) -> None:
    """Write the number of frames into an MP3 that says, or seems to have, less of them.

    Where there is no tag to write it into, the first frame becomes one: it holds what an encoder
    emits before the sound begins.
    """
    first = os.pread(descriptor, _BLOCK_BYTES, start)
    length = frame_length(first)
    if length is None or not _is_layer_3(first):
        return  # of constant bit rate, and without such tags
    frame = first[:length]
    side_info = 4 + ((32, 17) if first[1] >> 3 & 3 == 3 else (17, 9))[first[3] >> 6 == 3]
    at = max(frame.find(b"Xing", 4, 44), frame.find(b"Info", 4, 44))
    if at < 0:
        # By the length without padding, as libmpg123 does.
        unpadded = length - (first[2] >> 1 & 1)
        stated = (size - start) // unpadded
    elif (found := _stated(frame[at:], size - start)) is not None:
        stated = found
    else:
        return
    # The tag's own frame does not count.
    count = _count(descriptor, start, size) - 1
    if count <= stated + 1:
        return
    if at < 0:
        at = side_info
        if len(frame) < at + 12:
            return
        # No checksum, no side information: silence.
        write(descriptor, bytes((first[1] | 1, *first[2:4])) + bytes(length - 4), start + 1)
        write(descriptor, b"Xing" + struct.pack(">I", 1), start + at)
    write(descriptor, struct.pack(">I", count), start + at + 8)


def _stated(tag: bytes, size: int) -> int | None:
    """The frames that a tag counts, or None where it is to be believed or has no such number."""
    if len(tag) < 16:
        return None
    flags, frames, length = struct.unpack(">4xIII", tag[:16])
    if not flags & 1 or (flags & 2 and length + _TRAILER_BYTES >= size):
        return None
    return int(frames)


def tags_length(descriptor: int) -> int:
    """Bytes of the tags at the beginning; there may be several."""
    position = 0
    for _ in range(_MOST_TAGS):
        length = _tag_length(os.pread(descriptor, 16, position))
        if length is None:
            break
        position += length
    return position


def _tag_length(head: bytes) -> int | None:
    """Bytes of the ID3 or APE tag that begins so, or None."""
    if len(head) < 16:
        return None
    if head[:3] == b"ID3":
        footer = 10 if head[5] & 16 else 0
        return 10 + footer + sum((head[6 + i] & 127) << 7 * (3 - i) for i in range(4))
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX":
        return 32 + int(struct.unpack("<12xI", head)[0])
    return None


def _count(descriptor: int, start: int, size: int) -> int:
    """How many frames lie from `start` to the end, or a greater number."""
    count, position = 0, start
    while position < size and count < _MOST_FRAMES:
        block = os.pread(descriptor, _BLOCK_BYTES, position)
        at = 0
        while at + 4 <= len(block):
            length = _length(block[at + 1], block[at + 2]) if block[at] == 0xFF else None
            if length is None:
                if at + 16 > len(block) and at:
                    break  # a tag, perhaps, whose head the next block has whole
                length = _tag_length(block[at : at + 16])
                if length is None:
                    return count + _most_frames(size - position - at)
            # Tags count as well: a file can hold as many of them.
            count += 1
            at += length
        if at == 0:
            break
        position += at
    return count + _most_frames(size - position)


def _most_frames(size: int) -> int:
    return size // _SHORTEST if size > _TRAILER_BYTES else 0
