"""Which entry of the journal is in the engine: what is to blame if the process dies.

A small file of a fixed size, overwritten in place. The worker thread writes it itself, before each
turn that is another job's: a mark that came by the disk thread could still be waiting behind a sync
when a bad file has already brought the process down, and would then name an innocent one, or
nobody. The write goes to the page cache and is never synced; what it must survive is the end of the
process, not of the machine, and after a power cut nothing was to blame.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog

_SIZE = 128

_log = structlog.get_logger("journal")


class CrashMarker:
    """The mark at `path`. Where it cannot be written it does nothing, and the log says so once."""

    def __init__(self, path: Path) -> None:
        self._current: str | None = None
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.fstat(self._descriptor).st_size < _SIZE:
                # Room now, so that a disk that is full later makes no difference.
                os.pwrite(self._descriptor, bytes(_SIZE), 0)
                os.fsync(self._descriptor)
        except OSError as error:
            self._give_up(error)

    def read(self) -> str:
        """What was set last, by whichever process; empty where nothing was."""
        if self._descriptor < 0:
            return ""
        data = os.pread(self._descriptor, _SIZE, 0)
        return os.fsdecode(data.partition(b"\0")[0])

    def set(self, name: str) -> None:
        """From now on `name` is in the engine; empty for none. By one thread at a time."""
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
        _log.error("deaths of the process cannot be told by request", error=str(error))
        self.close()
