"""Several engines under one scheduler: jobs decode at once, and each still sees one thing at a
time."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from crew import Crew, GivingEngine
from fakes import RATE, FakeEngine, Samples, body_of, eventually, hypothesis_of, pcm
from live import RAW, audio
from structlog.testing import capture_logs

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions, EngineError
from app.live import LiveOptions
from app.messages import Request, Transcript, Utterance
from app.worker.completions import Finished
from app.worker.health import Health
from app.worker.job import Job


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.close()


def submit(
    crew: Crew,
    samples: int,
    client: str = "",
    connection: int | None = None,
    mark: str = "",
    suspect: bool = False,
    data: bytes | None = None,
    **more: Any,
) -> int:
    """Submit a file of so many samples; return its number."""
    crew._numbers += 1
    number = crew._numbers
    data = pcm(samples) if data is None else data
    request = Request(f"r{number}", len(data), RAW, **more)
    place = number if connection is None else connection
    now = time.monotonic()
    job = Job(number, place, request, body_of(data), now, client, mark, suspect)
    crew.worker.submit(job)
    return number


# Files at once.


def test_two_files_are_decoded_at_once(crew: Crew) -> None:
    crew.hold()
    jobs = [submit(crew, 2 * RATE), submit(crew, 3 * RATE)]
    crew.wait_for_calls(2)
    assert [len(engine.calls) for engine in crew.engines] == [1, 1]
    crew.release()
    assert [crew.code(job) for job in jobs] == ["ok", "ok"]


def test_requests_of_a_connection_are_decoded_one_after_the_other(crew: Crew) -> None:
    crew.hold()
    first = submit(crew, 2 * RATE, connection=7)
    crew.wait_for_calls(1)
    second = submit(crew, 3 * RATE, connection=7)
    third = submit(crew, 4 * RATE, connection=8)
    # The third goes first, although it came later.
    crew.engine_with(4 * RATE)
    crew.engine_with(2 * RATE)
    assert crew.calls == 2
    crew.release()
    assert [crew.code(job) for job in (first, second, third)] == ["ok"] * 3


def test_windows_of_one_file_are_decoded_in_order(crew: Crew) -> None:
    data = audio(0.5, 20, 0.5, 25, 0.5, 22, 0.5)
    job = submit(crew, 0, data=data, reply="segments")
    other = submit(crew, 0, data=data)
    outcome = crew.outcome(job)
    assert isinstance(outcome, Transcript)
    assert len(outcome.segments) >= 3
    starts = [segment.start for segment in outcome.segments]
    assert starts == sorted(starts)
    assert crew.replies(job) == list(outcome.segments)
    assert crew.outcome(other).segments == outcome.segments  # type: ignore[union-attr]


def test_engines_share_the_threads(crew: Crew) -> None:
    wide = Crew(threads=4)
    try:
        wide.hold()
        data = audio(0.5, 20, 0.5, 25, 0.5)
        submit(wide, 0, data=data)
        wide.wait_for_calls(1)
        submit(wide, 0, data=data)
        wide.wait_for_calls(2)
        first = wide.engines[wide.engines[0].calls == []]
        second = wide.engines[first is wide.engines[0]]
        # The first is alone and keeps its threads; from then on each has its share.
        assert first.calls[0][1].threads == 4
        assert second.calls[0][1].threads == 1
        first.step()
        first.wait_for_calls(2)
        second.step()
        second.wait_for_calls(2)
        assert [engine.calls[1][1].threads for engine in (first, second)] == [2, 2]
    finally:
        wide.close()


def test_one_engine_gets_the_options_as_ever() -> None:
    """With one engine nothing is different: one thread, and no number of threads."""
    crew = Crew(count=1)
    try:
        assert crew.code(submit(crew, 2 * RATE)) == "ok"
        assert crew.engine.calls[0][1].threads == 0
        assert [seat.number for seat in crew.worker.seats] == [1]
        assert crew.engine.warmed_on == ["worker"]
    finally:
        crew.close()


def test_each_engine_is_warmed_up_and_used_on_its_own_thread(crew: Crew) -> None:
    used: list[set[str]] = [set(), set()]
    for engine, names in zip(crew.engines, used, strict=True):

        def answer(samples: Samples, options: DecodeOptions, names: set[str] = names) -> Hypothesis:
            names.add(threading.current_thread().name)
            return hypothesis_of("x", len(samples) / RATE)

        engine.answer = answer
    assert crew.worker.wait_until_warm()
    assert [engine.warmed_on for engine in crew.engines] == [["worker"], ["worker-2"]]
    crew.hold()
    jobs = [submit(crew, 2 * RATE) for _ in range(6)]
    crew.wait_for_calls(2)
    crew.release()
    for job in jobs:
        assert crew.code(job) == "ok"
    assert used == [{"worker"}, {"worker-2"}]


def test_failed_warm_up_of_one_engine_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: FakeEngine) -> None:
        if threading.current_thread().name == "worker-2":
            raise EngineError("no")

    monkeypatch.setattr(FakeEngine, "warm_up", fail)
    crew = Crew()
    assert not crew.worker.wait_until_warm()
    assert crew.worker.failed
    assert crew.worker.join(30)


# One engine is kept free.


def test_one_engine_stays_free_of_files_while_a_stream_is_open(crew: Crew) -> None:
    stream = crew.stream()
    crew.hold()
    jobs = [submit(crew, 4 * RATE), submit(crew, 4 * RATE)]
    crew.wait_for_calls(1)
    crew.idle()
    assert crew.calls == 1
    # It hears and decodes what is spoken meanwhile.
    busy = next(engine for engine in crew.engines if engine.calls)
    free = crew.engines[busy is crew.engines[0]]
    crew.feed(stream, audio(0.5, 1.0, 1.0))
    free.wait_for_calls(1)
    free.release()
    eventually(lambda: crew.replies(stream), "the text of the utterance")
    assert len(busy.calls) == 1
    assert not [entry for entry in crew.take() if isinstance(entry, Finished)]
    # The end of the stream gives the engine to the files.
    free.hold()
    crew.worker.end(stream)
    assert crew.code(stream) == "ok"
    assert crew.engine_with(4 * RATE)
    eventually(lambda: len(free.calls[-1][0]) > 3 * RATE, "the second file")
    crew.release()
    assert [crew.code(job) for job in jobs] == ["ok", "ok"]


def test_command_is_answered_beside_a_window_of_a_file(crew: Crew) -> None:
    crew.hold()
    file = submit(crew, 20 * RATE)
    busy = crew.engine_with(20 * RATE)
    free = crew.engines[busy is crew.engines[0]]
    free.release()
    command = crew.listen()
    data = audio(0.5, 1.5, 0.4)
    crew.feed(command, data)
    crew.submit(command, data)
    assert crew.code(command) == "ok"
    assert len(busy.calls) == 1
    busy.release()
    assert crew.code(file) == "ok"


def test_speech_is_heard_while_all_engines_are_busy_with_live_audio(crew: Crew) -> None:
    streams = [crew.stream(), crew.stream()]
    crew.hold()
    for stream in streams:
        crew.feed(stream, audio(0.5, 1.0, 1.0))
    crew.wait_for_calls(2)
    # More speech of the same streams waits until the decode is over, and is not lost.
    for stream in streams:
        crew.feed(stream, audio(0.0, 2.0, 1.0))
        crew.worker.end(stream)
    crew.release()
    for stream in streams:
        assert crew.code(stream) == "ok"
        texts = [reply for reply in crew.replies(stream) if isinstance(reply, Utterance)]
        assert len(texts) == 2


def test_partial_is_decoded_beside_a_file(crew: Crew) -> None:
    stream = crew.stream(partials=True)
    crew.hold()
    file = submit(crew, 20 * RATE)
    busy = crew.engine_with(20 * RATE)
    free = crew.engines[busy is crew.engines[0]]
    crew.feed(stream, audio(0.5, 2.0))
    free.wait_for_calls(1)
    assert free.calls[0][1].partial
    # The utterance ends during the partial: its final is the next decode of that engine.
    crew.feed(stream, audio(1.0))
    crew.worker.end(stream)
    free.release()
    assert crew.code(stream) == "ok"
    busy.release()
    assert crew.code(file) == "ok"


# The end of jobs, engines and the worker.


def test_cancelled_job_ends_after_its_window_and_others_go_on(crew: Crew) -> None:
    crew.hold()
    data = audio(0.5, 20, 0.5, 25, 0.5)
    jobs = [submit(crew, 0, data=data) for _ in range(2)]
    crew.wait_for_calls(2)
    crew.worker.cancel(jobs[0])
    crew.release()
    assert crew.code(jobs[0]) == "cancelled"
    assert crew.code(jobs[1]) == "ok"
    assert crew.calls == 3


def test_stop_ends_all_jobs_after_the_decodes_in_progress(crew: Crew) -> None:
    crew.hold()
    data = audio(0.5, 20, 0.5, 25, 0.5)
    jobs = [submit(crew, 0, data=data) for _ in range(4)]
    crew.wait_for_calls(2)
    stream = crew.stream()
    crew.worker.stop()
    crew.engines[0].release()
    # The other thread is still in its window.
    eventually(lambda: not crew.worker.seats[0].alive, "the end of the first thread")
    assert crew.worker.seats[1].alive
    crew.release()
    assert [crew.code(job) for job in (*jobs, stream)] == ["shutting_down"] * 5
    assert crew.calls == 2


def test_abort_ends_all_decodes(crew: Crew) -> None:
    crew.hold()
    jobs = [submit(crew, 20 * RATE) for _ in range(2)]
    crew.wait_for_calls(2)
    for engine in crew.engines:
        engine.abort()
    assert [crew.code(job) for job in jobs] == ["shutting_down"] * 2


def test_failed_decode_fails_only_its_job(crew: Crew) -> None:
    def fail(samples: Samples, options: DecodeOptions) -> Hypothesis:
        raise EngineError("no memory")

    crew.hold()
    bad, good = submit(crew, 2 * RATE), submit(crew, 3 * RATE)
    crew.engine_with(2 * RATE).answer = fail
    crew.wait_for_calls(2)
    crew.release()
    assert (crew.code(bad), crew.code(good)) == ("internal", "ok")


def test_fault_in_one_thread_ends_the_worker() -> None:
    crew = Crew()
    crew.hold()
    job = submit(crew, 2 * RATE)
    crew.wait_for_calls(1)

    def fail() -> None:
        raise RuntimeError("rest")

    busy = crew.engine_with(2 * RATE)
    busy.rest = fail  # type: ignore[method-assign]
    with capture_logs() as log:
        crew.release()
        assert crew.code(job) == "ok"
        eventually(lambda: crew.worker.failed, "the fault")
        assert crew.worker.join(30)
    assert [entry["event"] for entry in log] == ["the worker has failed"]
    assert not crew.worker.alive


def test_one_stuck_engine_of_two_is_a_fault(crew: Crew) -> None:
    hangs = threading.Event()
    stuck, well = crew.engines

    def hang(samples: Samples, options: DecodeOptions) -> Hypothesis:
        hangs.wait(60)
        return hypothesis_of("x", 1.0)

    def compute(samples: Samples, options: DecodeOptions) -> Hypothesis:
        while not hangs.is_set():
            sum(range(1000))
        return hypothesis_of("x", 1.0)

    stuck.answer, well.answer = hang, compute
    jobs = [submit(crew, 2 * RATE) for _ in range(2)]
    crew.wait_for_calls(2)
    first, second = (Health(seat) for seat in crew.worker.seats)
    both = Health(*crew.worker.seats)
    eventually(lambda: both.fault() == "the worker is stuck in a window")
    eventually(lambda: first.fault() is not None)
    assert second.fault() is None
    hangs.set()
    assert [crew.code(job) for job in jobs] == ["ok", "ok"]
    eventually(lambda: both.fault() is None)


def test_engines_rest_one_by_one(crew: Crew) -> None:
    eventually(lambda: [engine.rests for engine in crew.engines] == [1, 1], "the first rests")
    crew.hold()
    jobs = [submit(crew, 2 * RATE), submit(crew, 3 * RATE)]
    crew.wait_for_calls(2)
    early, late = crew.engine_with(2 * RATE), crew.engine_with(3 * RATE)
    early.release()
    assert crew.code(jobs[0]) == "ok"
    eventually(lambda: early.rests == 2, "the rest of the engine without work")
    assert late.rests == 1
    crew.release()
    assert crew.code(jobs[1]) == "ok"
    eventually(lambda: late.rests == 2, "the rest of the other")


# Crashes.


def test_mark_names_all_jobs_that_are_decoded(crew: Crew) -> None:
    crew.hold()
    jobs = [submit(crew, 2 * RATE, mark="a"), submit(crew, 3 * RATE, mark="b")]
    crew.wait_for_calls(2)
    assert set(crew.marks[-1].split("/")) == {"a", "b"}
    crew.engine_with(2 * RATE).release()
    assert crew.code(jobs[0]) == "ok"
    eventually(lambda: crew.marks[-1] == "b", "the mark of the other alone")
    crew.release()
    assert crew.code(jobs[1]) == "ok"
    eventually(lambda: crew.marks[-1] == "", "an empty mark")


def test_suspects_are_decoded_with_nothing_beside_them(crew: Crew) -> None:
    inside: list[bool] = []
    beside: list[int] = []
    lock = threading.Lock()

    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        is_suspect = len(samples) > 4 * RATE
        with lock:
            inside.append(is_suspect)
            if any(inside):
                beside.append(len(inside) - 1)
        time.sleep(0.005)
        with lock:
            inside.remove(is_suspect)
        return hypothesis_of("x", len(samples) / RATE)

    for engine in crew.engines:
        engine.answer = answer
    stream = crew.stream(partials=True)
    jobs = []
    for number in range(6):
        jobs.append(submit(crew, 2 * RATE, client="a", mark=f"a{number}"))
        jobs.append(submit(crew, 5 * RATE, client="b", mark=f"s{number}", suspect=True))
        crew.feed(stream, audio(0.3, 0.8, 0.7))
    crew.worker.end(stream)
    assert [crew.code(job) for job in (*jobs, stream)] == ["ok"] * 13
    assert beside == [0] * 6
    marks = [mark.split("/") for mark in crew.marks]
    assert all(len(names) == 1 for names in marks if any(name[:1] == "s" for name in names))


# Everything at once.


def checksum(samples: Samples, options: DecodeOptions) -> Hypothesis:
    """A text that shows the samples and all options but the threads, after a random moment."""
    time.sleep(random.random() * 0.003)
    text = f"{zlib.crc32(samples.tobytes()):08x}"
    return hypothesis_of(text, len(samples) / RATE)


def texts_of(crew: Crew, seed: int) -> dict[int, Any]:
    """Run a random mix of files, streams and commands; return the outcome of each. Of a command
    only whether it has words: the engine's speed decides whether it is decoded from its body."""
    rng = random.Random(seed)
    for engine in crew.engines:
        engine.answer = checksum
    files: list[int] = []
    spoken: dict[int, tuple[str, bytes, int]] = {}
    for _ in range(14):
        data = audio(*[round(rng.uniform(0.2, 3.0), 2) for _ in range(rng.randint(3, 9))], 0.3)
        client = rng.choice("abc")
        kind = rng.choice(["file", "file", "split", "stream", "command"])
        if kind in ("file", "split"):
            more = {"channel_mode": "split"} if kind == "split" else {}
            files.append(submit(crew, 0, client=client, data=data, **more))
        else:
            options = LiveOptions(partials=rng.random() < 0.3) if kind == "stream" else None
            spoken[crew.listen(options, client=client)] = kind, data, 0
    numbers = [*files, *spoken]
    commands = {number for number, (kind, _, _) in spoken.items() if kind == "command"}
    while spoken:
        number = rng.choice(list(spoken))
        kind, data, at = spoken.pop(number)
        size = rng.choice([640, 6400, 64_000])
        crew.feed(number, data[at : at + size])
        if at + size < len(data):
            spoken[number] = kind, data, at + size
        elif kind == "stream":
            crew.worker.end(number)
        else:
            crew.submit(number, data)
    results: dict[int, Any] = {}
    for number in numbers:
        outcome = crew.outcome(number)
        if isinstance(outcome, Transcript):
            told = outcome.text, outcome.segments
            results[number] = bool(outcome.text) if number in commands else told
        else:
            said = [reply for reply in crew.replies(number) if isinstance(reply, Utterance)]
            results[number] = [(one.start, one.end, one.segments) for one in said]
    return results


