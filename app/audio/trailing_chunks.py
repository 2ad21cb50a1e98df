"""Recognise further chunks after the samples of a file, or samples that its header does not count.

Some recorders state half the length, or the number of samples instead of bytes, or never correct
the length of the first buffer. Whether other chunks follow can only be seen in the bytes. Pure but
for reads from a descriptor; worker thread.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

_KNOWN = frozenset(
    {
        *(b"LIST", b"list", b"INFO", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"fact", b"PEAK"),
        *(b"smpl", b"inst", b"JUNK", b"junk", b"PAD ", b"FLLR", b"axml", b"acid", b"strc", b"_PMX"),
        *(b"afsp", b"DISP", b"plst", b"levl", b"chna", b"cart", b"link", b"umid", b"minf", b"elm1"),
        *(b"regn", b"MEXT", b"wavl", b"slnt", b"note", b"labl", b"ltxt", b"data", b"fmt ", b"RIFF"),
        *(b"RF64", b"SNDM", b"ResU", b"MARK", b"COMT", b"NAME", b"AUTH", b"(c) ", b"ANNO", b"AESD"),
        *(b"MIDI", b"APPL", b"INST", b"FORM", b"SSND", b"strg", b"mark", b"info", b"kuki", b"chan"),
        *(b"free", b"uuid", b"peak", b"ovvw", b"edct", b"midi", b"pakt", b"CSET"),
        b"APET",
    }
)
"""Names of chunks of WAV, AIFF and CAF files, and the beginning of an APE tag."""

_ID3V1, _ID3V1_BYTES = b"TAG", 128

_MAX_CHUNKS = 100


def samples_follow(
    descriptor: int, position: int, size: int, head: struct.Struct, whole: Callable[[int], int]
) -> bool:
    """Return whether the bytes from `position` to `size` are samples and not further chunks.

    `head` is the layout of a chunk's head, a name and a length, and `whole` returns by the length
    the distance to the next chunk. Fewer bytes than a head do not matter. Raises `OSError`.
    """
    left = size - position
    if left <= head.size:
        return False
    # Some programs leave out the byte that makes the length of the chunk before even.
    first = os.pread(descriptor, 8, position - 1)
    is_known = first[1:5] in _KNOWN or first[:4] in _KNOWN
    if is_known or (first[1:4] == _ID3V1 and left == _ID3V1_BYTES):
        return False
    # Chunks with other names: one after the other up to the end.
    for _ in range(_MAX_CHUNKS):
        data = os.pread(descriptor, head.size, position)
        if len(data) < head.size:
            return False
        name, length = head.unpack(data)
        if not all(32 <= byte < 127 for byte in name[:4]) or length < 0:
            return True
        position += whole(length)
        if position > size + 1:
            return True
        if position >= size:
            return False
    return False
