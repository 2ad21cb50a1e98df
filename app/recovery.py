"""What the journal still held at start, taken in oldest first as there is room.

Nothing is loaded ahead: until its turn an entry is a name in a list, and then a request and a
descriptor. Loop thread; the reading is the disk's.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol as Interface

import structlog

from app.disk import Disk
from app.journal import Journal, Stored, Unusable

_log = structlog.get_logger("journal")


class Taker(Interface):
    """Who sees to what was recovered."""

    def on_recovered(self, stored: Stored) -> None:
        """A request that is to be worked on."""

    def on_unusable(self, unusable: Unusable) -> None:
        """An outcome that is to be written, and its entry then quarantined."""


class Recovery:
    """Reads back the entries `journal` had at start."""

    def __init__(self, journal: Journal, disk: Disk, taker: Taker) -> None:
        self._journal = journal
        self._disk = disk
        self._taker = taker
        self._entries = deque(journal.left)
        self.loading = 0
        """Entries that are being read, each of which may become a request."""

    def __len__(self) -> int:
        """Entries whose turn has not come."""
        return len(self._entries)

    def take(self, room: int) -> None:
        """Begin to read the next entries, at most `room`."""
        for _ in range(min(room, len(self._entries))):
            self._read(self._entries.popleft())

    def _read(self, entry: str) -> None:
        def done(result: Stored | Unusable | Exception) -> None:
            self.loading -= 1
            if isinstance(result, Stored):
                self._taker.on_recovered(result)
            elif isinstance(result, Unusable):
                self._taker.on_unusable(result)
            else:
                _log.error("left for the next start", entry=entry, error=str(result))

        self.loading += 1
        self._disk.submit(lambda: self._journal.load(entry), done)
