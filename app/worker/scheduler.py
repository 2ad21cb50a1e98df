"""The choice of the job whose window or utterance is decoded next.

Pure: no threads, no clock; the worker reports the seconds that each turn took. Clients (addresses)
share the engine's time evenly, not its turns. A client's virtual time is the sum of the seconds of
its turns, and the client with the least virtual time is next. A client whose windows take 0.3 s
gets 33 turns for each turn of a client whose windows take 10 s. A new or returning client begins
with the least virtual time of all present clients, or with its own if that is greater: absence
earns no credit. Virtual times are forgotten when all work is done.

An endless series of new clients could still delay all others. Therefore an even time advances with
every turn, by the turn's seconds divided by the number of present clients. It is the virtual time
of each client under even service. A new client's virtual time is at most HEAD_START less than the
even time.

A *due* entry is the final of a live utterance: its speaker waits. While a client has one, its
virtual time counts HEAD_START less. So finals precede windows of files, unless their client has
taken that much more than its share.

No client starves. Let N be the most clients, C the seconds of the longest turn, H HEAD_START, and
v the virtual time of a client with work. No virtual time exceeds the least one, and so the even
time, by more than H + C, or by more than C if the client had no final. Only clients up to v + H
precede it. A new client is among them until the even time exceeds v + 2 H, which takes
N * (2 H + C) seconds if the client had no final, and N * (3 H + C) otherwise. After that only
present clients do, each with a turn of C at most beyond v + H, and they begin at most C, or H + C,
below v. Together that is N * (3 H + 3 C), and N * (5 H + 3 C) for a client with finals. Without
finals of others it is N * (H + 3 C).

Jobs of one connection run in order of arrival. Among a client's connections, and among clients with
equal virtual time, the job with the least remaining audio is first, and a due one before others. A
command thus waits for the window in progress, and not for the rest of a ten-minute file. A job's
rank improves with every turn of another job of its client.

With several engines, jobs that are in a turn stay in their places: the next job of their connection
waits for them. Until a turn is charged, its client counts as having taken as long as its last turn
took, so that it does not get all engines at once. A client can be ahead by one turn for each
engine, and in the sums above C is that many turns, while every client is served as much faster.
Under the worker's lock.
"""

from __future__ import annotations

from dataclasses import dataclass

AGING_SECONDS = 60.0
"""Seconds subtracted from a job's remaining audio, for its rank, with every turn of another job of
its client. A ten-minute file then gets about every eleventh window during a series of commands;
fewer if more jobs wait, since those age as well, but it always progresses."""

DUE_SECONDS = 10 * AGING_SECONDS
"""Seconds subtracted from a due job's remaining audio, for its rank. A ten-minute file then gets
about every twentieth turn beside endless finals of its client."""

HEAD_START = 10.0
"""Seconds by which a new client's virtual time may be less than the even time, and by which a final
precedes windows. While several clients have long files, the even time exceeds the virtual times of
the waiting ones by up to one window; up to HEAD_START a new client's command precedes them. 10 s is
an expensive window on a small machine. Every further second adds one second per present client to
the longest wait, and two more beside finals."""

_REMEMBERED = 1000
"""Most absent clients whose virtual times are kept; the first that left is forgotten first."""


@dataclass(slots=True)
class _Entry:
    job: int
    client: str
    connection: int
    seconds_left: float
    is_due: bool
    passed_over: int = 0

    @property
    def rank(self) -> float:
        due = DUE_SECONDS if self.is_due else 0.0
        return self.seconds_left - due - AGING_SECONDS * self.passed_over


@dataclass(slots=True)
class _Client:
    virtual_time: float
    jobs: int = 0
    usual: float = 0.0
    """Seconds of its last turn, or of anyone's if it had none."""


