"""app/decoding/engine.py with the real whisper.cpp: its results, errors and independence of earlier
decodes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from node import HANG, JFK, ROOT, clean_environment

from app.decoding import model_context
from app.decoding.alignment import SHORTEST_SECONDS
from app.decoding.attempts import Attempt
from app.decoding.binding import pw
from app.decoding.engine import Engine
from app.decoding.hypothesis import Hypothesis
from app.decoding.raw_decoder import RawDecoderError
from app.decoding.transcriber import DecodeOptions, EngineAborted, EngineError

pytestmark = pytest.mark.slow

MODEL = ROOT / "models" / "ggml-tiny.en-q8_0.bin"
PLAIN = DecodeOptions()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(MODEL, "tiny.en-q8_0", 2, "auto")
    yield engine
    engine.close()


@pytest.fixture
def fresh() -> Iterator[Engine]:
    """An engine that a test may break."""
    engine = Engine(MODEL, "tiny.en-q8_0", 2, "auto")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def speech() -> Any:
    samples, rate = soundfile.read(JFK, dtype="float32")
    return soxr.resample(samples.mean(axis=1), rate, 16000).astype(np.float32)


def check_numbers(hypothesis: Hypothesis, seconds: float) -> None:
    before = 0.0
    for segment in hypothesis.segments:
        assert before <= segment.start <= segment.end <= seconds
        assert 0 <= segment.confidence <= 1
        before = segment.end
    assert np.isfinite(hypothesis.logprob)
    assert np.isfinite(hypothesis.end)


def test_engine_transcribes_the_clip(engine: Engine, speech: Any) -> None:
    hypothesis = engine.transcribe(speech, PLAIN)
    assert "ask what you can do for your country" in hypothesis.text.lower()
    assert hypothesis.language == "en"
    check_numbers(hypothesis, len(speech) / 16000)


@pytest.mark.parametrize("count", [0, 1, 199, 200, 8000])
@pytest.mark.parametrize("words", [False, True])
def test_times_stay_within_audio_of_any_length(
    engine: Engine, speech: Any, count: int, words: bool
) -> None:
    # From the middle of the clip, which contains speech.
    hypothesis = engine.transcribe(speech[16000 : 16000 + count], DecodeOptions(words=words))
    check_numbers(hypothesis, count / 16000)


def test_empty_clip_does_not_return_the_earlier_text(engine: Engine, speech: Any) -> None:
    assert "country" in engine.transcribe(speech, PLAIN).text
    assert "country" not in engine.transcribe(speech[:0], PLAIN).text


def test_strided_array_gives_the_same_result(engine: Engine, speech: Any) -> None:
    # whisper.cpp reads memory as if it were contiguous; a column of stereo is not.
    stereo = np.stack((speech, np.zeros_like(speech)), axis=1)
    column = stereo[:, 0]
    assert not column.flags.c_contiguous
    assert engine.transcribe(column, PLAIN) == engine.transcribe(speech, PLAIN)


def test_float64_samples_give_the_same_result(engine: Engine, speech: Any) -> None:
    double = speech.astype(np.float64)
    assert engine.transcribe(double, PLAIN) == engine.transcribe(speech, PLAIN)


def test_decode_does_not_depend_on_earlier_ones(engine: Engine, speech: Any) -> None:
    first = engine.transcribe(speech, PLAIN)
    engine.transcribe(speech[:48000], DecodeOptions(words=True, prompt="Mr. Wordsworth, Esq."))
    generator = np.random.default_rng(1)
    engine.transcribe(generator.normal(0, 0.05, 80000).astype(np.float32), PLAIN)
    assert astuple(engine.transcribe(speech, PLAIN)) == astuple(first)


def test_sampling_differs_from_greedy_and_is_repeatable(engine: Engine, speech: Any) -> None:
    # Noisy speech is ambiguous, so that greedy decoding and sampling give different results.
    noise = np.random.default_rng(1).normal(0, 0.1, 32000).astype(np.float32) + speech[16000:48000]
    greedy = engine.transcribe(noise, PLAIN)
    drawn = [engine.transcribe(noise, DecodeOptions(temperature=1.0)) for _ in range(2)]
    assert astuple(drawn[0]) == astuple(drawn[1])
    assert (drawn[0].text, drawn[0].logprob) != (greedy.text, greedy.logprob)
    assert astuple(engine.transcribe(noise, PLAIN)) == astuple(greedy)


def test_words_form_the_text_of_their_segment(engine: Engine, speech: Any) -> None:
    plain = engine.transcribe(speech, PLAIN)
    timed = engine.transcribe(speech, DecodeOptions(words=True))
    assert timed.text == plain.text
    assert all(segment.words is None for segment in plain.segments)
    for segment in timed.segments:
        assert segment.words
        assert " ".join(word.text for word in segment.words) == segment.text
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)


BEGINS = {0: 0.29, 5: 3.25, 7: 5.37, 14: 8.15}
ENDS = {4: 2.16, 6: 4.3, 13: 7.67, 21: 10.46}
"""The begins and ends of the words beside pauses, by pocketsphinx's forced alignment."""


