"""The pool of detectors: what it lends, what it keeps, and the memory of those that it drops."""

from __future__ import annotations

import psutil
from fakes import FakeDetector

from app.audio.vad import SileroDetector
from app.worker.detectors import Detectors


def test_pool_lends_a_returned_detector_again_and_keeps_a_bounded_number() -> None:
    made: list[FakeDetector] = []

    def new() -> FakeDetector:
        made.append(FakeDetector())
        return made[-1]

    pool = Detectors(new, 2)
    pool.prepare()
    lent = [pool.lend() for _ in range(5)]
    assert lent == made
    for detector in lent:
        pool.give_back(detector)
    assert {id(pool.lend()) for _ in range(2)} == {id(detector) for detector in lent[:2]}
    pool.lend()
    assert len(made) == 6


def test_memory_of_many_detectors_is_given_back() -> None:
    process = psutil.Process()
    pool = Detectors(SileroDetector, 4)
    lent = [pool.lend() for _ in range(4)]
    before = process.memory_info().rss
    lent += [pool.lend() for _ in range(100)]
    assert process.memory_info().rss > before + 100 * 2**20
    while lent:
        pool.give_back(lent.pop())
    assert process.memory_info().rss < before + 60 * 2**20
