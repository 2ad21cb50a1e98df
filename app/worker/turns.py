"""The turns that jobs have on the engines: which may begin now, and those in progress.

A job has one turn at a time. With several engines one of them is kept free of files' windows while
a live job is open, so that a speaker never waits for such a window. A single engine gives such a
window up instead, and decodes it again later. A job that crashed a node has its turns alone: if the
node crashes again, no other job is suspected. Threads of the worker, under its lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from app.decoding.transcriber import Yielding
from app.limits import MARK_SEPARATOR
from app.worker.file_jobs import FileJobs
from app.worker.live.desk import Desk
from app.worker.scheduler import Scheduler
from app.worker.seats import Seat


class Turns:
    """The turns on `seats`. `mark` receives the journal's names of the jobs that are decoded;
    `threads` is the number of processors for all engines. `yielding` is the only engine, if files
    give way to live audio."""

    def __init__(
        self,
        seats: Sequence[Seat],
        scheduler: Scheduler,
        files: FileJobs,
        live: Desk,
        mark: Callable[[str], None],
        threads: int,
        yielding: Yielding | None = None,
    ) -> None:
        self._seats = seats
        self._scheduler = scheduler
        self._files = files
        self._live = live
        self._mark = mark
        self._threads = threads
        self._yielding = yielding
        self.given_up = 0
        """Number of windows that were given up. Any thread."""
        self._gave_way: set[int] = set()
        """The files whose present window was given up once."""
        self._is_alone = False
        """Whether a suspect has its turn."""
        self._awaits_end = False
        """Whether a suspect waits for the end of the turns in progress."""

    @property
    def in_progress(self) -> int:
        """Number of turns in progress."""
        return sum(seat.job is not None for seat in self._seats)

    @property
    def may_begin(self) -> bool:
        """Whether any turn may begin now, if there is a job for it."""
        return not (self._is_alone or (self._awaits_end and self.in_progress))

    @property
    def has_next(self) -> bool:
        """Whether there is a job that may have a turn now."""
        return self.may_begin and self._scheduler.has_next(self._left_out)

    def has(self, job: int) -> bool:
        """Return whether a job has its turn now."""
        return any(seat.job == job for seat in self._seats)

    def next(self) -> int | None:
        """Return the job that has the next turn; None if there is none that may."""
        if not self.may_begin:
            return None
        self._awaits_end = False
        number = self._scheduler.next(self._left_out)
        if number is not None and self._is_suspect(number) and self.in_progress:
            self._awaits_end = True
            return None
        return number

    def begin(self, seat: Seat, number: int) -> None:
        """Begin the turn of a job on `seat`."""
        job = self._files.get(number)
        seat.job = number
        # The journal has no entry of a live job.
        seat.mark = "" if job is None else job.journal_entry
        seat.has_worked = True
        self._is_alone = self._is_suspect(number)
        self._write_mark()
        if len(self._seats) > 1:
            seat.threads = self._threads_for(seat)

    def end(self, seat: Seat) -> None:
        """End the turn on `seat`."""
        if seat.gives_way and self._yielding is not None:
            self._yielding.resume()
        elif seat.job is not None:
            self._gave_way.discard(seat.job)
        seat.gives_way = False
        seat.job, seat.mark, seat.threads = None, "", 0
        self._is_alone = False
        if self.in_progress:
            self._write_mark()

    @property
    def decodes_file(self) -> bool:
        """Whether a window of a file is in progress."""
        return any(seat.job is not None and self._files.get(seat.job) for seat in self._seats)

    def give_way(self) -> None:
        """Ask the only engine to give up the window of a file, if live audio that is due would be
        decoded before it. A window is given up once at most."""
        seat = self._seats[0]
        number = seat.job
        if self._yielding is None or number is None or self._files.get(number) is None:
            return
        if seat.gives_way or number in self._gave_way:
            return
        files = frozenset(self._files.numbers)
        if self._scheduler.precedes(number, files):
            self._gave_way.intersection_update(files)
            self._gave_way.add(number)
            seat.gives_way = True
            self.given_up += 1
            self._yielding.give_up()

    def rest(self) -> None:
        """State that there is no work."""
        if not self.in_progress:
            self._mark("")

    def _threads_for(self, seat: Seat) -> int:
        """Return the threads of a decode that begins now: those that no decode in progress uses,
        and at most an equal share. A decode keeps the number that it began with."""
        used = sum(other.threads for other in self._seats if other is not seat)
        share = math.ceil(self._threads / self.in_progress)
        return max(1, min(self._threads - used, share))

    def _write_mark(self) -> None:
        self._mark(MARK_SEPARATOR.join(seat.mark for seat in self._seats if seat.mark))

    def _is_suspect(self, number: int) -> bool:
        job = self._files.get(number)
        return len(self._seats) > 1 and job is not None and job.suspect

    @property
    def _left_out(self) -> frozenset[int]:
        """The jobs that may not have a turn now."""
        if len(self._seats) == 1:
            return frozenset()
        # The final of a stream may be due while its partial is in progress.
        left_out = frozenset(seat.job for seat in self._seats if seat.job is not None)
        if self._live.is_open and len(self._seats) - self.in_progress == 1:
            return left_out.union(self._files.numbers)
        return left_out
