"""Reading and writing whole files by descriptor."""

from __future__ import annotations

import os
from collections.abc import Iterator

_BLOCK_BYTES = 1 << 20


def blocks(descriptor: int) -> Iterator[bytes]:
    """Yield a file's bytes from the beginning. Its position stays where it is."""
    position = 0
    while block := os.pread(descriptor, _BLOCK_BYTES, position):
        yield block
        position += len(block)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data` at the file's position. Raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
