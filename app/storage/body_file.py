"""The file of a large body. Disk thread only, but for `descriptor`."""

from __future__ import annotations

import os
import tempfile
import zlib
from pathlib import Path

from app.storage.blocks import blocks, write_all
from app.storage.unnamed import open_unnamed


class BodyFile:
    """A growing file in `directory`. It is `named` if the journal is to keep it, and made by the
    first `append`."""

    def __init__(self, directory: Path, named: bool) -> None:
        self._directory = directory
        self._named = named
        self._path: Path | None = None
        self.descriptor = -1
        self.checksum = 0
        """CRC-32 of the bytes written so far."""
        self.error: OSError | None = None
        """Set once a write has failed; the file is of no use then."""

    def append(self, data: bytes) -> None:
        """Write `data` at the end. Raises `OSError`, and again at every later call."""
        if self.error is not None:
            raise self.error
        try:
            if self.descriptor < 0:
                self._open()
            write_all(self.descriptor, data)
        except OSError as error:
            self.error = error
            raise
        self.checksum = zlib.crc32(data, self.checksum)

    def take_over(self, memory: int) -> None:
        """Append the file behind `memory`, and close it."""
        try:
            for block in blocks(memory):
                self.append(block)
        finally:
            os.close(memory)

    def move(self, path: Path) -> None:
        """Give the file the name `path` for good, its data synced. Raises `OSError`."""
        if self.error is not None:
            raise self.error
        assert self._path is not None
        os.rename(self._path, path)
        self._path = None
        os.fdatasync(self.descriptor)

    def close(self) -> None:
        """Close the file, and remove it unless it was moved. May be called twice."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _open(self) -> None:
        if self._named:
            self.descriptor, name = tempfile.mkstemp(dir=self._directory, prefix="body-")
            self._path = Path(name)
        else:
            self.descriptor = open_unnamed(self._directory)


def open_saved(path: Path) -> BodyFile:
    """Return the file of a body that the journal holds; it is opened for reading only. Raises
    `OSError`."""
    file = BodyFile(path.parent, named=True)
    file.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for block in blocks(file.descriptor):
            file.checksum = zlib.crc32(block, file.checksum)
    except OSError:
        file.close()
        raise
    return file
