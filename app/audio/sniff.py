"""What kind of file a body is, by its bytes, and whether all of it arrived.

The label a client sends cannot be trusted, and libsndfile guesses: it takes some raw samples for
an MP3, and reads a WAV whose length field was never filled in (streamed by ffmpeg or arecord) as
silence. So the bytes are recognised here first, from a short list; what they say of their
length, `app/audio/header_repair.py` and `app/audio/mp3_repair.py` see to. Works on a descriptor,
reads a few kilobytes (of Ogg and of some MP3 all), allocates nothing that a file can choose the
size of. Worker thread.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from app.audio import header_repair as lengths
from app.audio import mp3_repair as mpeg

_HEAD_BYTES = 4096
_BLOCK_BYTES = 1 << 20
_OGG_PAGE_BYTES = 65_307

READABLE = frozenset({"WAV", "FLAC", "Ogg", "MP3", "AIFF", "AU", "CAF", "W64"})

_OGG_BEGINS = re.compile(rb"OggS\0[\2\3\6\7]")
"""A page with the flag of a stream's first."""

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


@dataclass(frozen=True, slots=True)
class Container:
    """A recognised file. `readable` says whether the node decodes it."""

    name: str
    readable: bool
    truncated: bool = False
    """True where the file itself says that more should have come."""


def inspect(descriptor: int, size: int, write: mpeg.Write = os.pwrite) -> Container | None:
    """Recognise the file of `size` bytes behind `descriptor`, and mend what it says of its length.

    None where nothing is recognised. Leaves the file position where it was. Raises `OSError`.
    """
    # A tag need not stand in front of an MP3.
    tags = mpeg.tags_length(descriptor)
    head = os.pread(descriptor, _HEAD_BYTES, tags)
    name = recognise(head)
    if name in (None, "MP3"):
        has_frames = mpeg.mend(descriptor, size, write)
        # What else has an ID3 tag is a damaged MP3.
        is_mp3 = has_frames or os.pread(descriptor, 3, 0) == b"ID3"
        return Container("MP3", readable=True) if is_mp3 else None
    if name not in READABLE:
        return Container(name, readable=False)
    if tags:
        return Container(name, True)  # libsndfile reads some, and compares itself
    if name == "Ogg":
        return Container(name, True, _ogg_is_truncated(head, descriptor, size))
    # FLAC: the decoder knows better. MP3 has no length to compare with.
    return Container(name, True, lengths.mend(name, head[:4], descriptor, size, write))


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


def _ogg_is_truncated(head: bytes, descriptor: int, size: int) -> bool:
    """Whether the end is missing, or what libsndfile takes for it is not: of several files joined
    to one it reads the first."""
    begun = _ogg_beginnings(head)
    return not _ogg_has_last_page(descriptor, size) or _ogg_begins_again(descriptor, begun, size)


def _ogg_has_last_page(descriptor: int, size: int) -> bool:
    """Whether the last page is whole and carries the end-of-stream flag (RFC 3533, section 6)."""
    # The last page begins within the length of the longest of the end.
    tail = os.pread(descriptor, _OGG_PAGE_BYTES, max(0, size - _OGG_PAGE_BYTES))
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or not page[5] & 4:
        return False
    # 27 bytes, the last of them the number of segments; their lengths; the segments.
    lengths = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(lengths)


def _ogg_beginnings(head: bytes) -> int:
    """The bytes of the pages with which streams begin: they all stand before the others."""
    position = 0
    while len(page := head[position : position + 282]) >= 27 and page[5] & 2:
        position += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return position


def _ogg_begins_again(descriptor: int, position: int, size: int) -> bool:
    """Whether a stream begins behind `position`, which is another file, even if it has the same
    serial number."""
    while position < size:
        block = os.pread(descriptor, _BLOCK_BYTES, position)
        if _OGG_BEGINS.search(block):
            return True
        # A page's head may lie across the border.
        position += max(1, len(block) - 5)
    return False