class Scheduler:
    """The jobs that wait for a turn. Numbers of jobs and connections are never reused."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._clients: dict[str, _Client] = {}
        """The present clients: those with jobs."""
        self._left: dict[str, float] = {}
        """The virtual times of clients without jobs, in the order they left."""
        self._least = 0.0
        """The least virtual time of the clients that were present at the last turn."""
        self._even = 0.0
        self._usual = 0.0
        """Seconds of the last turn."""
        self._running: dict[int, str] = {}
        """The jobs that are in a turn, and their clients."""

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self, job: int, client: str, connection: int, seconds: float, is_due: bool = False
    ) -> None:
        """Add a job with about `seconds` of audio, or a live utterance, `is_due` if it is final."""
        self._entries[job] = _Entry(job, client, connection, seconds, is_due)
        if client not in self._clients:
            least = max(self._least, self._even - HEAD_START)
            virtual_time = max(least, self._left.pop(client, least))
            self._clients[client] = _Client(virtual_time, usual=self._usual)
        self._clients[client].jobs += 1

    def remove(self, job: int) -> None:
        """Remove a job that is finished or cancelled; ignore an unknown one."""
        if entry := self._entries.pop(job, None):
            client = self._clients[entry.client]
            client.jobs -= 1
            if not client.jobs:
                del self._clients[entry.client]
                self._left[entry.client] = client.virtual_time
                if len(self._left) > _REMEMBERED:
                    del self._left[next(iter(self._left))]

    def update(self, job: int, seconds_left: float) -> None:
        """Set the remaining audio of a job after a turn."""
        self._entries[job].seconds_left = seconds_left

    def charge(self, client: str, seconds: float) -> None:
        """Add the `seconds` of a turn to the virtual time of `client`. Call it right after the
        turn, even if the client's last job has been removed."""
        present = len(self._clients)
        self._usual = seconds
        if client in self._clients:
            self._clients[client].virtual_time += seconds
            self._clients[client].usual = seconds
        else:
            self._left[client] += seconds
            present += 1
        self._even += seconds / present

    def settle(self) -> None:
        """Forget the virtual times of absent clients: all work is done, so no client was
        delayed."""
        self._left.clear()

    def next(self, without: frozenset[int] = frozenset()) -> int | None:
        """Return the job that gets the next turn, without removing it; None if there is none. Jobs
        that are in a turn, or among those in `without`, are left out."""
        ready = self._ready(without)
        if not ready:
            return None
        chosen = self._first(ready)
        for entry in ready:
            if entry.client == chosen.client:
                entry.passed_over += 1
        chosen.passed_over = 0
        self._least = min(client.virtual_time for client in self._clients.values())
        self._even = max(self._even, self._least)
        return chosen.job

    def has_next(self, without: frozenset[int] = frozenset()) -> bool:
        """Return whether `next` would return a job."""
        return bool(self._ready(without))

    def precedes(self, job: int, without: frozenset[int]) -> bool:
        """Return whether a job that waits, not among those in `without`, would have its turn before
        `job`, which has one, if that had not begun."""
        entry, client = self._entries[job], self._running.pop(job)
        first = self._first([*self._ready(without | {job}), entry])
        self._running[job] = client
        return first is not entry

    def begin(self, job: int) -> None:
        """State that the turn of a job begins, beside which others may begin."""
        self._running[job] = self._entries[job].client

    def end(self, job: int) -> None:
        """State that the turn of a job is over, even if the job has been removed."""
        self._running.pop(job, None)

    def _first(self, ready: list[_Entry]) -> _Entry:
        due = {entry.client for entry in ready if entry.is_due}

        def place(entry: _Entry) -> tuple[float, float, int]:
            time = self._expected_time(entry.client) - HEAD_START * (entry.client in due)
            return time, entry.rank, entry.job

        return min(ready, key=place)

    def _expected_time(self, name: str) -> float:
        """Return the virtual time of a client once its turns in progress are charged, as far as
        that is known."""
        client = self._clients[name]
        turns = sum(other == name for other in self._running.values())
        return client.virtual_time + turns * client.usual

    def _ready(self, without: frozenset[int]) -> list[_Entry]:
        """Return the first job of each connection, if it may have a turn."""
        heads: dict[int, _Entry] = {}
        for entry in self._entries.values():
            heads.setdefault(entry.connection, entry)
        left_out = without.union(self._running)
        return [entry for entry in heads.values() if entry.job not in left_out]
