"""Entries of a journal by an earlier version, in which the decoder changed large bodies in place.

Beside such a body lie its first 64 KiB as they were received (`head`), and records of the bytes
that were overwritten, after them (`undo`): position, length, and the bytes, again and again. The
body is put back as it was received before its checksum is compared. Disk thread.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from app.audio.patch import Patch, apply_patches

_RECORD = struct.Struct(">QI")


def restore(entry: Path) -> None:
    """Put the body in the directory `entry` back as it was received. Does nothing if it is.
    Raises `OSError`."""
    patches = _received(entry)
    if all(_is_there(entry / "body", patch) for patch in patches):
        return
    descriptor = os.open(entry / "body", os.O_WRONLY | os.O_CLOEXEC)
    try:
        # Records may overlap, so all are written where one is missing.
        apply_patches(descriptor, patches)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _received(entry: Path) -> list[Patch]:
    """The bytes as they were received, in the order in which to write them."""
    # The oldest record was made before the body was changed at all, so it comes last.
    undo = [] if not (entry / "undo").exists() else _records((entry / "undo").read_bytes())
    found = list(reversed(undo))
    if (entry / "head").exists():
        found.append(Patch(0, (entry / "head").read_bytes()))
    return found


def _records(data: bytes) -> list[Patch]:
    """The whole records. The process may have died before the last one was complete, and then
    before it overwrote the bytes."""
    found: list[Patch] = []
    at = 0
    while at + _RECORD.size <= len(data):
        position, length = _RECORD.unpack_from(data, at)
        start = at + _RECORD.size
        at = start + length
        if at <= len(data):
            found.append(Patch(position, data[start:at]))
    return found


def _is_there(body: Path, patch: Patch) -> bool:
    with body.open("rb") as file:
        file.seek(patch.position)
        return file.read(len(patch.data)) == patch.data