@pytest.mark.parametrize("prompt", ["", "Notes from the meeting, 2024."])
def test_words_have_the_times_of_forced_alignment(engine: Engine, speech: Any, prompt: str) -> None:
    hypothesis = engine.transcribe(speech, DecodeOptions(words=True, prompt=prompt))
    words = [word for segment in hypothesis.segments for word in segment.words or ()]
    assert len(words) == 22
    before = 0.0
    for word in words:
        assert before <= word.start <= word.end - SHORTEST_SECONDS + 1e-6
        before = word.end
    for index, begin in BEGINS.items():
        assert words[index].start == pytest.approx(begin, abs=0.15)
    for index, end in ENDS.items():
        # Soft endings are below the level that counts as loud.
        assert words[index].end == pytest.approx(end, abs=0.3)


def test_decode_with_words_ends_before_the_limit_of_whisper_cpp(engine: Engine) -> None:
    """At the limit itself it would align what it has up to its last timestamp, and abort the
    process where that is too little."""
    limit = pw.whisper_n_text_ctx(engine._model.handle) // 2 - 4
    for most_tokens in (0, limit):
        attempt = Attempt(1500, "", most_tokens=most_tokens)
        assert engine._parameters(PLAIN, attempt).max_tokens == limit
        params = engine._parameters(DecodeOptions(words=True), attempt)
        assert 0 < params.max_tokens < limit - 1


NOTES = DecodeOptions(prompt="Notes from the meeting, 2024.")


def spans(hypothesis: Hypothesis) -> list[tuple[float, float]]:
    return [(segment.start, segment.end) for segment in hypothesis.segments]


def test_prompt_does_not_change_the_segments(engine: Engine, speech: Any) -> None:
    plain, prompted = engine.transcribe(speech, PLAIN), engine.transcribe(speech, NOTES)
    # The pause between the two halves of the sentence is at 7.7 to 8.1 s.
    assert np.array(spans(plain)) == pytest.approx(np.array([(0.2, 7.7), (8.1, 11.0)]), abs=0.4)
    assert np.array(spans(prompted)) == pytest.approx(np.array(spans(plain)), abs=0.4)
    check_numbers(prompted, len(speech) / 16000)


def unreachable(*_: object) -> None:
    raise RawDecoderError("not exported")


def test_long_segments_are_divided_without_the_raw_decoder(
    fresh: Engine, speech: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_context, "attach", unreachable)
    fresh._model.load(fresh._model._mode)
    prompted = fresh.transcribe(speech, NOTES)
    assert np.array(spans(prompted)) == pytest.approx(np.array([(0.2, 7.7), (8.1, 11.0)]), abs=0.4)


