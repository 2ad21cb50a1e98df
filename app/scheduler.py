"""Which job's window goes next.

Pure: no threads, no clock. Jobs of one connection run in the order they came, so only the first of
each connection is a candidate. Among those the one with the least audio left goes first, so that a
three-second command waits for the window in progress and not for the rest of a ten-minute file;
and every time a job is passed over it gains, so that a stream of short commands cannot starve a
long recording. Owned by the worker thread.
"""

from __future__ import annotations

from dataclasses import dataclass

AGING_SECONDS = 60.0
"""How much shorter a job looks for every turn it was passed over. A ten-minute file beside
commands that come one after another gets about every eleventh window; the more wait beside it, the
fewer, since they age as well, but it always gets on."""


@dataclass(slots=True)
class _Entry:
    job: int
    connection: int
    seconds_left: float
    passed_over: int = 0

    @property
    def rank(self) -> float:
        return self.seconds_left - AGING_SECONDS * self.passed_over


class Scheduler:
    """Jobs waiting for windows. `job` and `connection` are numbers that never come twice."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job: int) -> bool:
        return job in self._entries

    def add(self, job: int, connection: int, seconds: float) -> None:
        """A new job with about `seconds` of audio."""
        self._entries[job] = _Entry(job, connection, seconds)

    def remove(self, job: int) -> None:
        """The job is done, or cancelled; unknown jobs are none of our business."""
        self._entries.pop(job, None)

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
        chosen = min(heads.values(), key=lambda entry: (entry.rank, entry.job))
        for entry in heads.values():
            entry.passed_over += 1
        chosen.passed_over = 0
        return chosen.job
