"""Live audio that vanishes, is drained or stopped in each state; places, bounds, and leftovers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
from fakes import RATE, FakeEngine, Samples, eventually, hypothesis_of
from live import LiveBench, audio

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions, EngineError
from app.live import LiveOptions, SpeechBegan
from app.messages import Failure, Streamed, Transcript, Utterance
from app.worker.live.places import Places


@pytest.fixture
def bench() -> Iterator[LiveBench]:
    bench = LiveBench(max_live=4)
    yield bench
    bench.close()


def left_behind(bench: LiveBench) -> list[str]:
    """The parts of the worker that still know a job."""
    desk, worker = bench.worker._live, bench.worker
    parts = {
        "works": desk._works,
        "hungry": desk._line._hungry,
        "blocked": desk._line._blocked,
        "offered": desk._offers._offered,
        "lent": desk._make._lent,
        "holders": desk._places._holders,
        "line": desk._places._line,
        "held": desk._places._held,
        "jobs": worker._files._jobs,
        "begun": worker._files._begun,
        "borrowed": worker._files._borrowed,
        "scheduler": worker._scheduler._entries,
        "clients": worker._scheduler._clients,
    }
    return [name for name, part in parts.items() if part]


# The states of a stream. Each function brings one about; the engine is held where it decodes.


def silent(bench: LiveBench) -> int:
    number = bench.stream()
    bench.feed(number, audio(1.0))
    bench.settled()
    return number


def speaking(bench: LiveBench) -> int:
    number = bench.stream()
    bench.feed(number, audio(0.5, 1.0))
    bench.settled()
    assert bench.worker.utterances == 1
    return number


def pausing(bench: LiveBench) -> int:
    number = bench.stream()
    bench.feed(number, audio(0.5, 1.0, 0.4))
    bench.settled()
    assert len(bench.engine.calls) == 1
    return number


def speculating(bench: LiveBench) -> int:
    number = bench.stream()
    bench.engine.hold()
    bench.feed(number, audio(0.5, 1.0, 0.4))
    bench.engine.wait_for_calls(1)
    return number


def deciding(bench: LiveBench) -> int:
    """One utterance is decoded, the next waits, and the one after is open."""
    number = bench.stream()
    bench.engine.hold()
    bench.feed(number, audio(0.5, 1.0, 0.9, 1.0, 0.9, 1.0))
    bench.engine.wait_for_calls(1)
    return number


def ending(bench: LiveBench) -> int:
    number = deciding(bench)
    bench.worker.end(number)
    return number


def without_place(bench: LiveBench) -> int:
    for _ in range(4):
        other = bench.listen(LiveOptions(), client=f"other-{_}")
        bench.feed(other, audio(0.5, 1.0))
    bench.settled()
    number = bench.stream(reports_speech=True)
    bench.feed(number, audio(0.5, 1.0, 0.9, 1.0))
    bench.settled()
    assert bench.replies(number) == []
    return number


STATES = [silent, speaking, pausing, speculating, deciding, ending, without_place]


@pytest.mark.parametrize("state", STATES)
def test_client_that_vanishes_leaves_nothing(
    bench: LiveBench, state: Callable[[LiveBench], int]
) -> None:
    number = state(bench)
    bench.worker.cancel(number)
    bench.worker.feed(number, audio(0.0, 1.0))
    bench.engine.release()
    assert bench.code(number) == "cancelled"
    calls = len(bench.engine.calls)
    for other in list(bench.worker._live._works):
        bench.worker.cancel(other)
    bench.settled()
    assert left_behind(bench) == []
    # The decode in progress ends, and no other begins.
    assert len(bench.engine.calls) == calls
    eventually(lambda: bench.worker.live_counts.jobs == 0)


@pytest.mark.parametrize("state", STATES)
def test_drain_finishes_what_was_said(bench: LiveBench, state: Callable[[LiveBench], int]) -> None:
    number = state(bench)
    bench.worker.interrupt(number)
    for other in list(bench.worker._live._works):
        if other != number:
            bench.worker.interrupt(other)
    bench.engine.release()
    outcome = bench.outcome(number)
    assert isinstance(outcome, Streamed)
    assert outcome.truncated
    spoken = {silent: 0, deciding: 3, ending: 3, without_place: 2}.get(state, 1)
    assert outcome.utterances == spoken
    assert len([r for r in bench.replies(number) if isinstance(r, Utterance)]) == spoken
    bench.settled()
    assert left_behind(bench) == []


@pytest.mark.parametrize("state", STATES)
def test_stop_ends_streams_without_a_further_decode(
    bench: LiveBench, state: Callable[[LiveBench], int]
) -> None:
    number = state(bench)
    calls = len(bench.engine.calls)
    bench.worker.stop()
    bench.engine.release()
    assert bench.code(number) == "shutting_down"
    assert bench.worker.join(30)
    assert len(bench.engine.calls) == calls
    assert left_behind(bench) == []


@pytest.mark.parametrize("state", [speculating, deciding, ending])
def test_aborted_decode_fails_the_stream(
    bench: LiveBench, state: Callable[[LiveBench], int]
) -> None:
    number = state(bench)
    bench.engine.abort()
    assert bench.code(number) == "shutting_down"
    bench.settled()
    assert left_behind(bench) == []


# The states of a command.


def heard(bench: LiveBench, data: bytes) -> int:
    number = bench.listen()
    bench.feed(number, data)
    return number


@pytest.mark.parametrize("seconds", [(1.0,), (0.5, 1.0), (0.5, 1.0, 0.5)])
def test_command_that_vanishes_before_its_end_leaves_nothing(
    bench: LiveBench, seconds: tuple[float, ...]
) -> None:
    number = heard(bench, audio(*seconds))
    bench.settled()
    bench.worker.cancel(number)
    bench.settled()
    assert left_behind(bench) == []
    assert bench.take() == []


def test_command_that_vanishes_during_its_speculation_leaves_nothing(bench: LiveBench) -> None:
    bench.engine.hold()
    number = heard(bench, audio(0.5, 1.0, 0.5))
    bench.engine.wait_for_calls(1)
    bench.worker.cancel(number)
    bench.engine.release()
    bench.settled()
    assert left_behind(bench) == []
    assert bench.take() == []


def test_command_that_vanishes_after_its_end_is_cancelled(bench: LiveBench) -> None:
    data = audio(0.5, 1.0, 0.5)
    bench.engine.hold()
    number = heard(bench, data)
    bench.engine.wait_for_calls(1)
    bench.submit(number, data)
    bench.worker.cancel(number)
    bench.engine.release()
    assert bench.code(number) == "cancelled"
    bench.settled()
    assert left_behind(bench) == []
    assert len(bench.engine.calls) == 1


@pytest.mark.parametrize("is_complete", [False, True])
def test_stop_ends_commands(bench: LiveBench, is_complete: bool) -> None:
    data = audio(0.5, 1.0, 0.5)
    bench.engine.hold()
    number = heard(bench, data)
    bench.engine.wait_for_calls(1)
    if is_complete:
        bench.submit(number, data)
    bench.worker.stop()
    bench.engine.release()
    assert bench.worker.join(30)
    assert left_behind(bench) == []
    assert [bench.code(number)] == ["shutting_down"] if is_complete else bench.take() == []


# Faults.


@pytest.mark.parametrize("error", [EngineError("whisper.cpp failed"), ZeroDivisionError("x")])
def test_fault_fails_only_its_stream(bench: LiveBench, error: Exception) -> None:
    def fail(samples: Samples, options: DecodeOptions) -> Hypothesis:
        raise error

    good, bench.engine.answer = bench.engine.answer, fail
    other = silent(bench)
    number = bench.stream()
    bench.feed(number, audio(0.5, 1.0, 0.9))
    outcome = bench.outcome(number)
    assert isinstance(outcome, Failure)
    assert outcome.code == "internal"
    assert "ZeroDivision" not in outcome.message
    bench.engine.answer = good
    bench.feed(other, audio(0.5, 1.0, 0.9))
    bench.worker.end(other)
    assert bench.code(other) == "ok"
    assert left_behind(bench) == []


def test_detector_that_fails_ends_only_its_stream(bench: LiveBench) -> None:
    number = silent(bench)

    def fail(chunk: Samples) -> float:
        raise RuntimeError("no")

    detector = bench.worker._live._make._lent[number]
    detector.probability = fail  # type: ignore[method-assign]
    bench.feed(number, audio(0.0, 1.0))
    assert bench.code(number) == "internal"
    bench.worker._live_detectors._spare.clear()
    assert bench.code(ended(bench)) == "ok"


def ended(bench: LiveBench) -> int:
    number = bench.stream()
    bench.feed(number, audio(0.5, 1.0, 0.9))
    bench.worker.end(number)
    return number


def test_detector_that_cannot_be_made_fails_a_stream_and_leaves_a_command(
    bench: LiveBench,
) -> None:
    assert bench.worker.wait_until_warm()
    bench.worker._live_detectors._spare.clear()
    good = bench.worker._live_detectors._new

    def fail() -> None:
        raise OSError("no memory")

    bench.worker._live_detectors._new = fail  # type: ignore[assignment]
    assert bench.code(bench.stream()) == "internal"
    data = audio(0.5, 1.0, 0.5)
    number = heard(bench, data)
    bench.settled()
    bench.worker._live_detectors._new = good
    bench.submit(number, data)
    assert bench.code(number) == "ok"


# Places.


def test_places_go_in_order_and_a_client_gets_three_quarters() -> None:
    places = Places(4)
    assert [places.take(number, "a") for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert not places.is_full
    assert places.take(5, "b")
    assert places.is_full
    assert not places.take(6, "c")
    places.give(5)
    # The first in line has its share already.
    assert not places.take(4, "a")
    assert not places.take(7, "b")
    assert places.take(6, "c")
    places.give(1)
    assert not places.take(7, "b")
    assert places.take(4, "a")
    assert places.taken == 4
    for number in range(1, 8):
        places.give(number)
        places.give(number)
    assert (places.taken, dict(places._line), dict(places._held)) == (0, {}, {})


def test_single_place_serves_any_client() -> None:
    places = Places(1)
    assert places.take(1, "a")
    assert not places.take(2, "a")
    places.give(1)
    assert places.take(2, "a")


def test_stream_without_a_place_is_heard_when_one_is_free(bench: LiveBench) -> None:
    number = without_place(bench)
    consumed = bench.consumed(number)
    assert consumed < 2 * 3.4 * RATE
    bench.worker.end(1)
    bench.worker.end(number)
    assert bench.code(number) == "ok"
    begins = [reply.at for reply in bench.replies(number) if isinstance(reply, SpeechBegan)]
    assert begins == pytest.approx([0.0, 1.9], abs=0.05)
    assert len([r for r in bench.replies(number) if isinstance(r, Utterance)]) == 2
    assert bench.worker.utterances == 3


def test_idle_streams_take_no_places(bench: LiveBench) -> None:
    numbers = [silent(bench) for _ in range(20)]
    assert bench.worker.utterances == 0
    for number in numbers:
        bench.feed(number, audio(0.0, 1.0, 1.0))
        bench.settled()
    assert bench.worker.utterances == 0
    for number in numbers:
        bench.worker.end(number)
        assert bench.code(number) == "ok"


def test_command_takes_no_place_and_is_not_heard_without_one(bench: LiveBench) -> None:
    first = heard(bench, audio(0.5, 1.0))
    bench.settled()
    assert bench.worker.utterances == 0
    assert first in bench.worker._live._works
    number = without_place(bench)
    late = heard(bench, audio(0.5, 1.0))
    bench.settled()
    assert late not in bench.worker._live._works
    assert number in bench.worker._live._works


def test_few_commands_are_heard_at_one_time(bench: LiveBench) -> None:
    numbers = [bench.listen() for _ in range(6)]
    bench.settled()
    assert [number in bench.worker._live._works for number in numbers] == [True] * 4 + [False] * 2


# Bounds.


def test_stream_faster_than_the_engine_is_not_heard_further(bench: LiveBench) -> None:
    number = bench.stream()
    bench.engine.hold()
    for _ in range(60):
        bench.feed(number, audio(0.6, 2.0))
    bench.settled_but_decoding()
    assert bench.consumed(number) <= 2 * 36 * RATE
    work = bench.worker._live._works[number]
    assert work._audio.held_seconds <= 36.0
    assert bench.worker.live_counts.lag_seconds > 100
    bench.engine.release()
    bench.worker.end(number)
    outcome = bench.outcome(number)
    assert isinstance(outcome, Streamed)
    assert outcome.utterances == 60
    assert bench.consumed(number) >= 2 * 60 * 2.6 * RATE - 8192
    assert bench.worker.live_counts.lag_seconds == 0.0


def test_command_far_behind_is_left_to_its_body(bench: LiveBench) -> None:
    data = audio(0.5, *([13.0, 0.5] * 5))
    bench.engine.hold()
    number = heard(bench, data[: 2 * 15 * RATE])
    bench.engine.wait_for_calls(1)
    bench.feed(number, data[2 * 15 * RATE :])
    bench.engine.release()
    bench.settled()
    bench.submit(number, data)
    outcome = bench.outcome(number)
    assert isinstance(outcome, Transcript)
    assert outcome.audio_seconds == pytest.approx(68.0)


def test_burst_of_one_stream_does_not_delay_another(bench: LiveBench) -> None:
    """The other's final is decoded before the burst is heard to its end."""
    other = speaking(bench)
    bench.engine.hold()
    blocker = bench.stream(end_pause=0.3)
    bench.feed(blocker, audio(0.5, 1.0, 0.4))
    bench.engine.wait_for_calls(1)
    bursting = bench.stream(end_pause=None)
    bench.feed(bursting, audio(0.5, 11.0) * 8)
    bench.worker.commit(other)
    seen: list[float] = []

    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        work = bench.worker._live._works.get(bursting)
        seen.append(0.0 if work is None else work._audio.seconds)
        return hypothesis_of("x", len(samples) / RATE)

    bench.engine.answer = answer
    bench.engine.release()
    eventually(lambda: any(isinstance(r, Utterance) for r in bench.replies(other)))
    assert 0.0 < seen[1] < 40.0


