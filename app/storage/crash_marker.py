"""The crash marker: which journal entries are in the engines, so that a crash is counted against
them.

A small file of a fixed size, overwritten in place. The worker's threads write it themselves before
each turn that belongs to another job. The disk thread may be busy with a sync. A bad file could
then crash the process before its name is written, and the crash would count against the wrong
entry.

The write goes to the page cache and is never synced: it has to survive the end of the process, not
of the machine, and no entry is to blame for a power cut.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog

_SIZE = 1024
"""Bytes for the names of `MAX_ENGINES` entries. Within one page, which is written as a whole."""

_log = structlog.get_logger("journal")


class CrashMarker:
    """The marker at `path`. If it cannot be written it does nothing, after one line in the log."""

    def __init__(self, path: Path) -> None:
        self._current: str | None = None
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            size = os.fstat(self._descriptor).st_size
            if size < _SIZE:
                # Reserve the space now, in case the disk is full later.
                os.pwrite(self._descriptor, bytes(_SIZE - size), size)
                os.fsync(self._descriptor)
        except OSError as error:
            self._give_up(error)

    def read(self) -> str:
        """Return what was set last, by this process or an earlier one; empty for none."""
        if self._descriptor < 0:
            return ""
        data = os.pread(self._descriptor, _SIZE, 0)
        return os.fsdecode(data.partition(b"\0")[0])

    def set(self, name: str) -> None:
        """State that `name` is in an engine now, or several names with `MARK_SEPARATOR` between
        them; empty for none. By one thread at a time."""
        if name == self._current or self._descriptor < 0:
            return
        self._current = name
        try:
            os.pwrite(self._descriptor, os.fsencode(name).ljust(_SIZE, b"\0"), 0)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _give_up(self, error: OSError) -> None:
        _log.error("cannot write the crash marker; crashes are not counted", error=str(error))
        self.close()
