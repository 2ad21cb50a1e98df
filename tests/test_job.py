"""One request turn by turn: times, prompts, languages, repeated audio, and the transcript."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import (
    RATE,
    FakeDetector,
    FakeEngine,
    Samples,
    body_of,
    encoded,
    hypothesis_of,
    pcm,
    tone,
)

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions
from app.limits import CueLayout
from app.messages import RawFormat, Request, Segment, Transcript, Word
from app.worker.job import Job, JobSettings, Transcription

RAW = RawFormat("s16", RATE, 1, "little")
GAP = np.zeros(RATE, dtype=np.float32)


def three_phrases() -> bytes:
    """Three windows: three times 20 s of tone, with a second of silence between them."""
    samples = np.concatenate([tone(20 * RATE), GAP, tone(20 * RATE), GAP, tone(12 * RATE)])
    return bytes((samples * 32767).astype("<i2").tobytes())


def run(
    engine: FakeEngine,
    data: bytes,
    raw: RawFormat | None = RAW,
    threshold: float = 0.5,
    language: str = "en",
    prompt: str = "",
    **fields: Any,
) -> tuple[list[list[Segment]], Transcript]:
    """Run all turns; return the segments of each turn, and the transcript."""
    body = body_of(data)
    try:
        job = Job(1, 1, Request("r", len(data), raw, **fields), body, time.monotonic())
        limits = JobSettings(3600.0, threshold, language, prompt, "fake")
        work = Transcription(job, engine, FakeDetector(), limits)
        turns = []
        for _ in range(10_000):
            segments, done = work.turn()
            turns.append(segments)
            if done:
                break
        else:
            pytest.fail("it never ends")
        work.close()
        return turns, work.transcript()
    finally:
        body.close()


def answers(*hypotheses: Hypothesis) -> FakeEngine:
    """An engine that returns these hypotheses in order."""
    following: Iterator[Hypothesis] = iter(hypotheses)
    return FakeEngine(lambda _samples, _options: next(following))


def prompts(engine: FakeEngine) -> list[str]:
    return [f"{options.prompt} {options.carried}".strip() for _, options in engine.calls]


def test_turn_decodes_one_window_at_most() -> None:
    engine = FakeEngine()
    turns, transcript = run(engine, three_phrases())
    assert [len(segments) for segments in turns if segments] == [1, 1, 1]
    assert len(engine.calls) == 3
    assert [segment for turn in turns for segment in turn] == list(transcript.segments)


def test_times_count_from_the_start_of_the_audio() -> None:
    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        end = len(samples) / RATE
        words = (Word(0.5, 1.0, "x", 0.9),)
        return Hypothesis((Segment(0.5, end, "x", 0.9, words),), "en", -0.1, end)

    engine = FakeEngine(answer)
    _, transcript = run(engine, three_phrases(), word_timestamps=True)
    assert all(options.words for _, options in engine.calls)
    starts = [segment.start for segment in transcript.segments]
    # Windows are cut in the middle of the silent seconds, half a second before the speech.
    assert starts[0] == 0.5
    assert 20.5 <= starts[1] <= 21.5
    assert 41.5 <= starts[2] <= 42.5
    for segment in transcript.segments:
        assert segment.words is not None
        assert segment.words[0].start == segment.start
        assert segment.words[0].end == pytest.approx(segment.start + 0.5)
    assert transcript.segments[-1].end == pytest.approx(54.0, abs=0.05)


def test_transcript_sums_up_all_segments() -> None:
    _, transcript = run(FakeEngine(), three_phrases())
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)
    assert transcript.audio_seconds == 54.0
    assert transcript.queue_seconds >= 0
    assert transcript.processing_seconds > 0
    assert transcript.model == "fake"
    assert not transcript.truncated
    assert transcript.passes == 3


@pytest.mark.parametrize("seconds", [1, 200])
def test_silence_never_reaches_the_engine(seconds: int) -> None:
    engine = FakeEngine()
    turns, transcript = run(engine, bytes(2 * RATE * seconds))
    assert engine.calls == []
    assert (transcript.text, transcript.segments) == ("", ())
    assert transcript.audio_seconds == seconds
    # Silence takes several turns, because other jobs may be waiting.
    assert len(turns) >= seconds // 61


def test_transcript_of_a_truncated_file_is_marked() -> None:
    data = encoded(tone(4 * RATE), format="WAV")
    _, transcript = run(FakeEngine(), data[: len(data) // 2], raw=None)
    assert transcript.truncated
    assert transcript.audio_seconds == pytest.approx(2.0, abs=0.01)


# Prompts.


def test_text_of_a_window_is_the_prompt_of_the_next() -> None:
    engine = answers(
        hypothesis_of("first", 20.5), hypothesis_of("second", 20.5), hypothesis_of("third", 12.0)
    )
    run(engine, three_phrases(), prompt="")
    assert prompts(engine) == ["", "first", "second"]


def test_given_prompt_precedes_the_carried_text() -> None:
    for fields in ({"prompt": "Grüezi"}, {"prompt": ""}):
        engine = answers(
            hypothesis_of("first", 20.5), hypothesis_of("second", 20.5), hypothesis_of("x", 12.0)
        )
        body = three_phrases()
        run(engine, body, **fields)
        given = fields["prompt"]
        assert [options.carried for _, options in engine.calls] == ["", "first", "second"]
        assert prompts(engine) == [given, f"{given} first".strip(), f"{given} second".strip()]


def test_prompt_of_the_request_replaces_that_of_the_node() -> None:
    engine = FakeEngine()
    data = pcm(2 * RATE)
    body = body_of(data)
    limits = JobSettings(60.0, 0.5, "en", "the node's", "fake")
    for prompt, expected in (("mine", "mine"), ("", "the node's")):
        request = Request("r", len(data), RAW, prompt=prompt)
        work = Transcription(Job(1, 1, request, body, 0.0), engine, FakeDetector(), limits)
        while not work.turn()[1]:
            pass
        work.close()
        assert prompts(engine)[-1] == expected
    body.close()


@pytest.mark.parametrize(
    "poor",
    [
        hypothesis_of("well well well well well well well well well " * 5, 20.5),
        hypothesis_of("a guess", 20.5, logprob=-0.9),
        hypothesis_of("", 20.5),
    ],
    ids=["repetition", "improbable", "nothing"],
)
def test_poor_text_is_not_carried(poor: Hypothesis) -> None:
    engine = answers(poor, hypothesis_of("second", 20.5), hypothesis_of("third", 12.0))
    run(engine, three_phrases())
    assert prompts(engine) == ["", "", "second"]


def test_carried_text_has_a_limit() -> None:
    # Random letters, because text that compresses well is not carried at all.
    random = np.random.default_rng(3)
    words = " ".join("".join(random.choice(list("abcdefghijklmnopqr"), 7)) for _ in range(400))
    engine = answers(hypothesis_of(words, 20.5), hypothesis_of("b", 20.5), hypothesis_of("c", 12.0))
    run(engine, three_phrases(), prompt="given")
    carried = prompts(engine)[1]
    assert carried.startswith("given ")
    assert words.endswith(carried.removeprefix("given "))
    assert len(carried) > 100
    assert len(carried) < 1000


# Languages.


def test_first_detected_language_holds_for_the_rest() -> None:
    engine = answers(
        hypothesis_of("eins", 20.5, "de"),
        hypothesis_of("zwei", 20.5, "de"),
        hypothesis_of("drei", 12.0, "de"),
    )
    _, transcript = run(engine, three_phrases(), language="auto")
    assert [options.language for _, options in engine.calls] == ["auto", "de", "de"]
    assert transcript.language == "de"


def test_language_of_the_request_replaces_that_of_the_node() -> None:
    engine = FakeEngine()
    data = pcm(2 * RATE)
    body = body_of(data)
    limits = JobSettings(60.0, 0.5, "auto", "", "fake")
    request = Request("r", len(data), RAW, language="de", task="translate")
    work = Transcription(Job(1, 1, request, body, 0.0), engine, FakeDetector(), limits)
    while not work.turn()[1]:
        pass
    work.close()
    body.close()
    [(_, options)] = engine.calls
    assert (options.language, options.translate) == ("de", True)


def test_silence_has_no_detected_language() -> None:
    assert run(FakeEngine(), bytes(2 * RATE), language="auto")[1].language is None
    assert run(FakeEngine(), bytes(2 * RATE), language="en")[1].language == "en"


# Whisper stopped early.


def test_rest_of_a_window_is_decoded_again() -> None:
    """The fake engine transcribes only the first 8 s of its samples."""

    def answer(samples: Samples, options: DecodeOptions) -> Hypothesis:
        return hypothesis_of("x", min(8.0, len(samples) / RATE))

    engine = FakeEngine(answer)
    _, transcript = run(engine, pcm(20 * RATE))
    ends = [segment.end for segment in transcript.segments]
    assert ends == pytest.approx([8.0, 16.0, 20.0], abs=0.1)
    # Audio that was in an earlier window counts only if the engine is sure.
    assert [options.only_sure for _, options in engine.calls] == [False, True, True]


def test_new_audio_is_always_decoded() -> None:
    on = hypothesis_of("on and on", 30.0)
    engine = answers(hypothesis_of("half of it", 10.0), *[on] * 9)
    run(engine, three_phrases())
    # The rest of the first window is decoded together with the following audio.
    assert not any(options.only_sure for _, options in engine.calls)
    assert len(engine.calls) >= 3


def test_job_ends_if_the_engine_hardly_advances() -> None:
    for end in (0.0, 0.5, 1.0):
        engine = FakeEngine(lambda _samples, _options, end=end: hypothesis_of("x", end))
        run(engine, three_phrases())
        assert len(engine.calls) <= 60


def test_seconds_left_decrease_to_zero() -> None:
    data = three_phrases()
    body = body_of(data)
    job = Job(1, 1, Request("r", len(data), RAW), body, 0.0)
    work = Transcription(job, FakeEngine(), FakeDetector(), JobSettings(3600, 0.5, "en", "", "m"))
    assert job.guessed_seconds == 54.0
    left = [work.seconds_left]
    while not work.turn()[1]:
        left.append(work.seconds_left)
    left.append(work.seconds_left)
    work.close()
    body.close()
    assert left[0] == 54.0
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0.0


@pytest.mark.parametrize(
    ("raw", "size", "seconds"),
    [
        (RawFormat("s24", 8000, 2, "little"), 48_000, 1.0),
        (RawFormat("u8", 8000, 1, "little"), 8_000, 1.0),
        (RawFormat("f32", 16_000, 1, "big"), 64_000, 1.0),
        (None, 16_000, 1.0),
    ],
)
def test_job_guesses_its_length_from_the_size(
    raw: RawFormat | None, size: int, seconds: float
) -> None:
    body = body_of(bytes(size))
    assert Job(1, 1, Request("r", size, raw), body, 0.0).guessed_seconds == seconds
    body.close()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_temperature_is_that_of_the_request(temperature: float) -> None:
    engine = FakeEngine()
    run(engine, pcm(RATE), temperature=temperature)
    assert [options.temperature for _, options in engine.calls] == [temperature]


LONG = "Alpha beta gamma delta epsilon. Zeta eta theta iota kappa lambda mu nu xi omicron pi rho."


def answer_long(samples: Samples, _options: DecodeOptions) -> Hypothesis:
    end = len(samples) / RATE
    return Hypothesis((Segment(0.0, end, LONG, 0.9),), "en", -0.1, end)


def test_request_for_cues_gets_segments_of_that_size() -> None:
    _, whole = run(FakeEngine(answer_long), pcm(8 * RATE))
    _, divided = run(FakeEngine(answer_long), pcm(8 * RATE), cues=CueLayout(30, 2, 5.0))
    assert [segment.lines for segment in whole.segments] == [None]
    assert divided.text == whole.text == LONG
    assert len(divided.segments) > 1
    assert " ".join(segment.text for segment in divided.segments) == LONG
    for segment in divided.segments:
        assert segment.lines is not None
        assert " ".join(segment.lines) == segment.text
        assert max(map(len, segment.lines)) <= 30
        assert segment.end - segment.start <= 5.0


def test_cues_in_a_script_without_spaces_do_not_change_the_text() -> None:
    text = "\u65e5\u672c\u8a9e" * 30

    def answer(samples: Samples, _options: DecodeOptions) -> Hypothesis:
        end = len(samples) / RATE
        return Hypothesis((Segment(0.0, end, text, 0.9),), "ja", -0.1, end)

    _, transcript = run(FakeEngine(answer), pcm(8 * RATE), cues=CueLayout())
    assert transcript.text == text
    assert [cue.continues for cue in transcript.segments] == [False, True, True]


def test_cues_of_later_windows_count_from_the_start_of_the_audio() -> None:
    turns, transcript = run(FakeEngine(answer_long), three_phrases(), cues=CueLayout())
    assert [segment for turn in turns for segment in turn] == list(transcript.segments)
    starts = [segment.start for segment in transcript.segments]
    assert starts == sorted(starts)
    assert starts[-1] > 41.0
    assert transcript.text == " ".join([LONG] * 3)


@pytest.mark.parametrize(
    ("data", "windows"),
    [(bytes(2 * 40 * RATE), [30 * RATE]), (pcm(2 * RATE), [2 * RATE, 2 * RATE])],
    ids=["silence", "noise without words"],
)
def test_detection_without_words_tells_the_language_of_the_beginning(
    data: bytes, windows: list[int]
) -> None:
    def engine() -> FakeEngine:
        guess = replace(hypothesis_of("", 1.0, "haw"), language_probability=0.125)
        return FakeEngine(lambda _samples, _options: guess)

    used = engine()
    _, transcript = run(used, data, language="auto", detect_only=True)
    assert (transcript.language, transcript.language_probability) == ("haw", 0.125)
    assert (transcript.text, transcript.segments) == ("", ())
    assert [len(samples) for samples, _ in used.calls] == windows
    assert all(options.language == "auto" for _, options in used.calls)
    assert run(engine(), data, language="auto")[1].language is None