@pytest.mark.parametrize("seed", range(4))
def test_any_mix_gives_the_texts_of_one_engine(seed: int) -> None:
    found = []
    for count in (1, 2, 3):
        crew = Crew(count=count, threads=4)
        try:
            found.append(texts_of(crew, seed))
        finally:
            crew.close()
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize("seed", range(3))
def test_cancels_at_any_moment_leave_nothing_behind(seed: int) -> None:
    rng = random.Random(seed)
    crew = Crew(count=3, threads=3)
    for engine in crew.engines:
        engine.answer = checksum
    jobs = []
    try:
        for _ in range(40):
            data = audio(0.2, 1.0, 0.7, 1.0, 0.2)
            if rng.random() < 0.5:
                jobs.append(submit(crew, 0, client=rng.choice("ab"), data=data))
            else:
                jobs.append(crew.stream())
                crew.feed(jobs[-1], data)
                if rng.random() < 0.5:
                    crew.worker.end(jobs[-1])
            if rng.random() < 0.6:
                crew.worker.cancel(rng.choice(jobs))
        for job in jobs:
            crew.worker.cancel(job)
        assert {crew.code(job) for job in jobs} <= {"ok", "cancelled"}
        crew.idle()
        worker = crew.worker
        assert not (worker._files._jobs)
        assert not (worker._files._begun)
        assert not (worker._files._borrowed)
        assert not (worker._live._works)
        assert not (worker._late_mail)
        assert not (worker._scheduler._entries)
        assert not (worker._scheduler._running)
        assert all(seat.job is None for seat in worker.seats)
    finally:
        crew.close()


