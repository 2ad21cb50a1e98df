"""Recognise a body by its bytes, find out whether all of it arrived, and collect its patches.

The label that a client sends cannot be trusted, and libsndfile guesses: it takes some raw samples
for an MP3. So the bytes are recognised here first, from a short list. Works on a descriptor, reads
a few kilobytes (all of an Ogg and of some MP3s), writes nothing, and allocates nothing of a size
that a file can choose. Worker thread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from app.audio import header_repair, mp3_repair, ogg
from app.audio.mpeg_frames import starts_with_frames
from app.audio.ogg import Link
from app.audio.patch import Patch
from app.audio.tags import tags_length

_HEAD_BYTES = 4096

READABLE = frozenset({"WAV", "FLAC", "Ogg", "MP3", "AIFF", "AU", "CAF", "W64"})

_ASF = b"0&\xb2u\x8ef\xcf\x11"
"""Half of the identifier of a header object of Microsoft's Advanced Systems Format."""

_BOXES = frozenset(
    (b"ftyp", b"moov", b"mdat", b"moof", b"styp", b"sidx", b"free", b"skip", b"wide", b"pnot")
)
"""Boxes that an mp4, 3gp or QuickTime file, or a fragment of one, begins with."""

_TS_PACKETS = ((0, 188), (4, 192))
"""Position of the first packet and distance between packets, in plain transport streams and in
those of cameras (m2ts)."""
_TS_CHECKED = 5
_TS_SYNC = 0x47

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


@dataclass(frozen=True, slots=True)
class Container:
    """A recognised file. `readable` is True if the node decodes it."""

    name: str
    readable: bool
    truncated: bool = False
    """True if the file states more bytes than arrived."""
    patches: tuple[Patch, ...] = ()
    """The decoder needs these in the copy that it reads."""
    links: tuple[Link, ...] = ()
    """The links of an Ogg file that libsndfile does not read as it is."""
    g722: tuple[int, int] | None = None
    """Position and length of G.722 in a WAV file."""


def inspect(descriptor: int, size: int) -> Container | None:
    """Recognise the file of `size` bytes behind `descriptor`; None if it is not recognised.

    Leaves the file position where it was. Raises `OSError`.
    """
    tags = tags_length(descriptor)
    head = os.pread(descriptor, _HEAD_BYTES, tags)
    name = recognise(head)
    if name in (None, "MP3"):
        # An MP3 may begin without a tag, and with bytes that belong to no frame.
        patches = mp3_repair.repair(descriptor, size)
        # An unrecognised file with an ID3 tag is a damaged MP3.
        is_mp3 = patches is not None or os.pread(descriptor, 3, 0) == b"ID3"
        if not is_mp3:
            return None
        return Container("MP3", True, mp3_repair.breaks_off(descriptor, size), patches or ())
    if name not in READABLE:
        return Container(name, readable=False)
    if tags:
        return Container(name, True)  # libsndfile reads some, and compares the lengths itself
    if name == "Ogg":
        found = ogg.scan(descriptor, size)
        links = () if found.is_plain else found.links
        return Container(name, True, found.truncated, links=links)
    # FLAC has no length to compare here; the decoder detects its end.
    repair = header_repair.repair(name, head[:4], descriptor, size)
    g722 = header_repair.g722_data(head, descriptor, size) if name == "WAV" else None
    return Container(name, True, repair.truncated, repair.patches, g722=g722)


def recognise(head: bytes) -> str | None:
    """Return the container's name by the first bytes of a file; None if it is unknown."""
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
        (_ASF, "WMA"),
        (b"MThd", "MIDI"),
        (b"FLV\1", "FLV"),
        (b"\0\0\1\xba", "MPEG-PS"),
        (b".RMF", "RealMedia"),
    ):
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    if head[4:8] in _BOXES and head[0] != 0xFF:
        return "mp4/m4a"
    if _is_transport_stream(head):
        return "MPEG-TS"
    if head[:3] == b"ID3" or starts_with_frames(head):
        return "MP3"
    if _is_adts(head):
        return "AAC"
    return None


def _is_transport_stream(head: bytes) -> bool:
    for first, step in _TS_PACKETS:
        marks = head[first::step][:_TS_CHECKED]
        if len(marks) == _TS_CHECKED and set(marks) == {_TS_SYNC}:
            return True
    return False


def _is_adts(head: bytes) -> bool:
    """Return whether an ADTS frame begins here and another follows it, unless `head` ends before
    (ISO/IEC 13818-7, section 6.2)."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return False
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    following = head[length : length + 2]
    if length < 7:
        return False
    return following == head[:2] if len(following) == 2 else len(head) < _HEAD_BYTES
