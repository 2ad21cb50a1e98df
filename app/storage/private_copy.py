"""Private copies of journalled bodies, for the decoder to read with patches applied.

A journalled body is never changed: it is the client's audio, and the journal holds its checksum.
Few files need a patch (`app/audio/header_repair.py`, `app/audio/mp3_repair.py`), so a copy is made
when the worker opens such a file, and not before. On a file system that can share blocks between
files (btrfs, XFS) the copy is a clone, which takes neither time nor space. Elsewhere its bytes are
reserved first, so that a full disk is an error at once. A copy has no name: nothing is left behind
however the process ends. Threads of the worker.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from app.storage.unnamed import open_unnamed

_FICLONE = 0x40049409
"""The ioctl that makes a file share the blocks of another: linux/fs.h, ioctl_ficlone(2)."""

_COPY_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class PrivateCopy:
    """A copy behind `descriptor` that takes `size` bytes of the disk."""

    descriptor: int
    size: int

    def close(self) -> None:
        """Give the file back. May take as long as the disk takes to free it."""
        os.close(self.descriptor)


class PrivateCopies:
    """Makes copies in `directory`, or in `second` where that has no space; all together take at
    most `capacity` bytes."""

    def __init__(self, directory: Path, second: Path | None, capacity: int) -> None:
        self.directory = directory
        self._second = second
        self._free = capacity
        self._lock = threading.Lock()

    def make(self, source: int, size: int) -> PrivateCopy:
        """Copy the `size` bytes behind `source`. Raises `OSError` if there is no space."""
        try:
            copy = self._make(self.directory, source, size)
        except OSError:
            if self._second is None:
                raise
            copy = self._make(self._second, source, size)
        self._take(copy.size)
        return copy

    def release(self, copy: PrivateCopy) -> None:
        """Count the bytes of `copy` as free again."""
        self._take(-copy.size)

    def _take(self, size: int) -> None:
        with self._lock:
            self._free -= size

    def _make(self, directory: Path, source: int, size: int) -> PrivateCopy:
        target = open_unnamed(directory)
        try:
            if _clone(source, target):
                return PrivateCopy(target, 0)
            if size > self._free:
                raise OSError(errno.ENOSPC, "the copies in use take --max-buffered-bytes")
            _reserve(target, size)
            _copy(source, target, size)
            return PrivateCopy(target, size)
        except BaseException:
            os.close(target)
            raise


def _clone(source: int, target: int) -> bool:
    """Share the blocks of `source`; whether the file system can."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _reserve(target: int, size: int) -> None:
    try:
        os.posix_fallocate(target, 0, size)
    except OSError as error:
        # A file system without reservations finds out while it writes.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _copy(source: int, target: int, size: int) -> None:
    """Within the kernel, and without a change to the position of `source`."""
    position = 0
    while position < size:
        count = os.sendfile(target, source, position, min(_COPY_BYTES, size - position))
        if count == 0:
            raise OSError(errno.EIO, "the body is shorter than it was")
        position += count
