"""The worker's thread: every job ends with one outcome, and the next job is unaffected."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import RATE, FakeDetector, FakeEngine, Samples, body_of, eventually, hypothesis_of, pcm
from structlog.testing import capture_logs
from test_job import three_phrases

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions, EngineError
from app.messages import Failure, Outcome, RawFormat, Request, Transcript
from app.worker.completions import Completion, Finished, Progress
from app.worker.job import Job, JobSettings
from app.worker.worker import Worker

RAW = RawFormat("s16", RATE, 1, "little")


class Bench:
    """A worker that records its completions."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.detectors: list[FakeDetector] = []
        self.woken = 0
        self.wakers: set[str] = set()
        self.completions: list[Completion] = []
        limits = JobSettings(3600.0, 0.5, "en", "", "fake")
        self.marks: list[str] = []
        self.worker = Worker(self.engine, self._new_detector, limits, self._wake, self.marks.append)
        self._numbers = 0

    def _new_detector(self) -> FakeDetector:
        self.detectors.append(FakeDetector())
        return self.detectors[-1]

    def _wake(self) -> None:
        self.woken += 1
        self.wakers.add(threading.current_thread().name)

    def submit(
        self,
        data: bytes,
        connection: int | None = None,
        raw: RawFormat | None = RAW,
        mark: str = "",
        client: str = "",
        **more: Any,
    ) -> int:
        self._numbers += 1
        number = self._numbers
        request = Request(f"r{number}", len(data), raw, **more)
        place = number if connection is None else connection
        job = Job(number, place, request, body_of(data), time.monotonic(), client, mark)
        self.worker.submit(job)
        return number

    def take(self) -> list[Completion]:
        self.completions += self.worker.take_completions()
        return self.completions

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


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = len(os.listdir("/proc/self/fd"))
    bench = Bench()
    bench.worker.start()
    yield bench
    bench.engine.abort()
    bench.worker.stop()
    assert bench.worker.join(30)
    assert not bench.worker.alive
    # The worker has closed every body.
    assert len(os.listdir("/proc/self/fd")) == before


def test_job_gives_a_transcript_and_wakes_the_loop(bench: Bench) -> None:
    outcome = bench.outcome(bench.submit(pcm(2 * RATE)))
    assert isinstance(outcome, Transcript)
    assert outcome.audio_seconds == 2.0
    assert bench.woken >= 1
    assert bench.wakers == {"worker"}


def test_completion_is_returned_once(bench: Bench) -> None:
    bench.outcome(bench.submit(pcm(RATE)))
    assert bench.worker.take_completions() == []


def test_detection_decodes_only_the_first_window_with_words(bench: Bench) -> None:
    outcome = bench.outcome(bench.submit(three_phrases(), detect_only=True))
    assert isinstance(outcome, Transcript)
    assert len(outcome.segments) == len(bench.engine.calls) == 1


def test_segments_are_reported_if_requested(bench: Bench) -> None:
    quiet = bench.submit(three_phrases())
    bench.outcome(quiet)
    loud = bench.submit(three_phrases(), reply="segments")
    outcome = bench.outcome(loud)
    assert isinstance(outcome, Transcript)
    progress = [entry for entry in bench.completions if isinstance(entry, Progress)]
    assert {entry.job for entry in progress} == {loud}
    assert tuple(entry.reply for entry in progress) == outcome.segments
    assert bench.completions[-1] == Finished(loud, outcome)


def test_short_jobs_go_first_and_connections_keep_their_order(bench: Bench) -> None:
    bench.engine.hold()
    first = bench.submit(pcm(RATE))
    bench.engine.wait_for_calls(1)
    jobs = [
        bench.submit(three_phrases(), connection=70),
        bench.submit(pcm(RATE), connection=70),
        bench.submit(pcm(2 * RATE), connection=71),
    ]
    bench.engine.release()
    for job in jobs:
        bench.outcome(job)
    order = [entry.job for entry in bench.completions if isinstance(entry, Finished)]
    assert order == [first, jobs[2], jobs[0], jobs[1]]


