"""The scheduler: selects the job whose window is decoded next.

Pure: no threads, no clock; the worker reports the duration of each turn. Clients (addresses) share
the engine's time, not its turns. A client's virtual time is the seconds that its turns have taken,
and the client with the least virtual time goes next. A client whose windows take 0.3 s therefore
gets 33 of them for each 10 s window of another client. A new or returning client begins with the
virtual time at which the last turn began, so absence earns no credit. A client that left with more
virtual time keeps it until all work is done.

An endless stream of new clients could so starve the others. Therefore there is an even time, which
advances with every turn by the turn's seconds divided by the number of clients present. No client
begins more than HEAD_START behind it. Once the even time is that far ahead of a waiting client, no
later client goes before it. With at most N clients present and turns of at most C seconds, a client
with work waits no more than N * (HEAD_START + 3 * C) seconds.

Jobs of one connection run in the order of arrival. Among a client's connections, and among clients
with equal virtual time, the job with the least audio left goes first. A command therefore waits for
the window in progress and not for the rest of a ten-minute file. A job gains rank whenever another
job of its client is taken. Owned by the worker thread.
"""

from __future__ import annotations

from dataclasses import dataclass

AGING_SECONDS = 60.0
"""Seconds subtracted from a job's length for every turn that its client gave to another job. A
ten-minute file beside a series of commands gets about every eleventh window. With more jobs waiting
it gets fewer, since they age as well, but it always makes progress."""

HEAD_START = 10.0
"""Seconds that a new client may be behind the even time. While clients with long files wait for one
another's windows, the even time gets ahead of them by at most one window of equal length. Up to
there a new client's command goes before them. 10 s is a long window on a small machine. With every
further second, new clients could delay each client present by a second more."""

_REMEMBERED = 1000
"""Number of departed clients whose virtual times are kept; the oldest is dropped first."""


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
    virtual_time: float
    jobs: int = 0


class Scheduler:
    """Jobs waiting for windows. `job` and `connection` are numbers that never come twice."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._clients: dict[str, _Client] = {}
        """Those present: they have jobs."""
        self._left: dict[str, float] = {}
        """The virtual times of those who have none any more, in the order they left."""
        self._last = 0.0
        """The virtual time at which the last turn began. Nobody present has less."""
        self._even = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, job: int, client: str, connection: int, seconds: float) -> None:
        """A new job with about `seconds` of audio."""
        self._entries[job] = _Entry(job, client, connection, seconds)
        if client not in self._clients:
            least = max(self._last, self._even - HEAD_START)
            self._clients[client] = _Client(max(least, self._left.pop(client, least)))
        self._clients[client].jobs += 1

    def remove(self, job: int) -> None:
        """The job is done, or cancelled; unknown jobs are none of our business."""
        if entry := self._entries.pop(job, None):
            client = self._clients[entry.client]
            client.jobs -= 1
            if not client.jobs:
                del self._clients[entry.client]
                self._left[entry.client] = client.virtual_time
                if len(self._left) > _REMEMBERED:
                    del self._left[next(iter(self._left))]

    def update(self, job: int, seconds_left: float) -> None:
        """After a turn: what is left of the job, now that more is known."""
        self._entries[job].seconds_left = seconds_left

    def charge(self, client: str, seconds: float) -> None:
        """A turn of `client` took the engine `seconds`. Said right after the turn, also where its
        job was the client's last and has been removed."""
        present = len(self._clients)
        if client in self._clients:
            self._clients[client].virtual_time += seconds
        else:
            self._left[client] += seconds
            present += 1
        self._even += seconds / present

    def settle(self) -> None:
        """There is nothing to do for a while: nobody got less because another got more."""
        self._left.clear()

    def next(self) -> int | None:
        """The job that gets the next turn; it stays until it is removed. None if there is none."""
        heads: dict[int, _Entry] = {}
        for entry in self._entries.values():
            heads.setdefault(entry.connection, entry)
        if not heads:
            return None
        chosen = min(heads.values(), key=self._place)
        for entry in heads.values():
            if entry.client == chosen.client:
                entry.passed_over += 1
        chosen.passed_over = 0
        self._last = self._clients[chosen.client].virtual_time
        self._even = max(self._even, self._last)
        return chosen.job

    def _place(self, entry: _Entry) -> tuple[float, float, int]:
        return self._clients[entry.client].virtual_time, entry.rank, entry.job
