"""Requests that the journal held at the start, taken oldest first while there are places.

Nothing is loaded ahead: an entry is a name in a list until its turn, and then a request and a
descriptor. Entries go before waiting uploads but take at most half of the places, so that a long
journal and new requests do not block each other. Loop thread; the disk thread reads the entries.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator

import structlog

from app.requests.client import AbsentClient, JournalClient
from app.requests.dispatch import Dispatch
from app.requests.in_flight import InFlight
from app.requests.outcomes import Outcomes
from app.requests.quota import Quota
from app.storage.disk import Disk
from app.storage.journal import Journal, Stored, Unusable

_log = structlog.get_logger("journal")


class JournalSource:
    """Reads the entries that `journal` had at the start and submits them to `dispatch`. `numbers`
    makes the numbers of requests; `on_free` is called when an entry gave up its place."""

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
        self._entries = deque(journal.entries_at_start)

    def __len__(self) -> int:
        """Return the number of entries that are still to be read."""
        return len(self._entries)

    @property
    def unfinished(self) -> int:
        return 0

    def collect(self) -> None:
        """Do nothing: the disk thread's completions are called one by one."""

    def close(self) -> None:
        """Do nothing: entries that were not read stay for the next start."""

    def take(self) -> None:
        """Begin to read the next entries, while there are places."""
        while self._entries and not self._outcomes.behind:
            number = next(self._numbers)
            if not self._quota.admit_directly(number, AbsentClient.name):
                break
            self._read(number, self._entries.popleft())

    def _read(self, number: int, entry: str) -> None:
        self._disk.submit(
            lambda: self._journal.load(entry), lambda result: self._loaded(number, entry, result)
        )

    def _loaded(self, number: int, entry: str, result: Stored | Unusable | Exception) -> None:
        if isinstance(result, Stored):
            client = JournalClient(AbsentClient(number), self._journal, entry)
            in_flight = InFlight(number, result.request, result.origin, client)
            self._dispatch.submit(in_flight, result.body)
            return
        if isinstance(result, Unusable):
            quarantine = functools.partial(self._journal.quarantine, result)
            self._outcomes.record(
                result.request_id, result.origin, result.failure, written=quarantine
            )
        else:
            _log.error("cannot read; kept for the next start", entry=entry, error=str(result))
        self._quota.release(number)
        self._on_free()
