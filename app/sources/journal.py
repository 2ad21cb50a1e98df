"""Recovery: the entries that the journal held at start, admitted oldest first.

Nothing is loaded ahead: an entry is a name in a list until it is admitted, and then a request and a
descriptor. Entries are admitted before waiting connections, but take at most half of the places. A
long journal so does not keep new requests out, nor they it. Loop thread; the disk thread reads the
entries.
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
"""The quota counts all entries as those of this client; it is no valid address."""


class JournalSource:
    """Reads back the entries that `journal` had at start and hands them to `dispatch`.

    `numbers` makes the numbers of requests; `on_free` is called when an entry was unusable and its
    place is free again.
    """

    def __init__(
        self,
        journal: Journal,
        disk: Disk,
        *,
        quota: Quota,
        dispatch: Dispatch,
        outcomes: Outcomes,
        numbers: Iterator[int],
        on_free: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._disk = disk
        self._quota = quota
        self._dispatch = dispatch
        self._outcomes = outcomes
        self._numbers = numbers
        self._on_free = on_free
        self._entries = deque(journal.left)

    def __len__(self) -> int:
        """Return the number of entries that were not admitted yet."""
        return len(self._entries)

    def take(self) -> None:
        """Begin to read the next entries, as many as the quota admits."""
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
            _log.error(
                "cannot read; kept for the next start",
                entry=entry,
                error=str(result),
            )
        self._quota.leave(number)
        self._on_free()
