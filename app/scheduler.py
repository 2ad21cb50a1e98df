"""Which job's window goes next.

Pure: no threads, no clock. Clients (addresses) are served in turn, whoever had a window the longest
time ago first, so that a client with hundreds of files delays another's single one by one window
and not by hundreds. A client that is new here counts as one whose turn it is; where several do, the
one with the least audio left goes first, so that a three-second command waits for the window in
progress and not for the rest of a ten-minute file. Among the jobs of one client it is the same; but
those of one connection run in the order they came, so only the first of each is a candidate. And
every time a job is passed over it gains, so that a stream of short commands, from whomever, cannot
starve a long recording. Owned by the worker thread.
"""

from __future__ import annotations

from dataclasses import dataclass

AGING_SECONDS = 60.0
"""How much shorter a job looks for every turn it was passed over. A ten-minute file beside
commands that come one after another gets about every eleventh window; the more wait beside it, the
fewer, since they age as well, but it always gets on."""

HEAD_START = 10
"""A new client goes before those that had a window within this many turns. No more, or new clients
without end would keep the others waiting for ever."""


@dataclass(slots=True)
class _Entry:
    job: int
    client: str
    connection: int
    seconds_left: float
    passed_over: int = 0

    @property
    def rank(self) -> float:
        return self.seconds_left - AGING_SECONDS * self.passed_over


@dataclass(slots=True)
class _Client:
    jobs: int
    served: int
    """The turn that decides its place among the clients."""
    since: int
    """The turn of its last window, or in which it came."""


class Scheduler:
    """Jobs waiting for windows. `job` and `connection` are numbers that never come twice."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._clients: dict[str, _Client] = {}
        """Those that have jobs."""
        self._turn = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, job: int, client: str, connection: int, seconds: float) -> None:
        """A new job with about `seconds` of audio."""
        self._entries[job] = _Entry(job, client, connection, seconds)
        if client not in self._clients:
            # Beside the one whose turn it is, not before it: who comes back for every request would
            # else always be first.
            served = min((other.served for other in self._clients.values()), default=self._turn)
            self._clients[client] = _Client(0, max(served, self._turn - HEAD_START), self._turn)
        self._clients[client].jobs += 1

    def remove(self, job: int) -> None:
        """The job is done, or cancelled; unknown jobs are none of our business."""
        if entry := self._entries.pop(job, None):
            client = self._clients[entry.client]
            client.jobs -= 1
            if not client.jobs:
                del self._clients[entry.client]

    def update(self, job: int, seconds_left: float) -> None:
        """After a turn: what is left of the job, now that more is known."""
        self._entries[job].seconds_left = seconds_left

    def next(self) -> int | None:
        """The job that gets the next turn; it stays until it is removed. None if there is none."""
        heads: dict[int, _Entry] = {}
        for entry in self._entries.values():
            heads.setdefault(entry.connection, entry)
        if not heads:
            return None
        first: dict[str, _Entry] = {}
        for entry in sorted(heads.values(), key=lambda entry: (entry.rank, entry.job)):
            first.setdefault(entry.client, entry)
        chosen = min(first.values(), key=self._place)
        for entry in heads.values():
            entry.passed_over += 1
        chosen.passed_over = 0
        self._turn += 1
        client = self._clients[chosen.client]
        client.served = client.since = self._turn
        return chosen.job

    def _place(self, entry: _Entry) -> tuple[int, float, int]:
        """Among the clients' first jobs: in turn, and where several have it, short before long."""
        client = self._clients[entry.client]
        waited = self._turn - client.since
        return client.served, entry.seconds_left - AGING_SECONDS * waited, entry.job