def test_thousand_streams_leave_nothing_behind(bench: LiveBench) -> None:
    works: list[weakref.ref[object]] = []
    for number in range(1000):
        if number % 3:
            live = bench.stream(reports_speech=bool(number % 2))
        else:
            live = bench.listen(client=str(number))
        if number % 5:
            bench.feed(live, audio(0.1, 0.3 * (number % 4), 0.3), [number % 977 + 1])
        if number % 100 == 0:
            bench.settled()
            works += [weakref.ref(work) for work in bench.worker._live._works.values()]
        if number % 7 == 0 and number % 3:
            bench.worker.end(live)
        else:
            bench.worker.cancel(live)
    bench.settled()
    for number in list(bench.worker._live._works):
        bench.worker.cancel(number)
    bench.settled()
    assert left_behind(bench) == []
    assert works
    gc.collect()
    assert [work for work in works if work() is not None] == []
    # Detectors of jobs that overlapped are kept for the next ones, up to a few.
    assert len(bench.worker._live_detectors._spare) <= 5
    assert not bench.worker._mailbox._untaken
    eventually(lambda: bench.worker.live_counts.jobs == 0)


# The engine beside live audio.


def test_engine_rests_only_while_nobody_speaks(bench: LiveBench) -> None:
    eventually(lambda: bench.engine.rests == 1, "the rest before the first job")
    number = pausing(bench)
    assert bench.engine.rests == 1
    bench.feed(number, audio(0.5))
    eventually(lambda: bench.engine.rests == 2, "the rest after the utterance")
    bench.feed(number, audio(1.0))
    bench.settled()
    assert bench.engine.rests == 2