# One engine that gives way.


@pytest.fixture
def giving() -> Iterator[Crew]:
    crew = Crew(count=1, gives_way=True)
    yield crew
    crew.close()


def speech_beside_a_file(giving: Crew) -> tuple[int, int]:
    """Hold a file's window in the engine and let somebody speak meanwhile; return the numbers of
    the stream and of the file."""
    stream = giving.stream()
    giving.engine.hold()
    file = submit(giving, 20 * RATE)
    giving.engine.wait_for_calls(1)
    giving.feed(stream, audio(0.5, 1.0, 1.0))
    return stream, file


def test_file_gives_its_window_up_for_speech_once(giving: Crew) -> None:
    engine = giving.engine
    assert isinstance(engine, GivingEngine)
    stream, file = speech_beside_a_file(giving)
    # The speech is heard beside the window, which is given up; its utterance is next.
    engine.wait_for_calls(2)
    assert len(engine.calls[1][0]) < 3 * RATE
    engine.step()
    eventually(lambda: giving.replies(stream), "the text of the utterance")
    # The file's window is decoded again, and not given up again.
    engine.wait_for_calls(3)
    assert np.array_equal(engine.calls[2][0], engine.calls[0][0])
    giving.feed(stream, audio(0.0, 1.0, 1.0))
    eventually(lambda: giving.worker._scheduler.has_next(), "the second utterance to be due")
    assert engine.asked == giving.worker.given_up == 1
    engine.release()
    outcome = giving.outcome(file)
    assert isinstance(outcome, Transcript)
    assert outcome.text == str(len(engine.calls[0][0]))
    giving.worker.end(stream)
    assert giving.code(stream) == "ok"
    assert len([reply for reply in giving.replies(stream) if isinstance(reply, Utterance)]) == 2


