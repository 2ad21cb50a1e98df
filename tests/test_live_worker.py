"""Streams and commands in the worker: every state of an utterance, and what is left behind."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fakes import RATE, FakeEngine, Samples, eventually, hypothesis_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import LiveBench, audio

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions, EngineError
from app.live import Committed, Configure, LiveOptions, SpeechBegan, SpeechEnded
from app.messages import RawFormat, Streamed, Transcript, Utterance


@pytest.fixture
def bench() -> Iterator[LiveBench]:
    bench = LiveBench()
    yield bench
    bench.close()


def named(samples: Samples, options: DecodeOptions) -> Hypothesis:
    """A text that depends on every sample."""
    name = hashlib.sha1(samples.tobytes()).hexdigest()[:8]
    return hypothesis_of(name, len(samples) / RATE)


def utterances(bench: LiveBench, number: int) -> list[Utterance]:
    return [reply for reply in bench.replies(number) if isinstance(reply, Utterance)]


def texts(bench: LiveBench, number: int) -> list[str]:
    return [segment.text for heard in utterances(bench, number) for segment in heard.segments]


def streamed(bench: LiveBench, number: int) -> Streamed:
    outcome = bench.outcome(number)
    assert isinstance(outcome, Streamed)
    return outcome


def transcript(bench: LiveBench, number: int) -> Transcript:
    outcome = bench.outcome(number)
    assert isinstance(outcome, Transcript)
    return outcome


# The text depends on the audio alone.

CONVERSATION = audio(0.7, 1.3, 0.3, 0.9, 0.45, 0.5, 0.8, 2.0, 1.2, 0.4, 0.1, 0.3, 0.9)


@pytest.fixture(scope="module")
def shared() -> Iterator[LiveBench]:
    bench = LiveBench(FakeEngine(named))
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def whole(shared: LiveBench) -> list[Utterance]:
    number = shared.stream()
    shared.feed(number, CONVERSATION)
    shared.worker.end(number)
    assert streamed(shared, number).utterances == 3
    return utterances(shared, number)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(1, 60_000), max_size=40),
    waits=st.lists(st.booleans(), min_size=41, max_size=41),
)
def test_any_split_gives_the_same_utterances(
    shared: LiveBench, whole: list[Utterance], sizes: list[int], waits: list[bool]
) -> None:
    """The pauses between the pieces let the worker speculate wherever it wants to."""
    number = shared.stream()
    rest = CONVERSATION
    for size, wait in zip(sizes, waits, strict=False):
        shared.worker.feed(number, rest[:size])
        rest = rest[size:]
        if wait:
            shared.settled()
    shared.worker.feed(number, rest)
    shared.worker.end(number)
    streamed(shared, number)
    assert utterances(shared, number) == whole


@pytest.mark.parametrize(
    "raw",
    [
        RawFormat("s16", 44_100, 2, "big"),
        RawFormat("f32", 8_000, 1, "little"),
        RawFormat("s24", 48_000, 1, "little"),
    ],
)
def test_split_does_not_matter_in_any_format(shared: LiveBench, raw: RawFormat) -> None:
    count = 3 * raw.sample_rate * raw.channels
    width = {"s16": 2, "f32": 4, "s24": 3}[raw.encoding]
    data = audio(0.5, 1.0, 1.0, 0.5)[: count * 2]
    data = (data * (count * width // len(data) + 1))[: count * width]
    heard = []
    for step in (len(data), 1001, 8192):
        number = shared.listen(LiveOptions(), raw=raw)
        for at in range(0, len(data), step):
            shared.worker.feed(number, data[at : at + step])
        shared.worker.end(number)
        streamed(shared, number)
        heard.append(utterances(shared, number))
    assert heard[0] == heard[1] == heard[2]


def test_utterances_have_the_times_of_the_stream(bench: LiveBench) -> None:
    number = bench.stream()
    bench.feed(number, audio(1.0, 2.0, 1.0, 1.0))
    bench.worker.end(number)
    outcome = streamed(bench, number)
    assert (outcome.utterances, outcome.segments, outcome.truncated) == (2, 2, False)
    assert outcome.audio_seconds == 5.0
    assert outcome.processing_seconds > 0
    assert (outcome.language, outcome.model) == ("en", "fake")
    first, second = utterances(bench, number)
    assert first.start == pytest.approx(1.0, abs=0.04)
    assert first.end == pytest.approx(3.0, abs=0.04)
    # Half a second of lead-in, and a quarter of a second after the end.
    assert first.segments[0].start == pytest.approx(0.5, abs=0.04)
    assert first.segments[0].end == pytest.approx(3.25, abs=0.04)
    assert second.end == 5.0
    assert second.language == "en"


def test_transcript_of_a_stream_has_the_whole_text(bench: LiveBench) -> None:
    number = bench.listen(LiveOptions(), reply="transcript")
    bench.feed(number, audio(1.0, 2.0, 1.0, 1.0) + b"\0")
    bench.worker.end(number)
    outcome = transcript(bench, number)
    assert bench.replies(number) == []
    assert outcome.text == " ".join(segment.text for segment in outcome.segments)
    assert len(outcome.segments) == 2
    assert outcome.truncated
    assert outcome.passes == len(bench.engine.calls)


# Silence.


@pytest.mark.parametrize("data", [bytes(2 * RATE * 120), audio(1.0, 0.05, 1.0, 0.09, 1.0) * 20])
def test_silence_and_clicks_cost_no_engine_call(bench: LiveBench, data: bytes) -> None:
    number = bench.stream(reports_speech=True)
    bench.feed(number, data)
    bench.worker.commit(number)
    bench.worker.end(number)
    outcome = streamed(bench, number)
    assert (outcome.utterances, outcome.segments, outcome.language) == (0, 0, "en")
    assert bench.engine.calls == []
    assert bench.replies(number) == [Committed(outcome.audio_seconds)]


def test_stream_without_audio_ends(bench: LiveBench) -> None:
    number = bench.stream()
    bench.worker.end(number)
    assert streamed(bench, number).audio_seconds == 0.0


# Speculation.


def test_command_is_answered_without_a_further_decode(bench: LiveBench) -> None:
    number, data = bench.listen(), audio(0.5, 2.0, 0.8)
    bench.feed(number, data)
    bench.settled()
    assert len(bench.engine.calls) == 1
    bench.submit(number, data)
    outcome = transcript(bench, number)
    assert len(bench.engine.calls) == 1
    assert outcome.audio_seconds == 3.3
    assert outcome.text == str(len(bench.engine.calls[0][0]))
    assert outcome.passes == 1
    counts = bench.worker.live_counts
    assert (counts.speculations_used, counts.speculations_wasted) == (1, 0)
    assert (counts.jobs, counts.finals) == (0, 1)


def test_speech_before_the_pause_is_long_enough_is_decoded_once(bench: LiveBench) -> None:
    number, data = bench.listen(), audio(0.5, 2.0, 0.2)
    bench.feed(number, data)
    bench.settled()
    assert bench.engine.calls == []
    bench.submit(number, data)
    assert transcript(bench, number).text == str(len(data) // 2)
    assert len(bench.engine.calls) == 1


def test_end_during_a_speculation_waits_for_it(bench: LiveBench) -> None:
    number = bench.stream(end_pause=5.0)
    bench.engine.hold()
    bench.feed(number, audio(0.5, 2.0, 0.4))
    bench.engine.wait_for_calls(1)
    bench.worker.feed(number, audio(0.3))
    bench.worker.end(number)
    bench.engine.release()
    assert streamed(bench, number).utterances == 1
    assert len(bench.engine.calls) == 1


def test_end_of_a_command_during_a_speculation_waits_for_it(bench: LiveBench) -> None:
    number, data = bench.listen(), audio(0.5, 2.0, 0.8)
    bench.engine.hold()
    bench.feed(number, data[:-100])
    bench.engine.wait_for_calls(1)
    bench.worker.feed(number, data[-100:])
    bench.submit(number, data)
    bench.engine.release()
    transcript(bench, number)
    assert len(bench.engine.calls) == 1


def test_speech_that_resumes_during_a_speculation_drops_it(bench: LiveBench) -> None:
    bench.engine.answer = named
    number, data = bench.stream(end_pause=1.0), audio(0.5, 2.0, 0.4, 1.0, 1.1)
    bench.engine.hold()
    first = 2 * int(2.9 * RATE)
    bench.feed(number, data[:first])
    bench.engine.wait_for_calls(1)
    bench.feed(number, data[first:])
    bench.engine.release()
    bench.worker.end(number)
    streamed(bench, number)
    # The speculation at the last pause is the result.
    assert len(bench.engine.calls) == 2
    (samples, options) = bench.engine.calls[1]
    assert len(samples) == pytest.approx(4.15 * RATE, abs=0.05 * RATE)
    assert texts(bench, number) == [named(samples, options).text]
    assert bench.worker.live_counts.speculations_wasted == 1


def test_hesitations_waste_three_decodes_at_most(bench: LiveBench) -> None:
    number, data = bench.stream(end_pause=2.0), audio(0.5, *([0.5, 0.7] * 8), 0.5, 2.1)
    for at in range(0, len(data), 2048):
        bench.worker.feed(number, data[at : at + 2048])
        bench.settled()
    bench.worker.end(number)
    assert streamed(bench, number).utterances == 1
    assert bench.worker.live_counts.speculations_wasted == 3
    assert len(bench.engine.calls) == 4


def test_wasted_speculation_leaves_no_trace(bench: LiveBench) -> None:
    """The language and the carried text are those of complete utterances."""

    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        language = "de" if len(bench.engine.calls) == 1 else "haw"
        text = f"words {len(bench.engine.calls)}"
        language = language if options.language == "auto" else options.language
        return hypothesis_of(text, len(samples) / RATE, language)

    bench.engine.answer = answer
    number = bench.listen(LiveOptions(end_pause=None), language="auto")
    bench.feed(number, audio(0.5, 1.0, 0.35))
    bench.settled()
    bench.feed(number, audio(0.0, 1.0, 0.3))
    bench.worker.commit(number)
    bench.settled()
    bench.feed(number, audio(0.0, 1.0, 0.2))
    bench.worker.end(number)
    assert streamed(bench, number).language == "haw"
    assert [options.language for _, options in bench.engine.calls] == ["auto", "auto", "haw"]
    assert [options.carried for _, options in bench.engine.calls] == ["", "", "words 2"]
    assert [heard.language for heard in utterances(bench, number)] == ["haw", "haw"]


def test_text_is_carried_over_cuts_and_not_over_pauses(bench: LiveBench) -> None:
    bench.engine.answer = lambda samples, _options: hypothesis_of("words", len(samples) / RATE)
    number = bench.stream(end_pause=0.9)
    bench.feed(number, audio(0.5, 13.0, 0.3, 2.0, 1.0, 2.0))
    bench.worker.end(number)
    assert streamed(bench, number).utterances == 3
    carried = [options.carried for _, options in bench.engine.calls]
    assert [carried[0], *carried[-2:]] == ["", "words", ""]


# What is decoded.


def test_rest_of_an_utterance_is_decoded_again(bench: LiveBench) -> None:
    """As in a file: Whisper sometimes stops in the middle of a window."""

    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        if len(bench.engine.calls) == 1:
            return hypothesis_of("the beginning", 2.0)
        return hypothesis_of("the rest", len(samples) / RATE)

    bench.engine.answer = answer
    number = bench.stream()
    bench.feed(number, audio(0.5, 5.0, 1.0))
    bench.worker.end(number)
    assert streamed(bench, number).segments == 2
    (heard,) = utterances(bench, number)
    assert [segment.text for segment in heard.segments] == ["the beginning", "the rest"]
    assert heard.segments[1].start == pytest.approx(2.0, abs=0.05)
    assert heard.segments[1].end == pytest.approx(5.75, abs=0.05)
    assert [options.only_sure for _, options in bench.engine.calls] == [False, True]
    assert [options.carried for _, options in bench.engine.calls] == ["", "the beginning"]


def test_rest_without_speech_is_not_decoded(bench: LiveBench) -> None:
    bench.engine.answer = lambda _samples, _options: hypothesis_of("all", 1.6)
    number = bench.stream(end_pause=3.0)
    bench.feed(number, audio(0.5, 1.0, 1.2, 0.05, 3.5))
    bench.worker.end(number)
    streamed(bench, number)
    assert not any(options.only_sure for _, options in bench.engine.calls)


def test_command_decodes_its_rest_after_the_end(bench: LiveBench) -> None:
    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        return hypothesis_of("x", 2.0 if len(samples) > 4 * RATE else len(samples) / RATE)

    bench.engine.answer = answer
    bench.engine.hold()
    number, data = bench.listen(), audio(0.5, 4.5, 0.8)
    bench.feed(number, data)
    bench.engine.wait_for_calls(1)
    bench.submit(number, data)
    bench.engine.release()
    assert transcript(bench, number).text == "x x"
    assert len(bench.engine.calls) == 2


def test_options_of_a_request_reach_the_engine(bench: LiveBench) -> None:
    number = bench.listen(
        LiveOptions(),
        prompt="names",
        temperature=0.4,
        task="translate",
        word_timestamps=True,
        language="de",
    )
    bench.feed(number, audio(0.5, 1.0, 1.0))
    bench.worker.end(number)
    streamed(bench, number)
    ((_, options),) = bench.engine.calls
    assert (options.prompt, options.temperature, options.language) == ("names", 0.4, "de")
    assert options.translate
    assert options.words


def test_configuration_holds_from_the_next_utterance_on(bench: LiveBench) -> None:
    number = bench.listen(LiveOptions(end_pause=5.0), prompt="first", language="en")
    bench.feed(number, audio(0.5, 1.0))
    bench.worker.configure(number, Configure(LiveOptions(end_pause=0.4), "de", "second"))
    bench.feed(number, audio(1.0))
    bench.worker.commit(number)
    bench.feed(number, audio(0.0, 1.0, 0.45, 1.0))
    bench.worker.configure(number, Configure(LiveOptions(end_pause=0.4)))
    bench.worker.end(number)
    assert streamed(bench, number).utterances == 3
    seen = [(options.prompt, options.language) for _, options in bench.engine.calls]
    assert [each for each in seen if each[0] == "first"] == [("first", "en")]
    assert set(seen) == {("first", "en"), ("second", "de")}


def test_each_utterance_of_a_multi_stream_has_its_language(bench: LiveBench) -> None:
    languages = iter(["de", "haw", "de"])
    bench.engine.answer = lambda samples, _options: hypothesis_of(
        "x", len(samples) / RATE, next(languages)
    )
    number = bench.listen(LiveOptions(), language="multi")
    for _ in range(3):
        bench.feed(number, audio(0.5, 1.0, 0.6))
        bench.settled()
    bench.worker.end(number)
    assert streamed(bench, number).language == "de"
    assert [heard.language for heard in utterances(bench, number)] == ["de", "haw", "de"]
    expected = [options.expected_language for _, options in bench.engine.calls]
    assert expected == [None, "de", "haw"]


# Controls.


def test_commit_completes_the_open_utterance(bench: LiveBench) -> None:
    number = bench.stream(end_pause=None, reports_speech=True)
    bench.feed(number, audio(0.5, 1.5))
    bench.worker.commit(number)
    bench.worker.commit(number)
    bench.settled()
    bench.feed(number, audio(0.5, 1.0))
    bench.worker.end(number)
    assert streamed(bench, number).utterances == 2
    kinds = [type(reply) for reply in bench.replies(number)]
    assert kinds[:5] == [SpeechBegan, SpeechEnded, Utterance, Committed, Committed]
    assert kinds[5:] == [SpeechBegan, SpeechEnded, Utterance]
    committed = [reply for reply in bench.replies(number) if isinstance(reply, Committed)]
    assert {reply.audio_seconds for reply in committed} == {2.0}
    # No sample between the two is lost or decoded twice.
    (first, _), (second, _) = bench.engine.calls
    assert len(first) + len(second) <= 3.5 * RATE
    assert len(second) >= 1.0 * RATE


def test_commit_follows_the_utterances_before_it(bench: LiveBench) -> None:
    number = bench.stream()
    bench.engine.hold()
    bench.feed(number, audio(0.5, 1.0, 1.0, 1.0))
    bench.worker.commit(number)
    bench.engine.wait_for_calls(1)
    assert bench.replies(number) == []
    bench.engine.release()
    bench.worker.end(number)
    streamed(bench, number)
    assert [type(reply) for reply in bench.replies(number)] == [Utterance, Utterance, Committed]


def test_clear_drops_the_open_utterance(bench: LiveBench) -> None:
    number = bench.stream(end_pause=None)
    bench.feed(number, audio(0.5, 1.0, 0.5))
    bench.settled()
    bench.worker.clear(number)
    bench.feed(number, audio(0.5, 0.7))
    bench.worker.end(number)
    outcome = streamed(bench, number)
    assert (outcome.utterances, outcome.audio_seconds) == (1, 3.2)
    assert utterances(bench, number)[0].start == pytest.approx(2.5, abs=0.04)
    assert bench.worker.utterances == 0


def test_clear_keeps_complete_utterances(bench: LiveBench) -> None:
    number = bench.stream()
    bench.engine.hold()
    bench.feed(number, audio(0.5, 1.0, 1.0, 1.0))
    bench.engine.wait_for_calls(1)
    bench.worker.clear(number)
    bench.worker.end(number)
    bench.engine.release()
    assert streamed(bench, number).utterances == 1


def test_speech_without_words_is_reported_only_with_its_bounds(bench: LiveBench) -> None:
    bench.engine.answer = lambda _samples, _options: hypothesis_of("", 1.0)
    for reports, kinds in ((False, []), (True, [SpeechBegan, SpeechEnded, Utterance])):
        number = bench.stream(reports_speech=reports)
        bench.feed(number, audio(0.5, 1.0, 1.0))
        bench.worker.end(number)
        assert streamed(bench, number).utterances == 0
        assert [type(reply) for reply in bench.replies(number)] == kinds


# Long audio.


def test_long_stream_is_cut_in_pauses_without_overlap(bench: LiveBench) -> None:
    number = bench.stream(end_pause=None)
    for _ in range(10):
        bench.feed(number, audio(0.2, 5.0))
    bench.worker.end(number)
    assert streamed(bench, number).utterances >= 3
    lengths = [len(samples) / RATE for samples, _ in bench.engine.calls]
    finals = [heard.segments[0] for heard in utterances(bench, number)]
    assert max(lengths) <= 30.0
    assert min(segment.end - segment.start for segment in finals[:-1]) >= 12.0
    assert all(a.end <= b.start for a, b in itertools.pairwise(finals))
    assert sum(segment.end - segment.start for segment in finals) >= 50.0


def test_long_command_costs_one_decode_at_its_end(bench: LiveBench) -> None:
    number, data = bench.listen(), audio(0.5, 13.0, 0.4, 2.0, 0.6)
    bench.feed(number, data)
    bench.settled()
    before = len(bench.engine.calls)
    assert before >= 1
    bench.submit(number, data)
    outcome = transcript(bench, number)
    assert len(outcome.segments) == 2
    assert len(bench.engine.calls) <= before + 1


def test_segments_of_a_command_are_reported_if_requested(bench: LiveBench) -> None:
    number, data = bench.listen(reply="segments"), audio(0.5, 2.0, 0.8)
    bench.feed(number, data)
    bench.settled()
    assert bench.replies(number) == []
    bench.submit(number, data, reply="segments")
    outcome = transcript(bench, number)
    assert tuple(bench.replies(number)) == outcome.segments


# Commands that are left to their bodies.


def as_file(bench: LiveBench, data: bytes, **more: Any) -> Transcript:
    """The transcript of a job that was not heard."""
    number = bench.listen(LiveOptions())
    bench.worker.cancel(number)
    bench.outcome(number)
    bench.submit(number, data, **more)
    eventually(lambda: len([e for e in bench.take() if e.job == number]) == 2)
    outcome = bench.take()[-1].outcome  # type: ignore[union-attr]
    assert isinstance(outcome, Transcript)
    return outcome


def same(heard: Transcript, as_body: Transcript) -> bool:
    return replace(heard, queue_seconds=0.0, processing_seconds=0.0) == replace(
        as_body, queue_seconds=0.0, processing_seconds=0.0
    )


@pytest.mark.parametrize(
    "data",
    [
        audio(2.0),
        audio(0.5, 2.0, 0.1),
        audio(0.5, 2.0),
        audio(0.2, 0.1, 0.2),
        audio(0.5, 13.0, 0.4, 13.0, 0.5, 13.0, 0.1),
    ],
    ids=["silence", "no pause", "no tail", "click", "three utterances"],
)
def test_command_without_a_result_is_transcribed_from_its_body(
    bench: LiveBench, data: bytes
) -> None:
    bench.engine.answer = named
    number = bench.listen()
    bench.engine.hold()
    bench.feed(number, data)
    bench.submit(number, data)
    bench.engine.release()
    assert same(transcript(bench, number), as_file(bench, data))


def test_command_with_other_bytes_than_its_body_is_transcribed_from_it(bench: LiveBench) -> None:
    number, data = bench.listen(), audio(0.5, 2.0, 0.8)
    bench.feed(number, data)
    bench.settled()
    longer = data + audio(0.0, 1.0)
    bench.submit(number, longer)
    assert transcript(bench, number).audio_seconds == 4.3
    assert len(bench.engine.calls) == 2


def test_command_with_fields_after_its_audio_is_transcribed_from_its_body(
    bench: LiveBench,
) -> None:
    number, data = bench.listen(), audio(0.5, 2.0, 0.8)
    bench.feed(number, data)
    bench.settled()
    bench.submit(number, data, prompt="names", id="other")
    assert transcript(bench, number).text
    assert [options.prompt for _, options in bench.engine.calls] == ["", "names"]


def test_failed_speculation_of_a_command_leaves_it_to_its_body(bench: LiveBench) -> None:
    def fail(samples: Samples, options: DecodeOptions) -> Hypothesis:
        raise EngineError("no")

    good, bench.engine.answer = bench.engine.answer, fail
    number, data = bench.listen(), audio(0.5, 2.0, 0.8)
    bench.feed(number, data)
    bench.settled()
    assert number not in bench.worker._live._works
    bench.engine.answer = good
    bench.submit(number, data)
    assert transcript(bench, number).text


def test_speech_without_words_gets_a_second_decode_from_the_body(bench: LiveBench) -> None:
    bench.engine.answer = lambda _samples, _options: hypothesis_of("", 1.0)
    number, data = bench.listen(), audio(0.5, 2.0, 0.8)
    bench.feed(number, data)
    bench.settled()
    bench.submit(number, data)
    assert transcript(bench, number).text == ""
    assert len(bench.engine.calls) == 2


def test_multi_command_with_a_pause_is_transcribed_from_its_body(bench: LiveBench) -> None:
    bench.engine.answer = named
    number, data = bench.listen(language="multi"), audio(0.5, 2.0, 0.6, 1.0, 0.6)
    for at in range(0, len(data), 8192):
        bench.worker.feed(number, data[at : at + 8192])
        bench.settled()
    assert number not in bench.worker._live._works
    bench.submit(number, data, language="multi")
    heard = transcript(bench, number)
    assert same(heard, as_file(bench, data, language="multi"))


def test_audio_limit_holds_for_heard_commands() -> None:
    bench = LiveBench(max_seconds=2.0)
    number, data = bench.listen(), audio(0.5, 1.5, 0.8)
    bench.feed(number, data)
    bench.settled()
    bench.submit(number, data)
    assert bench.code(number) == "audio_too_long"
    bench.close()


def test_command_is_not_heard_on_a_node_that_takes_all_audio_for_speech() -> None:
    bench = LiveBench(vad_threshold=0.0)
    number, data = bench.listen(), audio(0.5, 1.5, 0.8)
    bench.feed(number, data)
    bench.settled()
    assert bench.engine.calls == []
    bench.submit(number, data)
    assert transcript(bench, number).text
    bench.close()


def test_cancel_before_the_job_drops_only_the_early_state(bench: LiveBench) -> None:
    number, data = bench.listen(), audio(0.5, 2.0, 0.8)
    bench.engine.hold()
    bench.feed(number, data)
    bench.worker.cancel(number)
    bench.submit(number, data)
    bench.engine.release()
    assert transcript(bench, number).text
    assert len(bench.take()) == 1


def test_job_without_listening_is_transcribed_from_its_body(bench: LiveBench) -> None:
    bench.worker.feed(7, b"1234")
    bench.worker.end(7)
    data = audio(0.5, 1.0, 0.3)
    bench.submit(7, data)
    assert transcript(bench, 7).text == str(len(data) // 2)
