"""Files that are to be there after a power cut: their data is on the medium, and their names are
once the directory is synced as well. For threads that may wait for a disk.
"""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: bytes, append: bool = False) -> None:
    """Have `data` in the file `path`, for its owner only, and synced. Raises `OSError`."""
    with open(path, "ab" if append else "wb", opener=_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(directory: Path) -> None:
    """Have the names in `directory` synced. Raises `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
