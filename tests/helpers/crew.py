"""A worker with several fake engines, and what it completed."""

from __future__ import annotations

import time
from typing import Any

from fakes import HANG, RATE, FakeEngine, Samples, eventually
from live import LiveBench

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions, EngineAborted, GivenUp


class GivingEngine(FakeEngine):
    """An engine that a held window is given up on."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up = False
        self.asked = 0
        """Number of calls of `give_up`."""

    def give_up(self) -> None:
        self.asked += 1
        self.given_up = True

    def resume(self) -> None:
        self.given_up = False

    def transcribe(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        self.calls.append((samples, options))
        end = time.monotonic() + HANG
        while not (self._gate.is_set() or self._turns.acquire(timeout=0.002)):
            if self.given_up:
                raise GivenUp
            assert time.monotonic() < end, "the test did not release the engine"
        if self.aborted:
            raise EngineAborted
        return self.answer(samples, options)


class Crew(LiveBench):
    """A worker with `count` engines that share `threads` processors."""

    def __init__(
        self, count: int = 2, threads: int = 2, gives_way: bool = False, **settings: Any
    ) -> None:
        engine, more = GivingEngine(), [FakeEngine() for _ in range(count - 1)]
        self.engines = [engine, *more]
        worker = {
            "more_engines": more,
            "threads": threads,
            "yielding": engine if gives_way else None,
        }
        super().__init__(engine, worker=worker, **settings)

    def close(self) -> None:
        for engine in self.engines:
            engine.abort()
        super().close()

    def hold(self) -> None:
        for engine in self.engines:
            engine.hold()

    def release(self) -> None:
        for engine in self.engines:
            engine.release()

    @property
    def calls(self) -> int:
        """Number of decodes that began."""
        return sum(len(engine.calls) for engine in self.engines)

    def wait_for_calls(self, count: int) -> None:
        eventually(lambda: self.calls >= count, f"call {count} of the engines")

    def engine_with(self, samples: int) -> FakeEngine:
        """Return the engine whose last decode has about so many samples."""

        def found() -> list[FakeEngine]:
            return [
                engine
                for engine in self.engines
                if engine.calls and abs(len(engine.calls[-1][0]) - samples) < RATE / 4
            ]

        eventually(found, f"a decode of {samples} samples")
        return found()[0]

    def idle(self) -> None:
        """Wait until no thread has a turn and nothing waits that could have one."""
        worker = self.worker
        worker.cancel(0)
        eventually(
            lambda: worker._mailbox.is_empty and not worker._has_work, "the worker to be settled"
        )