def test_engine_keeps_the_alignment_for_a_stream_with_word_times(bench: LiveBench) -> None:
    eventually(lambda: bench.engine.rests == 1, "the rest before the first job")
    number = bench.listen(LiveOptions(), word_timestamps=True)
    bench.feed(number, audio(0.5, 1.0, 1.0))
    bench.settled()
    assert len(bench.engine.calls) == 1
    assert bench.engine.rests == 1
    bench.worker.end(number)
    eventually(lambda: bench.engine.rests == 2, "the rest after the stream")


def test_crash_mark_is_empty_during_a_live_decode(bench: LiveBench) -> None:
    number = bench.listen()
    data = audio(0.5, 1.0, 0.5)
    other = bench.listen()
    bench.worker.cancel(other)
    bench.engine.hold()
    bench.submit(other, audio(0.5, 1.0, 0.1))
    bench.engine.wait_for_calls(1)
    assert bench.marks[-1] == f"e{other}"
    bench.feed(number, data)
    bench.engine.step()
    bench.engine.wait_for_calls(2)
    assert bench.marks[-1] == ""
    bench.engine.release()
    bench.submit(number, data)
    assert bench.code(number) == "ok"


def test_live_decode_is_a_turn_for_the_watchdog(bench: LiveBench) -> None:
    speculating(bench)
    (seat,) = bench.worker.seats
    assert seat.turn is not None
    bench.engine.release()
    eventually(lambda: seat.turn is None)