@pytest.mark.parametrize(
    ("data", "raw", "code"),
    [
        (b"", None, "bad_audio"),
        (b"<html>", None, "unsupported_media_type"),
        (b"fLaC" + bytes(100), None, "bad_audio"),
        (bytes(2 * RATE * 3601), RawFormat("s16", RATE, 1, "little"), "audio_too_long"),
    ],
)
def test_invalid_audio_gives_its_failure(
    bench: Bench, data: bytes, raw: RawFormat | None, code: str
) -> None:
    assert bench.code(bench.submit(data, raw=raw)) == code
    assert bench.code(bench.submit(pcm(RATE))) == "ok"
    assert bench.engine.calls[0][0].any()
    assert len(bench.engine.calls) == 1


def test_engine_error_fails_only_its_job(bench: Bench) -> None:
    def fail(samples: Samples, options: DecodeOptions) -> Hypothesis:
        raise EngineError("whisper.cpp failed with code -6")

    good, bench.engine.answer = bench.engine.answer, fail
    failed = bench.outcome(bench.submit(pcm(RATE)))
    assert failed == Failure("internal", "whisper.cpp failed with code -6")
    bench.engine.answer = good
    assert bench.code(bench.submit(pcm(RATE))) == "ok"


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), MemoryError(), RecursionError()])
def test_unexpected_exception_fails_only_its_job(bench: Bench, error: Exception) -> None:
    def fail(samples: Samples, options: DecodeOptions) -> Hypothesis:
        raise error

    good, bench.engine.answer = bench.engine.answer, fail
    with capture_logs() as entries:
        outcome = bench.outcome(bench.submit(pcm(RATE)))
    assert isinstance(outcome, Failure)
    assert outcome.code == "internal"
    # Internal details go to the log and not to the client.
    assert type(error).__name__ not in outcome.message
    assert [entry["id"] for entry in entries if entry["event"] == "job failed"] == ["r1"]
    bench.engine.answer = good
    assert bench.worker.alive
    assert bench.code(bench.submit(pcm(RATE))) == "ok"


def test_failure_in_a_later_window_gives_no_partial_text(bench: Bench) -> None:
    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        if len(bench.engine.calls) == 2:
            raise EngineError("no")
        return hypothesis_of("x", len(samples) / RATE)

    bench.engine.answer = answer
    assert bench.code(bench.submit(three_phrases())) == "internal"
    assert len(bench.engine.calls) == 2


def test_detectors_are_reused_and_reset(bench: Bench) -> None:
    for _ in range(5):
        bench.outcome(bench.submit(pcm(RATE)))
    bench.outcome(bench.submit(b"", raw=None))
    bench.outcome(bench.submit(pcm(RATE)))
    assert len(bench.detectors) == 1
    assert bench.detectors[0].resets >= 6


def test_failed_detector_is_an_internal_error(bench: Bench) -> None:
    bench.engine.hold()
    first = bench.submit(pcm(RATE))
    bench.engine.wait_for_calls(1)

    def fail() -> FakeDetector:
        raise OSError("no model")

    bench.worker._detectors._new = fail
    # While a job is in progress, another one needs a second detector.
    bench.engine.release()
    assert bench.code(first) == "ok"
    bench.worker._detectors._spare.clear()
    assert bench.code(bench.submit(pcm(RATE))) == "internal"
    assert bench.worker.alive


def test_time_of_a_turn_is_charged_to_its_client_even_after_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    # The clock of the worker only; the tests wait with the real one.
    clock = SimpleNamespace(**vars(time) | {"monotonic": lambda: now})
    monkeypatch.setattr("app.worker.worker.time", clock)

    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        nonlocal now
        if len(samples) > 1.5 * RATE:
            now += 3.0
            return hypothesis_of("x", len(samples) / RATE)
        now += 1.0
        raise EngineError("no")

    bench.engine.answer = answer
    bench.engine.hold()
    costly = [bench.submit(pcm(2 * RATE), client="costly")]
    bench.engine.wait_for_calls(1)
    costly += [bench.submit(pcm(2 * RATE), client="costly") for _ in range(2)]
    cheap = [bench.submit(pcm(RATE), client="cheap") for _ in range(8)]
    bench.engine.release()
    assert [bench.code(job) for job in costly + cheap] == ["ok"] * 3 + ["internal"] * 8
    order = [entry.job for entry in bench.completions if isinstance(entry, Finished)]
    # Each client gets 3 s in turn. With equal time, the shorter job goes first.
    assert order == [costly[0], *cheap[:4], costly[1], *cheap[4:7], costly[2], cheap[7]]
    eventually(lambda: not bench.worker._scheduler._left, "accounts to be settled when it rests")


