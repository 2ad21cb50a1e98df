"""Where a body waits until it is decoded: in memory while small, in a file when large.

Either way it is a file descriptor, because that is what the decoder wants: libsndfile opened on a
Python object goes through cffi callbacks, which a process denied writable-executable memory cannot
have. The loop thread writes a `Body`; into memory it does so itself, a file is written by the disk
thread, and `unwritten` says how much is on its way there, by which the server stops reading from
the sender. Once the body is complete and nothing is unwritten the worker owns it, reads it (and may
mend a header in it) and closes it.

The file has no name (`O_TMPFILE`), so nothing is left behind however the node ends, and no request
can choose a path; only with a journal it has one from the start, in the journal's own place for
what is not complete, because there it is to stay.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from app.storage import undo
from app.storage.disk import Disk

MEMORY_BYTES = 4 * 1024 * 1024
"""Bodies up to this size stay in RAM: two minutes of 16 kHz 16-bit PCM, any spoken command in any
format. 64 of them, the default queue, are 256 MiB at the very worst."""

HEAD_BYTES = 65_536
"""Of a file's beginning, where the decoder may mend a header; see `Body.head`."""

_UNDO = "undo"
"""What a mend has overwritten beyond that, see `app/storage/undo.py`."""

_BLOCK_BYTES = 1 << 20

_log = structlog.get_logger("spool")


