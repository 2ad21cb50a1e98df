"""What was overwritten in a journal's own file, so that the next process finds it as it came.

The decoder mends headers in the body that it reads, and a large one with a journal is the journal's
too. A file beside it has a record for each piece: position, length, and the bytes that stood there.
Noted by the worker before it overwrites, put back by the disk thread when the entry is loaded.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from app.storage import durable

_HEAD = struct.Struct(">QI")


def note(undo: Path, position: int, data: bytes) -> None:
    """Write down on the medium that `data` stood at `position`. Raises `OSError`."""
    durable.write(undo, _HEAD.pack(position, len(data)) + data, append=True)
    durable.sync(undo.parent)


def put_back(undo: Path, descriptor: int) -> None:
    """Write what was noted where it stood, the oldest last. Raises `OSError`.

    A record that broke off is taken away, or the next would be read as its end: what it speaks of
    was never overwritten.
    """
    if not undo.exists():
        return
    noted = undo.read_bytes()
    old: list[tuple[int, bytes]] = []
    whole = 0
    while whole + _HEAD.size <= len(noted):
        position, length = _HEAD.unpack_from(noted, whole)
        end = whole + _HEAD.size + length
        if end > len(noted):
            break
        old.append((position, noted[end - length : end]))
        whole = end
    if whole < len(noted):
        os.truncate(undo, whole)
    for position, data in reversed(old):
        os.pwrite(descriptor, data, position)
