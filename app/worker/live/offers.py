"""The entries of live jobs in the scheduler: at most one for each, its next decode. Worker
thread."""

from __future__ import annotations

from app.worker.live.job import LiveJob
from app.worker.live.utterances import Due
from app.worker.scheduler import Scheduler


class Offers:
    """Keeps the entries in `scheduler` up to date."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._offered: dict[int, Due] = {}

    def __len__(self) -> int:
        return len(self._offered)

    def offer(self, job: LiveJob, due: Due | None, seconds: float) -> None:
        """State what is due of a job, and its seconds of audio."""
        if due is not self._offered.get(job.number):
            self.withdraw(job.number)
            if due is not None:
                self._offered[job.number] = due
                is_final = due is Due.FINAL
                self._scheduler.add(job.number, job.client, job.connection, seconds, is_final)
        elif due is not None:
            self._scheduler.update(job.number, seconds)

    def withdraw(self, number: int) -> None:
        """Remove what is offered of a job."""
        if self._offered.pop(number, None) is not None:
            self._scheduler.remove(number)