class _File:
    """A body's file while it is being written. Disk thread only."""

    def __init__(self, directory: Path, named: bool) -> None:
        self._directory = directory
        self._named = named
        self.path: Path | None = None
        self.descriptor = -1
        self.checksum = 0
        self.head = b""
        self.undo: Path | None = None
        """Where it is written down what a mend overwrites, once the body was saved."""
        self.error: OSError | None = None

    def append(self, data: bytes) -> None:
        """Raises `OSError`; after that no more is written, what is there is of no use."""
        if self.error is not None:
            raise self.error
        try:
            if self.descriptor < 0:
                self._open()
            _write_all(self.descriptor, data)
        except OSError as error:
            self.error = error
            raise
        self.checksum = zlib.crc32(data, self.checksum)
        self.head += data[: HEAD_BYTES - len(self.head)]

    def take_over(self, memory: int) -> None:
        """Begin with what lies in memory, and give that back."""
        try:
            for block in _blocks(memory):
                self.append(block)
        finally:
            os.close(memory)

    def close(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.path = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _open(self) -> None:
        if self._named:
            self.descriptor, name = tempfile.mkstemp(dir=self._directory, prefix="body-")
            self.path = Path(name)
        else:
            # TemporaryFile uses O_TMPFILE where the file system has it, else unlinks at once.
            with tempfile.TemporaryFile(dir=self._directory, prefix="node-whisper-") as file:
                self.descriptor = os.dup(file.fileno())


class Body:
    """A growing body behind a descriptor: `memory`, or the one of `file`."""

    def __init__(
        self,
        memory: int = -1,
        file: _File | None = None,
        new_file: Callable[[], _File] | None = None,
        disk: Disk | None = None,
    ) -> None:
        self._descriptor = memory
        self._file = file
        self._new_file = new_file
        self._disk = disk
        self.on_written: Callable[[], None] = lambda: None
        """Called on the loop whenever less is unwritten than before, or writing has failed."""
        self.size = 0
        """Bytes taken so far."""
        self.unwritten = 0
        """Of these, what the disk thread still has to write. The loop's to read."""
        self.error: Exception | None = None
        """Why the disk refused, once it has."""

    def fileno(self) -> int:
        """Of the whole body, once nothing is unwritten."""
        return self._descriptor if self._file is None else self._file.descriptor

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. Raises `OSError` where there is no memory."""
        if self._file is None and self._descriptor >= 0 and self.size + len(data) <= MEMORY_BYTES:
            _write_all(self._descriptor, data)
            self.size += len(data)
            return
        file = self._file or self._move()
        copy = bytes(data)
        self.size += len(copy)
        self._submit(len(copy), lambda: file.append(copy))

    def save(self, path: Path) -> int:
        """Disk thread: have the body as the file `path`, its data synced; its checksum (CRC-32).
        The descriptor stays what it is. Raises `OSError`, also for what could not be written."""
        if self._file is None:
            return _save(self._descriptor, path)
        if self._file.error is not None:
            raise self._file.error
        assert self._file.path is not None
        os.rename(self._file.path, path)
        self._file.path = None
        os.fdatasync(self._file.descriptor)
        return self._file.checksum

    def lies_in(self, entry: Path) -> None:
        """Disk thread: the directory it was saved in has this path now."""
        if self._file is not None:
            self._file.undo = entry / _UNDO

    def mend(self, descriptor: int, data: bytes, position: int) -> None:
        """Worker: `os.pwrite` for its own copy. Where that is also the journal's, what stood there
        beyond its head is on the medium before: the next process finds it as it came. Few large
        files have it so far behind, so that the worker waits for the disk for once."""
        noted = None if self._file is None else self._file.undo
        behind = position + len(data) > HEAD_BYTES
        if self._file is not None and noted is not None and behind:
            try:
                undo.note(noted, position, os.pread(descriptor, len(data), position))
            except OSError as error:
                # What was accepted is done on a full disk as well; only a death would now show.
                _log.warning("a mended header cannot be put back", error=str(error))
                self._file.undo = None
        os.pwrite(descriptor, data, position)

    @property
    def head(self) -> bytes:
        """Disk thread: the first bytes, as they came, of a body which the worker is going to read
        where it was saved. Empty where it reads a copy."""
        return b"" if self._file is None else self._file.head

    def close(self) -> None:
        """Give everything back; may be said twice. By whoever has the body at the time."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._file is not None and self._disk is not None:
            # Freeing the blocks of a large file takes its time as well.
            self._disk.submit(self._file.close)

    def _move(self) -> _File:
        """Go on in a file, behind what memory holds."""
        assert self._new_file is not None
        file = self._file = self._new_file()
        memory, self._descriptor = self._descriptor, -1
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


class Spool:
    """Makes bodies. The large ones go to `directory`, by way of `disk`; `named` if they are to have
    a name there."""

    def __init__(self, directory: Path, disk: Disk, named: bool = False) -> None:
        self._directory = directory
        self._disk = disk
        self._named = named

    def create(self, size: int | None) -> Body:
        """A place for a body of `size` bytes, None if that is not known. Raises `OSError` if there
        is no memory to be had."""
        large = size is not None and size > MEMORY_BYTES
        return Body(-1 if large else _memory(), None, self._new_file, self._disk)

    def _new_file(self) -> _File:
        return _File(self._directory, self._named)


def in_memory(data: bytes) -> Body:
    """A complete body. Raises `OSError`."""
    body = Body(_memory())
    _write_all(body.fileno(), data)
    body.size = len(data)
    return body


def load(path: Path, head: bytes, disk: Disk) -> tuple[Body, int]:
    """Disk thread: the saved body at `path` and its checksum. Raises `OSError`.

    A small one is copied into memory, a large one is to be read where it lies, after its `head` was
    put back as it came: the last worker to read it may have mended a header in it.
    """
    with open(path, "rb") as saved:
        size = os.fstat(saved.fileno()).st_size
        if size <= MEMORY_BYTES:
            data = saved.read()
            return in_memory(data), zlib.crc32(data)
    file = _File(path.parent, named=True)
    file.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    file.undo = path.with_name(_UNDO)
    try:
        undo.put_back(file.undo, file.descriptor)
        if os.pread(file.descriptor, len(head), 0) != head:
            os.pwrite(file.descriptor, head, 0)
        checksum = 0
        for block in _blocks(file.descriptor):
            checksum = zlib.crc32(block, checksum)
    except OSError:
        file.close()
        raise
    body = Body(-1, file, None, disk)
    body.size = size
    return body, checksum


def _save(memory: int, path: Path) -> int:
    checksum = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for block in _blocks(memory):
            _write_all(descriptor, block)
            checksum = zlib.crc32(block, checksum)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    return checksum


def _memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("node-whisper-body", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(prefix="node-whisper-") as file:
        return os.dup(file.fileno())


def _blocks(descriptor: int) -> Iterator[bytes]:
    """All of it; its own position stays where it is."""
    position = 0
    while block := os.pread(descriptor, _BLOCK_BYTES, position):
        yield block
        position += len(block)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
