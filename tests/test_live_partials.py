"""Partials of streams: when they are decoded, what they show, and what they leave behind."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from fakes import RATE, Samples, eventually, hypothesis_of
from live import LiveBench, audio

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions, EngineError
from app.live import Configure, LiveOptions, Partial
from app.messages import Streamed, Utterance


@pytest.fixture
def bench() -> Iterator[LiveBench]:
    bench = LiveBench()
    bench.engine.answer = counting
    yield bench
    bench.close()


def counting(samples: Samples, options: DecodeOptions) -> Hypothesis:
    """A word for each half second."""
    seconds = len(samples) / RATE
    text = " ".join(f"word{number}" for number in range(int(2 * seconds)))
    return hypothesis_of(text, seconds, "en" if options.language == "auto" else options.language)


def play(bench: LiveBench, number: int, data: bytes) -> None:
    """Send audio in packets; the worker does all that it can before the next one."""
    for at in range(0, len(data), 3200):
        bench.worker.feed(number, data[at : at + 3200])
        bench.settled()


def partials(bench: LiveBench, number: int) -> list[Partial]:
    return [reply for reply in bench.replies(number) if isinstance(reply, Partial)]


def partial_calls(bench: LiveBench) -> list[float]:
    """The seconds of audio of each partial decode."""
    return [len(samples) / RATE for samples, options in bench.engine.calls if options.partial]


def test_open_utterance_is_shown_while_it_grows(bench: LiveBench) -> None:
    number = bench.stream(partials=True)
    play(bench, number, audio(0.5, 5.0, 0.8))
    bench.worker.end(number)
    outcome = bench.outcome(number)
    assert isinstance(outcome, Streamed)
    shown = partials(bench, number)
    assert len(shown) >= 5
    (final,) = [reply for reply in bench.replies(number) if isinstance(reply, Utterance)]
    text = final.segments[0].text
    for before, after in itertools.pairwise(shown):
        assert after.stable.startswith(before.stable)
        assert text.startswith(after.stable + after.rest)
    assert shown[0].stable == ""
    assert shown[-1].stable
    # The last one is the speculation in the pause: the whole text.
    assert shown[-1].stable + shown[-1].rest == text
    assert bench.worker.live_counts.partials == len(shown)
    # A partial never follows the final of its utterance.
    assert isinstance(bench.replies(number)[-1], Utterance)


def test_partials_come_at_most_every_six_tenths_of_a_second(bench: LiveBench) -> None:
    number = bench.stream(partials=True)
    play(bench, number, audio(0.5, 6.0))
    ends = partial_calls(bench)
    # Half a second of lead-in, then 0.6 s of speech.
    assert 1.05 <= ends[0] <= 1.3
    assert all(b - a >= 0.59 for a, b in itertools.pairwise(ends))
    assert len(ends) >= 7


def test_slow_partials_are_rarer(bench: LiveBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(samples: Samples, options: DecodeOptions) -> Hypothesis:
        time.sleep(0.4)
        return counting(samples, options)

    bench.engine.answer = slow
    number = bench.stream(partials=True)
    play(bench, number, audio(0.5, 4.0))
    ends = partial_calls(bench)
    assert 2 <= len(ends) <= 4
    assert all(b - a >= 1.19 for a, b in itertools.pairwise(ends))


def test_last_word_is_hidden_while_the_speaker_goes_on(bench: LiveBench) -> None:
    number = bench.stream(partials=True)
    play(bench, number, audio(0.5, 1.0))
    bench.engine.wait_for_calls(1)
    (_, options) = bench.engine.calls[0]
    assert options.partial
    assert next(f"{each.stable}{each.rest}" for each in partials(bench, number)) == "word0"


def test_stream_without_partials_has_none(bench: LiveBench) -> None:
    number = bench.stream()
    play(bench, number, audio(0.5, 3.0, 0.8))
    assert partials(bench, number) == []
    assert partial_calls(bench) == []


def test_partials_can_be_switched_on(bench: LiveBench) -> None:
    number = bench.stream()
    play(bench, number, audio(0.5, 1.0, 0.8))
    bench.worker.configure(number, Configure(LiveOptions(partials=True)))
    play(bench, number, audio(0.5, 2.0))
    assert partials(bench, number)


def test_implausible_partial_is_not_shown(bench: LiveBench) -> None:
    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        # The engine returns nothing where it has doubts about a partial.
        return hypothesis_of("" if options.partial else "sure", len(samples) / RATE)

    bench.engine.answer = answer
    number = bench.stream(partials=True, end_pause=0.4)
    play(bench, number, audio(0.5, 3.0, 0.2))
    assert partials(bench, number) == []
    assert partial_calls(bench)


def test_partial_changes_neither_language_nor_carried_text(bench: LiveBench) -> None:
    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        language = "de" if options.partial else "haw"
        language = language if options.language == "auto" else options.language
        return hypothesis_of("some words here", len(samples) / RATE, language)

    bench.engine.answer = answer
    number = bench.listen(LiveOptions(partials=True), language="auto", prompt="names")
    play(bench, number, audio(0.5, 3.0, 0.8))
    play(bench, number, audio(0.2, 2.0, 0.8))
    bench.worker.end(number)
    outcome = bench.outcome(number)
    assert isinstance(outcome, Streamed)
    assert outcome.language == "haw"
    first = [options for samples, options in bench.engine.calls if options.partial]
    assert [options.language for options in first[:2]] == ["auto", "de"]
    assert first[-1].language == "haw"
    assert {options.carried for options in first} == {""}
    assert {options.prompt for options in first} == {"names"}
    assert {options.temperature for options in first} == {0.0}


def test_partials_wait_while_anything_else_waits(bench: LiveBench) -> None:
    number = bench.stream(partials=True)
    file = bench.listen()
    bench.worker.cancel(file)
    bench.engine.hold()
    bench.submit(file, audio(0.0, 100.0))
    bench.engine.wait_for_calls(1)
    bench.feed(number, audio(0.5, 1.0))
    for count in (2, 3, 4):
        bench.engine.step()
        bench.engine.wait_for_calls(count)
    assert partial_calls(bench) == []
    bench.engine.release()
    assert bench.code(file) == "ok"
    eventually(lambda: partial_calls(bench))


def test_partials_of_two_streams_take_turns(bench: LiveBench) -> None:
    numbers = [bench.stream(partials=True) for _ in range(2)]
    data = audio(0.5, 5.0)
    for at in range(0, len(data), 3200):
        for number in numbers:
            bench.worker.feed(number, data[at : at + 3200])
        bench.settled()
    counts = [len(partials(bench, number)) for number in numbers]
    assert min(counts) >= 5
    assert abs(counts[0] - counts[1]) <= 1


def test_failed_partial_fails_its_stream(bench: LiveBench) -> None:
    def fail(samples: Samples, options: DecodeOptions) -> Hypothesis:
        raise EngineError("no")

    bench.engine.answer = fail
    number = bench.stream(partials=True)
    bench.feed(number, audio(0.5, 2.0))
    assert bench.code(number) == "internal"


def test_client_that_vanishes_during_a_partial_leaves_nothing(bench: LiveBench) -> None:
    bench.engine.hold()
    number = bench.stream(partials=True)
    bench.feed(number, audio(0.5, 2.0))
    bench.engine.wait_for_calls(1)
    bench.worker.cancel(number)
    bench.engine.release()
    assert bench.code(number) == "cancelled"
    bench.settled()
    assert number not in bench.worker._live._works
    assert len(bench.engine.calls) == 1
