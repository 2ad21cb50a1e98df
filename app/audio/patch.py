"""Small changes to a file that the decoder would otherwise misread.

`app/audio/header_repair.py` and `app/audio/mp3_repair.py` return patches and write nothing; the
owner of the bytes decides which copy of them to change.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patch:
    """Replace the bytes from `position` on by `data`. A patch never lengthens the file."""

    position: int
    data: bytes


def apply_patches(descriptor: int, patches: Iterable[Patch]) -> None:
    """Write `patches` into the file behind `descriptor`, in order. Its position stays where it is.
    Raises `OSError`."""
    for patch in patches:
        data, position = patch.data, patch.position
        while data:
            written = os.pwrite(descriptor, data, position)
            data, position = data[written:], position + written