def test_next_window_of_the_file_gives_way_again(giving: Crew) -> None:
    engine = giving.engine
    assert isinstance(engine, GivingEngine)
    stream = giving.stream()
    engine.hold()
    data = audio(0.5, 20, 0.5, 25, 0.5)
    file = submit(giving, 0, data=data)
    calls = 0
    for asked in (1, 2):
        engine.wait_for_calls(calls + 1)
        giving.feed(stream, audio(0.5, 1.0, 1.0))
        engine.wait_for_calls(calls + 2)
        assert engine.asked == asked
        engine.step()  # the utterance
        engine.wait_for_calls(calls + 3)
        engine.step()  # the window, again
        calls += 3
    engine.release()
    assert giving.code(file) == "ok"
    giving.worker.end(stream)
    assert giving.code(stream) == "ok"


def test_window_is_not_given_up_for_silence_or_another_file(giving: Crew) -> None:
    engine = giving.engine
    assert isinstance(engine, GivingEngine)
    stream = giving.stream()
    engine.hold()
    jobs = [submit(giving, 20 * RATE)]
    engine.wait_for_calls(1)
    jobs.append(submit(giving, 2 * RATE, client="other"))
    giving.feed(stream, audio(3.0))
    eventually(lambda: giving.consumed(stream), "the silence to be heard beside the window")
    assert engine.asked == 0
    engine.release()
    assert [giving.code(job) for job in jobs] == ["ok", "ok"]
    giving.worker.end(stream)
    assert giving.code(stream) == "ok"
    assert engine.asked == 0


