"""What the journal still held at start, taken in oldest first as there is room.

Nothing is loaded ahead: until its turn an entry is a name in a list, and then a request and a
descriptor. It goes before those who wait at the door, but never takes more than half of the places,
so that neither a long journal keeps new requests out nor they it. Loop thread; the reading is the
disk's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import structlog

from app.requests.dispatch import Dispatch
from app.requests.in_flight import InFlight
from app.requests.outcomes import Outcomes
from app.requests.quota import Quota
from app.storage.disk import Disk
from app.storage.journal import Journal, Stored, Unusable

_log = structlog.get_logger("journal")

_CLIENT = "journal"
"""What admission takes all of it together for; no address looks like that."""


class JournalSource:
    """Reads back the entries `journal` had at start and hands them to `dispatch`. `numbers` makes
    the numbers of requests; `on_room` is called when one turned out to be no request."""

    def __init__(
        self,
        journal: Journal,
        disk: Disk,
        *,
        quota: Quota,
        dispatch: Dispatch,
        outcomes: Outcomes,
        numbers: Iterator[int],
        on_room: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._disk = disk
        self._quota = quota
        self._dispatch = dispatch
        self._outcomes = outcomes
        self._numbers = numbers
        self._on_room = on_room
        self._entries = deque(journal.left)

    def __len__(self) -> int:
        """Entries whose turn has not come."""
        return len(self._entries)

    def take(self) -> None:
        """Begin to read the next entries, as far as there is room."""
        while self._entries and not self._outcomes.behind:
            number = next(self._numbers)
            if not self._quota.admit(number, _CLIENT):
                break
            self._read(number, self._entries.popleft())

    def _read(self, number: int, entry: str) -> None:
        self._disk.submit(
            lambda: self._journal.load(entry), lambda result: self._loaded(number, entry, result)
        )

    def _loaded(self, number: int, entry: str, result: Stored | Unusable | Exception) -> None:
        if isinstance(result, Stored):
            pending = InFlight(number, result.request, result.origin, entry=entry)
            self._dispatch.submit(pending, result.body)
            return
        if isinstance(result, Unusable):
            self._outcomes.unusable(result)
        else:
            _log.error("left for the next start", entry=entry, error=str(result))
        self._quota.leave(number)
        self._on_room()
