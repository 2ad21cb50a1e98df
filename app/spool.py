"""Where a body waits until it is decoded: in memory while small, in a nameless file when large.

Either way it is a file descriptor, because that is what the decoder wants: libsndfile opened on a
Python object goes through cffi callbacks, which a process denied writable-executable memory cannot
have. The file has no name (`O_TMPFILE`), so nothing is left behind however the node ends, and no
request can choose a path. The loop thread writes a `Body`; once it is complete the worker thread
owns it, reads it and closes it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

MEMORY_BYTES = 4 * 1024 * 1024
"""Bodies up to this size stay in RAM: two minutes of 16 kHz 16-bit PCM, any spoken command in any
format. 64 of them, the default queue, are 256 MiB at the very worst."""


class Body:
    """A growing body behind a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = 0
        """Bytes written so far."""

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. Raises `OSError` (a full disk, for one)."""
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self.size += written
            view = view[written:]

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Spool:
    """Makes bodies; `directory` is where the large ones go."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create(self, size: int) -> Body:
        """A place for a body of `size` bytes. Raises `OSError` if there is none to be had."""
        if size <= MEMORY_BYTES and hasattr(os, "memfd_create"):
            return Body(os.memfd_create("node-whisper-body", os.MFD_CLOEXEC))
        # TemporaryFile uses O_TMPFILE where the file system has it, else unlinks at once.
        with tempfile.TemporaryFile(dir=self._directory, prefix="node-whisper-") as file:
            return Body(os.dup(file.fileno()))
