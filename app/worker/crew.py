"""The threads of a worker: one for each engine, and one that hears while a single engine decodes a
file.

Any thread may read them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from app.decoding.transcriber import Transcriber
from app.worker.seats import Seat, WorkerThread


class Crew:
    """Threads that run `run` with a seat for each of `engines`, and `listen` on a further one if it
    is given."""

    def __init__(
        self,
        engines: Sequence[Transcriber],
        run: Callable[[Seat], None],
        listen: Callable[[], None] | None,
    ) -> None:
        self.seats = tuple(Seat(number, engine, run) for number, engine in enumerate(engines, 1))
        """The engines with their threads."""
        self._ear = None if listen is None else WorkerThread("ear", listen)
        self.threads = self.seats if self._ear is None else (*self.seats, self._ear)
        """All threads."""

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether all its threads run."""
        return all(thread.alive for thread in self.threads)

    @property
    def busy_engines(self) -> int:
        """Number of engines that decode, or read what they decode next. Any thread."""
        return sum(seat.job is not None for seat in self.seats)

    def join(self, seconds: float) -> bool:
        """Wait for the threads to end, at most `seconds`; whether they did."""
        until = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(until)
        return not any(thread.alive for thread in self.threads)
