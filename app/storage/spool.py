"""Places for the bodies of requests until they are decoded."""

from __future__ import annotations

from pathlib import Path

from app.storage.body import MEMORY_BYTES, Body
from app.storage.body_file import BodyFile
from app.storage.disk import Disk
from app.storage.private_copy import PrivateCopies
from app.storage.unnamed import open_memory


class Spool:
    """Makes bodies. Large ones are written to `directory` by `disk`.

    With a journal, `directory` is the journal's own and `copies` makes copies of the bodies that
    the decoder cannot read as they are; without one the files have no name.
    """

    def __init__(self, directory: Path, disk: Disk, copies: PrivateCopies | None = None) -> None:
        self._directory = directory
        self._disk = disk
        self._copies = copies

    def create(self, size: int | None) -> Body:
        """Make a place for a body of `size` bytes, None if that is not known. Raises `OSError`
        where there is no memory."""
        large = size is not None and size > MEMORY_BYTES
        memory = -1 if large else open_memory()
        return Body(memory, None, self._new_file, self._disk, self._copies, self._directory)

    def _new_file(self) -> BodyFile:
        return BodyFile(self._directory, named=self._copies is not None)