def test_placed_timestamps_change_neither_text_nor_next_decode(
    fresh: Engine, speech: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = np.concatenate((speech, np.zeros(8000, np.float32), speech))
    first, prompted = fresh.transcribe(long, PLAIN), fresh.transcribe(long, NOTES)
    assert fresh.transcribe(long, PLAIN) == first
    monkeypatch.setattr(model_context, "attach", unreachable)
    fresh._model.load(fresh._model._mode)
    assert fresh.transcribe(long, NOTES).text == prompted.text
    assert all(end - start <= 8.0 for start, end in spans(prompted))


def test_failed_call_raises_instead_of_returning_old_text(
    fresh: Engine, speech: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The context of whisper.cpp still contains this text when the next call fails.
    assert fresh.transcribe(speech, PLAIN).text
    with monkeypatch.context() as patch:
        patch.setattr(pw, "whisper_full", lambda *_: -6)
        with pytest.raises(EngineError, match="-6"):
            fresh.transcribe(speech, PLAIN)
    assert fresh.transcribe(speech, PLAIN).text


def test_failure_of_whisper_cpp_raises_an_error(
    fresh: Engine, speech: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real whisper_full with a parameter that it rejects.
    full = pw.whisper_full

    def refused(context: Any, params: Any, samples: Any, count: int) -> int:
        params.audio_ctx = 100_000
        return int(full(context, params, samples, count))

    assert fresh.transcribe(speech, PLAIN).text
    monkeypatch.setattr(pw, "whisper_full", refused)
    with pytest.raises(EngineError):
        fresh.transcribe(speech, PLAIN)


def test_abort_ends_the_decode_in_progress(fresh: Engine, speech: Any) -> None:
    begun = threading.Event()
    ended: list[object] = []

    def work() -> None:
        try:
            while True:
                begun.set()
                ended.append(fresh.transcribe(speech, PLAIN))
        except EngineAborted as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    begun.wait(HANG)
    fresh.abort()
    thread.join(HANG)
    assert not thread.is_alive()
    assert isinstance(ended[-1], EngineAborted)


def test_abort_holds_for_later_decodes(fresh: Engine, speech: Any) -> None:
    fresh.abort()
    with pytest.raises(EngineAborted):
        fresh.transcribe(speech, PLAIN)


def test_file_that_is_no_model_raises_an_error(tmp_path: Any) -> None:
    path = tmp_path / "text.bin"
    path.write_text("This is no model.\n" * 100)
    with pytest.raises(EngineError):
        Engine(path, "text", 1, "auto")


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from app.startup import logs
from app.decoding.engine import Engine
from app.decoding.transcriber import DecodeOptions

logs.configure(True, True)
engine = Engine(Path(sys.argv[1]), "tiny.en-q8_0", 1, "auto")
engine.transcribe(np.zeros(16000, dtype=np.float32), DecodeOptions())
engine.close()
"""


def note_loads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Record for each later load of a model whether it uses flash attention."""
    loads: list[bool] = []
    load = pw.whisper_init_from_file_with_params

    def note(path: str, params: Any) -> Any:
        loads.append(params.flash_attn)
        return load(path, params)

    monkeypatch.setattr(pw, "whisper_init_from_file_with_params", note)
    return loads


def test_flash_attention_is_used_only_with_the_full_context(
    fresh: Engine, speech: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a reduced context it reads the remains of an earlier request; with the full context it
    saves memory."""
    loads = note_loads(monkeypatch)
    short, long = speech[: 3 * 16_000], np.pad(speech, (0, 3 * 16_000))
    before = fresh.transcribe(short, PLAIN)
    fresh.rest()
    assert loads == []
    assert fresh.transcribe(long, PLAIN).encoder_context == 1500
    assert loads == [True]
    assert fresh.transcribe(long, PLAIN).segments
    assert loads == [True]
    assert fresh.transcribe(short, PLAIN) == before
    assert loads == [True, False]
    fresh.transcribe(long, PLAIN)
    fresh.rest()
    fresh.rest()
    assert fresh.transcribe(short, PLAIN) == before
    assert loads == [True, False, True, False]


def test_alignment_is_loaded_for_words_alone(
    fresh: Engine, speech: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs a decoder pass and excludes flash attention."""
    loads: list[tuple[bool, bool]] = []
    load = pw.whisper_init_from_file_with_params

    def note(path: str, params: Any) -> Any:
        loads.append((params.flash_attn, params.dtw_token_timestamps))
        return load(path, params)

    monkeypatch.setattr(pw, "whisper_init_from_file_with_params", note)
    short, long = speech[: 3 * 16_000], np.pad(speech, (0, 3 * 16_000))
    before = fresh.transcribe(short, PLAIN)
    assert loads == []
    fresh.transcribe(short, DecodeOptions(words=True))
    fresh.transcribe(long, DecodeOptions(words=True))
    assert loads == [(False, True)]
    fresh.rest()
    assert loads == [(False, True), (False, False)]
    assert fresh.transcribe(short, PLAIN) == before
    assert len(loads) == 2


def test_model_is_loaded_once_if_all_windows_use_the_full_context(
    speech: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = note_loads(monkeypatch)
    engine = Engine(MODEL, "tiny.en-q8_0", 2, "full")
    engine.warm_up()
    assert engine.transcribe(speech, PLAIN).encoder_context == 1500
    engine.rest()
    engine.close()
    assert loads == [True]


def test_log_callback_is_removed_before_the_interpreter_ends() -> None:
    # A callback that stays installed aborts the process at exit with status 134.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(MODEL)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert b"whisper" in done.stderr, "the callback was never called, so the test proves nothing"


PHRASE_SECONDS = 2.5
PHRASE = ["and", "so", "my", "fellow", "americans"]

INSTRUCTION = "Transcribe the audio exactly. The speaker may mention Kubernetes and PostgreSQL."


def spoken_words(hypothesis: Hypothesis) -> list[str]:
    return hypothesis.text.lower().replace(",", "").replace(".", "").split()


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("gap", [0.2, 0.5])
def test_repeated_phrase_is_complete_after_the_first_decode(
    engine: Engine, speech: Any, count: int, gap: float
) -> None:
    phrase = speech[: int(PHRASE_SECONDS * 16000)]
    silence = np.zeros(int(gap * 16000), dtype=np.float32)
    several = np.concatenate([part for _ in range(count) for part in (phrase, silence)])
    hypothesis = engine.transcribe(several, PLAIN)
    assert spoken_words(hypothesis) == PHRASE * count
    assert hypothesis.passes == 1


@pytest.mark.parametrize("prompt", [INSTRUCTION, "Kennedy, Khrushchev, Adenauer", "Umm, well."])
def test_prompt_does_not_double_a_phrase(engine: Engine, speech: Any, prompt: str) -> None:
    phrase = speech[: int(PHRASE_SECONDS * 16000)]
    hypothesis = engine.transcribe(phrase, DecodeOptions(prompt=prompt))
    assert spoken_words(hypothesis) == PHRASE
    assert hypothesis.encoder_context < 1_500


@pytest.mark.parametrize("filler", ["word, ", "x", " ", "\u65e5"])
def test_longest_prompt_is_used_by_its_end(engine: Engine, speech: Any, filler: str) -> None:
    end = " The president spoke of his fellow Amerikans and of their Kountry."
    room = 16_384 - len(end)
    long = filler * (room // len(filler.encode())) + end
    phrase = speech[: int(PHRASE_SECONDS * 16000)]
    assert engine.transcribe(phrase, DecodeOptions(prompt=long)).text


def test_tokens_equal_those_of_whisper_cpp(engine: Engine, speech: Any) -> None:
    """A prompt gives the same decode through our tokens and through `initial_prompt`."""
    text = " Grüezi mitenand, it's 1961's inauguration;  Mr. O'Neill"
    _, *tokens, _, _ = engine._prompts.encode(text, "", 223)
    params = pw.whisper_full_default_params(pw.WHISPER_SAMPLING_GREEDY)
    found = []
    for ours in (True, False):
        params = pw.whisper_full_default_params(pw.WHISPER_SAMPLING_GREEDY)
        params.no_context, params.single_segment = True, True
        params.print_progress = False
        params.n_threads = 2
        if ours:
            params.set_prompt_tokens(tokens)
        else:
            params.initial_prompt = text
        assert pw.whisper_full(engine._model.handle, params, speech[:48000], 48000) == 0
        count = pw.whisper_full_n_tokens(engine._model.handle, 0)
        data = [pw.whisper_full_get_token_data(engine._model.handle, 0, at) for at in range(count)]
        found.append([(one.id, one.plog) for one in data])
    assert found[0] == found[1]


@pytest.mark.parametrize("at", [0.0, 0.9, 3.4, 5.0, 8.2])
@pytest.mark.parametrize("length", [0.2, 0.3, 0.7, 1.5])
@pytest.mark.parametrize("prompt", ["", INSTRUCTION])
def test_fragment_never_uses_the_full_context(
    engine: Engine, speech: Any, at: float, length: float, prompt: str
) -> None:
    part = speech[int(at * 16000) : int((at + length) * 16000)]
    hypothesis = engine.transcribe(part, DecodeOptions(prompt=prompt))
    assert hypothesis.encoder_context < 1_500
    assert hypothesis.passes <= (3 if prompt else 2)