def test_final_of_a_stream_precedes_windows_of_a_file(bench: LiveBench) -> None:
    order: list[str] = []

    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        order.append("file" if len(samples) > 5 * RATE else "stream")
        return hypothesis_of("x", len(samples) / RATE)

    bench.engine.answer = answer
    bench.engine.hold()
    file = bench.listen()
    bench.worker.cancel(file)
    bench.submit(file, audio(0.0, 100.0), client="files")
    bench.engine.wait_for_calls(1)
    number = bench.listen(LiveOptions(), client="speaker")
    bench.feed(number, audio(0.5, 1.0, 0.9))
    bench.worker.end(number)
    bench.engine.release()
    assert bench.code(file) == "ok"
    assert order[:2] == ["file", "stream"]
    assert bench.code(number) == "ok"


def test_command_that_came_during_a_window_is_next(bench: LiveBench) -> None:
    order: list[str] = []

    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        order.append("file" if len(samples) > 8 * RATE else "command")
        return hypothesis_of("x", len(samples) / RATE)

    bench.engine.answer = answer
    bench.engine.hold()
    file = bench.listen()
    bench.worker.cancel(file)
    bench.submit(file, audio(0.0, 100.0), client="files")
    bench.engine.wait_for_calls(1)
    number, data = bench.listen(client="speaker"), audio(0.5, 5.0, 0.9)
    bench.feed(number, data, [320] * (len(data) // 320))
    bench.submit(number, data, client="speaker")
    bench.engine.release()
    assert bench.code(number) == "ok"
    assert order[:2] == ["file", "command"]
    assert bench.code(file) == "ok"
    assert order.count("command") == 1


def test_stream_behind_a_file_of_its_connection_waits(bench: LiveBench) -> None:
    bench.engine.hold()
    file = bench.listen()
    bench.worker.cancel(file)
    bench.submit(file, audio(0.0, 50.0))
    bench.engine.wait_for_calls(1)
    number = bench.listen(LiveOptions(), connection=file)
    bench.feed(number, audio(0.5, 1.0, 0.9))
    bench.worker.end(number)
    bench.engine.release()
    assert bench.code(number) == "ok"
    finished = [entry.job for entry in bench.take() if hasattr(entry, "outcome")]
    assert finished == [file, number]


def test_counts_of_finals_and_speculations() -> None:
    bench = LiveBench(FakeEngine())
    number = bench.stream(end_pause=0.9)
    bench.feed(number, audio(0.5, 1.0, 0.4))
    bench.settled()
    bench.feed(number, audio(0.6))
    bench.settled()
    bench.feed(number, audio(0.5, 1.0))
    bench.worker.end(number)
    bench.outcome(number)
    counts = bench.worker.live_counts
    assert (counts.finals, counts.speculations_used, counts.speculations_wasted) == (2, 1, 0)
    assert counts.final_seconds > 0.0
    bench.close()
