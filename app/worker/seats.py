"""The threads of a worker, and the engines that each alone uses.

whisper.cpp's contexts and libgomp's teams belong to one thread each, so a job is decoded on the
engine of the thread that has its turn, whichever that is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from app.audio.samples import Samples
from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions, Transcriber


class WorkerThread:
    """A thread of the worker, called `name`, which runs `serve`. Any thread may read it."""

    def __init__(self, name: str, serve: Callable[[], None]) -> None:
        self.turn: tuple[int, float] | None = None
        """The number of the turn that the thread is in, and its start (`time.monotonic()`); None
        between two turns."""
        self._cpu_clock: int | None = None
        self._thread = threading.Thread(target=serve, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def join(self, until: float) -> bool:
        """Wait for the thread to end, at most until `until`; whether it did."""
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def take_clock(self) -> None:
        """Find the clock of the calling thread, which must be this one."""
        # For a thread that has ended the C library may crash.
        self._cpu_clock = time.pthread_getcpuclockid(threading.get_ident())

    def cpu_seconds(self) -> float:
        """Processor time the thread has used; 0 before it runs and after it ended."""
        try:
            return 0.0 if self._cpu_clock is None else time.clock_gettime(self._cpu_clock)
        except OSError:
            return 0.0


class Seat(WorkerThread):
    """One engine and its thread, which runs `serve` with the seat."""

    def __init__(self, number: int, engine: Transcriber, serve: Callable[[Seat], None]) -> None:
        name = "worker" if number == 1 else f"worker-{number}"
        super().__init__(name, lambda: serve(self))
        self.number = number
        self.engine = engine
        self.job: int | None = None
        """The job whose turn it is; None without one, and while the thread hears."""
        self.mark = ""
        """The journal's name for that job."""
        self.threads = 0
        """The threads of the decode in progress; 0 without one, and for the engine's own number."""
        self.has_worked = True
        """Whether the engine has worked since its last rest."""
        self.is_warm = False
        self.gives_way = False
        """Whether the decode in progress was asked to end for more urgent work."""


class OwnEngine:
    """A `Transcriber` whose calls go to the engine of the calling thread."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def sit(self, seat: Seat) -> None:
        """State that the calling thread is that of `seat`."""
        self._of_thread.seat = seat

    def warm_up(self) -> None:
        self._seat.engine.warm_up()

    def transcribe(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        """Decode a window with the threads of this turn."""
        seat = self._seat
        if seat.threads:
            options = replace(options, threads=seat.threads)
        return seat.engine.transcribe(samples, options)

    def rest(self) -> None:
        self._seat.engine.rest()

    @property
    def _seat(self) -> Seat:
        seat: Seat = self._of_thread.seat
        return seat
