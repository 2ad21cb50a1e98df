"""The audio of a request: in memory while small, in a file when large.

Either way it is a file descriptor, because libsndfile opened on a Python object goes through cffi
callbacks, which a process without writable-executable memory cannot have. The loop thread writes a
`Body`: into memory directly, into a file by way of the disk thread. `unwritten` is the number of
bytes on their way there; the server stops reading from the sender while it is large. Once the body
is complete and nothing is unwritten, the worker reads, patches and closes it.

A file has no name, unless there is a journal: then it has one from the start, in the journal's
directory for incomplete entries, because the journal keeps it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from app.audio.extract import Parts, copy_parts
from app.audio.patch import Patch, apply_patches
from app.storage.blocks import blocks, write_all
from app.storage.body_file import BodyFile, open_saved
from app.storage.disk import Disk
from app.storage.private_copy import PrivateCopies, PrivateCopy
from app.storage.unnamed import open_memory, open_unnamed

MEMORY_BYTES = 4 * 1024 * 1024
"""Bodies up to this size stay in RAM: two minutes of 16 kHz 16-bit PCM, any spoken command in any
format. 64 of them, the default queue, are 256 MiB at the most."""


class Body:
    """A growing body behind a descriptor: that of `memory`, or that of `file`.

    With `copies` a file belongs to the journal and is never patched itself. `directory` is the
    place of large extracts.
    """

    def __init__(
        self,
        memory: int = -1,
        file: BodyFile | None = None,
        new_file: Callable[[], BodyFile] | None = None,
        disk: Disk | None = None,
        copies: PrivateCopies | None = None,
        directory: Path | None = None,
    ) -> None:
        self._memory = memory
        self._file = file
        self._new_file = new_file
        self._disk = disk
        self._copies = copies
        self._directory = directory
        self._copy: PrivateCopy | None = None
        self.on_written: Callable[[], None] = lambda: None
        """Called on the loop after the disk thread has written a piece, or failed to."""
        self.size = 0
        """Bytes taken so far."""
        self.unwritten = 0
        """Bytes of these that the disk thread still has to write. Loop thread."""
        self.error: Exception | None = None
        """Set once the disk thread has failed to write a piece."""

    def fileno(self) -> int:
        """Return the descriptor of the whole body, once nothing is unwritten."""
        if self._copy is not None:
            return self._copy.descriptor
        return self._memory if self._file is None else self._file.descriptor

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. Raises `OSError` where there is no memory."""
        if self._file is None and self._memory >= 0 and self.size + len(data) <= MEMORY_BYTES:
            write_all(self._memory, data)
            self.size += len(data)
            return
        file = self._file or self._move_to_file()
        copy = bytes(data)
        self.size += len(copy)
        self._submit(len(copy), lambda: file.append(copy))

    def save(self, path: Path) -> int:
        """Disk thread: keep the body as the file `path`, its data synced; its checksum (CRC-32).

        The descriptor does not change. Raises `OSError`, also for an earlier piece that could not
        be written.
        """
        if self._file is None:
            return _save(self._memory, path)
        self._file.move(path)
        return self._file.checksum

    def patch(self, patches: Iterable[Patch]) -> int:
        """Worker: apply `patches`; the descriptor to read from now on. Raises `OSError` where
        there is no space for a copy of a journalled file."""
        if self._copy is None and self._file is not None and self._copies is not None:
            self._copy = self._copies.make(self._file.descriptor, self.size)
        apply_patches(self.fileno(), patches)
        return self.fileno()

    def extract(self, parts: Parts, most: int) -> int:
        """Worker: copy parts of the body, together at most `most` bytes, into a file without a
        name; its descriptor, for the caller to close. Raises `OSError` where there is no space."""
        directory = None if most <= MEMORY_BYTES else self._directory
        target = open_memory() if directory is None else open_unnamed(directory)
        return copy_parts(self.fileno(), target, parts)

    def close(self) -> None:
        """Give everything back. May be called twice; by the thread that has the body."""
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
        # The disk thread closes files, because freeing the blocks of a large one takes time.
        if self._copy is not None and self._copies is not None and self._disk is not None:
            self._copies.release(self._copy)
            self._disk.submit(self._copy.close)
            self._copy = None
        if self._file is not None and self._disk is not None:
            self._disk.submit(self._file.close)

    def _move_to_file(self) -> BodyFile:
        assert self._new_file is not None
        file = self._file = self._new_file()
        memory, self._memory = self._memory, -1
        if memory >= 0:
            self._submit(self.size, lambda: file.take_over(memory))
        return file

    def _submit(self, count: int, task: Callable[[], None]) -> None:
        def done(result: Exception | None) -> None:
            self.unwritten -= count
            self.error = self.error or result
            self.on_written()

        assert self._disk is not None
        self.unwritten += count
        self._disk.submit(task, done)


def in_memory(data: bytes) -> Body:
    """Return a complete body. Raises `OSError`."""
    body = Body(open_memory())
    write_all(body.fileno(), data)
    body.size = len(data)
    return body


def load(path: Path, disk: Disk, copies: PrivateCopies) -> tuple[Body, int]:
    """Disk thread: return the saved body at `path` and its checksum. Raises `OSError`.

    A small body is copied into memory; a large one stays in its file.
    """
    if path.stat().st_size <= MEMORY_BYTES:
        data = path.read_bytes()
        return in_memory(data), zlib.crc32(data)
    file = open_saved(path)
    body = Body(-1, file, None, disk, copies, copies.directory)
    body.size = os.fstat(file.descriptor).st_size
    return body, file.checksum


def _save(memory: int, path: Path) -> int:
    checksum = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for block in blocks(memory):
            write_all(descriptor, block)
            checksum = zlib.crc32(block, checksum)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    return checksum