def test_cancelled_job_whose_window_was_given_up_leaves_nothing(giving: Crew) -> None:
    engine = giving.engine
    stream = giving.stream()
    engine.hold()
    file = submit(giving, 20 * RATE)
    engine.wait_for_calls(1)
    giving.worker.cancel(file)
    giving.feed(stream, audio(0.5, 1.0, 1.0))
    engine.wait_for_calls(2)
    assert giving.code(file) == "cancelled"
    engine.release()
    giving.worker.end(stream)
    assert giving.code(stream) == "ok"
    assert not giving.worker._files._jobs


@pytest.mark.parametrize("seed", range(3))
def test_giving_way_changes_no_text(seed: int) -> None:
    found = []
    for gives_way in (False, True):
        crew = Crew(count=1, gives_way=gives_way)
        try:
            found.append(texts_of(crew, seed))
        finally:
            crew.close()
    assert found[1] == found[0]


def test_stop_and_abort_end_an_engine_that_gave_way(giving: Crew) -> None:
    engine = giving.engine
    stream, file = speech_beside_a_file(giving)
    engine.wait_for_calls(2)
    giving.worker.stop()
    engine.abort()
    assert giving.code(file) == "shutting_down"
    assert giving.code(stream) == "shutting_down"
    assert giving.worker.join(30)


def test_fault_of_the_hearing_thread_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Crew(count=1, gives_way=True)
    crew.hold()
    job = submit(crew, 2 * RATE)
    crew.wait_for_calls(1)

    def fail() -> None:
        raise RuntimeError("hearing")

    monkeypatch.setattr(crew.worker._turns, "give_way", fail)
    with capture_logs() as log:
        crew.worker.cancel(0)
        eventually(lambda: crew.worker.failed, "the fault")
        crew.release()
        assert crew.worker.join(30)
    assert "the worker has failed" in [entry["event"] for entry in log]
    assert job
