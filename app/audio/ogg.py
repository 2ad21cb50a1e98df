"""Ogg files: their links, the codecs, and whether the end arrived.

A paused voice message or a dump of radio consists of several *links*, whole streams one after the
other, each perhaps with another rate and other channels. libsndfile reads only the first, so the
node opens each link by itself. Reads pages' heads only; nothing is allocated by a value in the
file. Worker thread.

Sources: RFC 3533 (Ogg), RFC 7845 (Opus), RFC 9639 section 10.1 (FLAC in Ogg), the Vorbis I
specification, the Speex manual.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK_BYTES = 1 << 20
_PAGE_BYTES = 65_307
"""Bytes of the longest page."""

_HEAD_BYTES = 27
_CONTINUED, _FIRST, _LAST = 1, 2, 4
"""Flags of a page."""

_BEGINS = re.compile(rb"OggS\0[\2\3\6\7]")
"""A page with the flag of the first page of a stream."""

MAX_LINKS = 1_000
"""Further links are not read: a day of radio has fewer."""

_MAX_FIRST_PAGES = 10 * MAX_LINKS
"""Most pages that begin a stream; a film has several streams in a link."""

_MAX_PAGES = 1 << 18
"""Most pages of a link whose pages are read one by one: 1 GiB with pages of the usual size."""

_CODECS = (
    (b"\x01vorbis", "Vorbis", 11),
    (b"OpusHead", "Opus", 9),
    (b"\x7fFLAC", "FLAC", None),
    (b"fLaC", "FLAC", None),
    (b"Speex   ", "Speex", 48),
    (b"\x80theora", "Theora", None),
    (b"BBCD\0", "Dirac", None),
    (b"OVP80", "VP8", None),
    (b"CELT    ", "CELT", None),
    (b"PCM     ", "PCM", None),
)
"""The beginning of a stream's first packet, its codec, and the position of the number of
channels."""

READABLE = frozenset({"Vorbis", "Opus", "FLAC"})


@dataclass(frozen=True, slots=True)
class Link:
    """The bytes from `start` to `end`. `codec` is that of the first stream, or None if it is not
    known; `channels` are 0 if they are not known."""

    start: int
    end: int
    codec: str | None
    channels: int


@dataclass(frozen=True, slots=True)
class OggFile:
    """An Ogg file; `truncated` if it breaks off within a page or a packet, or has too many
    links."""

    links: tuple[Link, ...]
    truncated: bool

    @property
    def is_plain(self) -> bool:
        """True if libsndfile reads all of it, or may do so."""
        return len(self.links) == 1 and self.links[0].codec in (None, "Vorbis", "Opus")


@dataclass(frozen=True, slots=True)
class _Page:
    position: int
    flags: int
    serial: bytes
    lengths: bytes
    size: int


def scan(descriptor: int, size: int) -> OggFile:
    """Find the links of a file that begins with a page. Raises `OSError`."""
    starts = _link_starts(descriptor, size)
    links = tuple(
        _link(descriptor, start, end)
        for start, end in zip(starts, [*starts[1:], size], strict=True)
    )
    is_whole = len(links) <= MAX_LINKS and not _breaks_off(descriptor, size)
    return OggFile(links[:MAX_LINKS], not is_whole)


def flac_ranges(descriptor: int, link: Link) -> Iterator[tuple[int, int]]:
    """Yield position and length of the parts of a link that together are a FLAC file: the contents
    of its pages, without the head of the first. Raises `OSError`."""
    position, serial = link.start, None
    for _ in range(_MAX_PAGES):
        page = _page(descriptor, position)
        if page is None:
            return
        begin = position + _HEAD_BYTES + len(page.lengths)
        length = min(sum(page.lengths), link.end - begin)
        if serial is None:
            serial = page.serial
            # The mapping's own head is 9 bytes; the first mapping had none.
            skipped = 9 if os.pread(descriptor, 5, begin) == b"\x7fFLAC" else 0
            begin, length = begin + skipped, length - skipped
        if page.serial == serial and length > 0:
            yield begin, length
        position += page.size
        if position >= link.end:
            return


def _link_starts(descriptor: int, size: int) -> list[int]:
    """Return where links begin; at most one more than `MAX_LINKS`. The first pages of all streams
    of a link precede all others."""
    starts = [0]
    expected = _after(descriptor, 0)
    for count, position in enumerate(_first_pages(descriptor, size)):
        if position == 0:
            continue
        if count >= _MAX_FIRST_PAGES:
            starts += [position] * MAX_LINKS
            break
        if position != expected:
            starts.append(position)
            if len(starts) > MAX_LINKS:
                break
        expected = _after(descriptor, position)
    return starts


def _after(descriptor: int, position: int) -> int:
    page = _page(descriptor, position)
    return position if page is None else position + page.size


def _first_pages(descriptor: int, size: int) -> Iterator[int]:
    """Yield the position of each page that begins a stream."""
    position = 0
    while position < size:
        block = os.pread(descriptor, _BLOCK_BYTES, position)
        for match in _BEGINS.finditer(block):
            yield position + match.start()
        # A page's head may lie across the border of two blocks.
        position += max(1, len(block) - 5)


def _link(descriptor: int, start: int, end: int) -> Link:
    page = _page(descriptor, start)
    begin = start + (_HEAD_BYTES if page is None else _HEAD_BYTES + len(page.lengths))
    packet = os.pread(descriptor, 64, begin)
    for magic, codec, at in _CODECS:
        if packet.startswith(magic):
            channels = packet[at] if at is not None and at < len(packet) else 0
            return Link(start, end, codec, channels)
    return Link(start, end, None, 0)


def _page(descriptor: int, position: int) -> _Page | None:
    head = os.pread(descriptor, _HEAD_BYTES + 255, position)
    return _parse(head, position)


def _parse(head: bytes, position: int) -> _Page | None:
    """Return the page that begins with `head`; None if none does, or if it breaks off there."""
    if len(head) < _HEAD_BYTES or head[:5] != b"OggS\0" or head[5] > 7:
        return None
    lengths = head[_HEAD_BYTES : _HEAD_BYTES + head[26]]
    if len(lengths) < head[26]:
        return None
    size = _HEAD_BYTES + len(lengths) + sum(lengths)
    return _Page(position, head[5], head[14:18], lengths, size)


def _breaks_off(descriptor: int, size: int) -> bool:
    """Return whether the file ends within a page, or within a packet that no page continues. The
    flag of the last page is often absent and shows nothing."""
    # The last page begins at most one longest page before the end; a tag may follow it.
    begin = max(0, size - 2 * _PAGE_BYTES)
    tail = os.pread(descriptor, 2 * _PAGE_BYTES, begin)
    at = tail.rfind(b"OggS\0")
    if at < 0:
        return False
    page = _parse(tail[at:], at)
    if page is None or at + page.size > len(tail):
        return True
    rest = tail[at + page.size :]
    if rest and b"OggS\0".startswith(rest[:5]):
        return True
    return bool(page.lengths) and page.lengths[-1] == 255 and not page.flags & _LAST