# Cancelling.


def test_waiting_job_is_cancelled(bench: Bench) -> None:
    bench.engine.hold()
    first = bench.submit(pcm(RATE))
    bench.engine.wait_for_calls(1)
    second = bench.submit(pcm(RATE))
    bench.worker.cancel(second)
    bench.engine.release()
    assert bench.code(first) == "ok"
    assert bench.code(second) == "cancelled"
    assert len(bench.engine.calls) == 1


def test_running_job_is_cancelled_between_two_windows(bench: Bench) -> None:
    bench.engine.hold()
    job = bench.submit(three_phrases())
    bench.engine.wait_for_calls(1)
    bench.worker.cancel(job)
    bench.engine.release()
    assert bench.code(job) == "cancelled"
    assert len(bench.engine.calls) == 1


def test_cancel_ignores_finished_and_unknown_jobs(bench: Bench) -> None:
    job = bench.submit(pcm(RATE))
    assert bench.code(job) == "ok"
    bench.worker.cancel(job)
    bench.worker.cancel(99_999)
    assert bench.code(bench.submit(pcm(RATE))) == "ok"
    assert bench.code(job) == "ok"


# Stopping.


def test_stop_fails_unfinished_jobs(bench: Bench) -> None:
    bench.engine.hold()
    begun = bench.submit(three_phrases())
    bench.engine.wait_for_calls(1)
    # Submitted only now: otherwise the short job would go first and succeed.
    waiting = bench.submit(pcm(RATE))
    bench.worker.stop()
    bench.engine.release()
    assert [bench.code(job) for job in (begun, waiting)] == ["shutting_down"] * 2
    assert len(bench.engine.calls) == 1


def test_aborted_engine_gives_shutting_down(bench: Bench) -> None:
    bench.engine.hold()
    job = bench.submit(pcm(RATE))
    bench.engine.wait_for_calls(1)
    bench.engine.abort()
    assert bench.code(job) == "shutting_down"


def test_idle_worker_stops() -> None:
    bench = Bench()
    bench.worker.start()
    bench.worker.stop()
    assert bench.worker.join(30)


def test_worker_accepts_jobs_from_many_threads(bench: Bench) -> None:
    numbers: list[int] = []
    lock = threading.Lock()

    def submit() -> None:
        for _ in range(50):
            with lock:
                numbers.append(bench.submit(pcm(3000)))

    threads = [threading.Thread(target=submit, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in numbers:
        assert bench.code(number) == "ok"
    assert len(set(numbers)) == 400


def test_crash_mark_is_set_before_each_turn_and_cleared_after(
    bench: Bench,
) -> None:
    bench.engine.hold()
    first = bench.submit(pcm(RATE), mark="first")
    bench.engine.wait_for_calls(1)
    # The mark is set while the job is in the engine, and also for a body that cannot be opened.
    assert [mark for mark in bench.marks if mark] == ["first"]
    second = bench.submit(b"no audio", raw=None, mark="second")
    bench.engine.release()
    bench.outcome(first)
    bench.outcome(second)
    eventually(lambda: bench.marks[-1] == "")
    assert [mark for mark in bench.marks if mark] == ["first", "second"]


# Warming up.


def test_engine_is_warmed_up_on_the_worker_thread(bench: Bench) -> None:
    assert bench.worker.wait_until_warm()
    assert bench.engine.warmed_on == ["worker"]


def test_engine_rests_only_without_jobs(
    bench: Bench,
) -> None:
    eventually(lambda: bench.engine.rests == 1, "the rest before the first job")
    bench.engine.hold()
    first = bench.submit(pcm(RATE))
    eventually(lambda: bench.engine.calls, "the first job's window")
    second = bench.submit(pcm(RATE))
    bench.engine.release()
    assert [bench.code(first), bench.code(second)] == ["ok", "ok"]
    eventually(lambda: bench.engine.rests > 1, "the rest after the last job")
    assert bench.engine.rests == 2


def test_failed_warm_up_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()

    def fail() -> None:
        raise EngineError("no")

    monkeypatch.setattr(bench.engine, "warm_up", fail)
    bench.worker.start()
    assert not bench.worker.wait_until_warm()
    assert bench.worker.failed
    assert bench.worker.join(30)
