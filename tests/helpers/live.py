"""A worker that hears live audio, with the fake engine and the fake detector."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from fakes import RATE, FakeDetector, FakeEngine, body_of, eventually, tone

from app.live import LiveOptions
from app.messages import Failure, Outcome, RawFormat, Reply, Request
from app.worker.completions import Completion, Consumed, Finished, Progress
from app.worker.job import Job, JobSettings
from app.worker.live.job import LiveJob
from app.worker.worker import Worker

RAW = RawFormat("s16", RATE, 1, "little")


def audio(*seconds: float) -> bytes:
    """Alternating silence and loud tone of these lengths, beginning with silence."""
    parts = [
        tone(round(length * RATE)) if number % 2 else np.zeros(round(length * RATE), np.float32)
        for number, length in enumerate(seconds)
    ]
    return bytes((np.concatenate(parts) * 32767).astype("<i2").tobytes())


class LiveBench:
    """A worker, and what it completed. `worker` are further arguments of `Worker`, `settings` those
    of `JobSettings`."""

    def __init__(
        self,
        engine: FakeEngine | None = None,
        new_detector: Callable[[], FakeDetector] = FakeDetector,
        worker: Mapping[str, Any] = MappingProxyType({}),
        **settings: Any,
    ) -> None:
        self.engine = engine or FakeEngine()
        self.detectors: list[FakeDetector] = []
        self.completions: list[Completion] = []
        self.marks: list[str] = []
        self._make = new_detector
        fields: dict[str, Any] = {"max_seconds": 3600.0, "vad_threshold": 0.5, "language": "en"}
        fields |= {"prompt": "", "model": "fake", **settings}
        self.worker = Worker(
            self.engine,
            self._new_detector,
            JobSettings(**fields),
            lambda: None,
            self.marks.append,
            **worker,
        )
        self._numbers = 0
        self._lock = threading.Lock()
        self.worker.start()

    def _new_detector(self) -> FakeDetector:
        self.detectors.append(self._make())
        return self.detectors[-1]

    def close(self) -> None:
        self.engine.abort()
        self.worker.stop()
        assert self.worker.join(30)
        assert not self.worker.failed

    def listen(
        self,
        options: LiveOptions | None = None,
        client: str = "",
        raw: RawFormat = RAW,
        connection: int | None = None,
        **more: Any,
    ) -> int:
        """Begin a live job: a stream with `options`, a command without."""
        self._numbers += 1
        number = self._numbers
        fields: dict[str, Any] = {} if options is None else {"reply": "segments"}
        request = Request(f"r{number}", None, raw, live=options, **{**fields, **more})
        place = number if connection is None else connection
        self.worker.listen(LiveJob(number, place, request, client))
        return number

    def stream(self, **options: Any) -> int:
        return self.listen(LiveOptions(**options))

    def feed(self, number: int, data: bytes, sizes: Iterable[int] | None = None) -> None:
        """Send audio, in pieces of `sizes` if they are given, the rest at once."""
        for size in sizes or ():
            self.worker.feed(number, data[:size])
            data = data[size:]
            if not data:
                return
        self.worker.feed(number, data)

    def submit(self, number: int, data: bytes, client: str = "", **more: Any) -> None:
        """Send the complete request of a command."""
        fields = {"id": f"r{number}", "content_length": len(data), "raw": RAW, **more}
        request = Request(**fields)
        job = Job(number, number, request, body_of(data), time.monotonic(), client, f"e{number}")
        self.worker.submit(job)

    def take(self) -> list[Completion]:
        with self._lock:
            self.completions += self.worker.take_completions()
            return list(self.completions)

    def replies(self, number: int) -> list[Reply]:
        return [
            entry.reply
            for entry in self.take()
            if isinstance(entry, Progress) and entry.job == number
        ]

    def consumed(self, number: int) -> int:
        return sum(
            entry.size
            for entry in self.take()
            if isinstance(entry, Consumed) and entry.job == number
        )

    def outcome(self, number: int) -> Outcome:
        def found() -> list[Outcome]:
            return [
                entry.outcome
                for entry in self.take()
                if isinstance(entry, Finished) and entry.job == number
            ]

        eventually(found, f"the outcome of job {number}")
        assert len(found()) == 1
        return found()[0]

    def code(self, number: int) -> str:
        """The outcome in one word: the code of a failure, or `ok`."""
        outcome = self.outcome(number)
        return outcome.code if isinstance(outcome, Failure) else "ok"

    def settled(self) -> None:
        """Wait until the worker has heard and decoded all that it can."""
        worker = self.worker
        # A little audio alone does not wake it.
        worker.cancel(0)

        def idle() -> bool:
            return (
                worker._mailbox.is_empty
                and not worker._live.is_hungry
                and not worker._scheduler
                and all(thread.turn is None for thread in worker.threads)
            )

        eventually(lambda: idle() and idle(), "the worker to be idle")

    def settled_but_decoding(self) -> None:
        """Wait until the worker is in the engine, which is held, and let it hear all it can before
        the next decode."""
        self.engine.wait_for_calls(1)
        self.engine.step()
        self.engine.wait_for_calls(2)
