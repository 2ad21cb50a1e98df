"""The second look: if the detector finds no speech, the engine decodes once, and its text counts
only if it is sure."""

from __future__ import annotations

import numpy as np
import pytest
from benchmark.noises import NOISES
from fakes import RATE, FakeDetector, FakeEngine, Samples, body_of, encoded, hypothesis_of

from app.audio.level import is_steady
from app.audio.vad import Detector, SileroDetector
from app.decoding.certainty import MIN_LOGPROB, is_sure
from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions
from app.messages import Request, Transcript
from app.worker.job import Job, JobSettings, Transcription

STEADY = {"white", "pink", "brown", "blue", "hum-50", "hum-60", "hum-and-hiss", "engine"}
STEADY |= {"one-bit-dither", "bit-crushed", "traffic"}


def murmur(seconds: float) -> Samples:
    """Noise in the rhythm of syllables, too quiet for the fake detector."""
    random = np.random.default_rng(6)
    loud = np.where(np.arange(int(seconds * RATE)) // 2_560 % 2, 0.03, 0.003)
    return (random.normal(0, 1, len(loud)).clip(-3, 3) * loud).astype(np.float32)


def run(
    samples: Samples,
    engine: FakeEngine,
    prompt: str = "",
    language: str = "en",
    detector: Detector | None = None,
) -> Transcript:
    body = body_of(encoded(samples, subtype="FLOAT"))
    job = Job(1, 1, Request("1", None), body, 0.0)
    settings = JobSettings(3600.0, 0.5, language, prompt, "fake")
    work = Transcription(job, engine, detector or FakeDetector(), settings)
    while not work.turn()[1]:
        pass
    made = work.transcript()
    work.close()
    body.close()
    return made


def saying(text: str, logprob: float) -> FakeEngine:
    return FakeEngine(
        lambda samples, options: hypothesis_of(text, len(samples) / RATE, "de", logprob)
    )


@pytest.mark.parametrize("seconds", [4.0, 25.0, 200.0])
def test_sure_text_is_accepted(seconds: float) -> None:
    engine = saying("turn on the lamp", -0.2)
    made = run(murmur(seconds), engine, prompt="Names: Ann.")
    assert made.text == "turn on the lamp"
    [(samples, options)] = engine.calls
    assert len(samples) <= 30 * RATE
    assert options.only_sure
    assert options.prompt == "", "a prompt makes words of noise"


@pytest.mark.parametrize(
    ("text", "logprob"), [("turn on the lamp", -0.95), ("", 0.0), ("[Music]", -0.1), ("*", -0.1)]
)
def test_unsure_text_becomes_silence(text: str, logprob: float) -> None:
    engine = saying(text, logprob)
    made = run(murmur(40.0), engine, language="auto")
    assert made.text == ""
    assert made.segments == ()
    assert made.language is None
    assert len(engine.calls) == 1


def test_second_look_happens_only_once() -> None:
    def half(samples: Samples, options: DecodeOptions) -> Hypothesis:
        return hypothesis_of("turn on", len(samples) / RATE / 2)

    engine = FakeEngine(half)
    assert run(murmur(20.0), engine).text == "turn on"
    assert len(engine.calls) == 1


@pytest.mark.parametrize("level", [0.0, 0.0001, 0.02])
def test_silence_and_steady_noise_cost_no_engine_call(level: float) -> None:
    noise = np.random.default_rng(7).normal(0, 1, 40 * RATE).clip(-4, 4) * level
    engine = saying("you", -0.1)
    assert run(noise.astype(np.float32), engine).text == ""
    assert not engine.calls


@pytest.mark.parametrize("name", NOISES)
def test_steady_noises_are_recognised_at_any_level(name: str) -> None:
    noise = NOISES[name](6.0, RATE, np.random.default_rng(8))
    for level in (1.0, 0.01, 0.001):
        if name in STEADY:
            assert is_steady(noise * np.float32(level))


@pytest.mark.parametrize("decibels", [-60, -45])
def test_quiet_window_is_amplified_for_the_engine(decibels: float) -> None:
    quiet = np.random.default_rng(9).normal(0, 1, 3 * RATE).clip(-3, 3) * 10 ** (decibels / 20)
    engine = saying("yes", -0.1)
    run(quiet.astype(np.float32), engine, detector=FakeDetector(0.01))
    [(samples, _)] = engine.calls
    assert 20 * np.log10(samples.std()) == pytest.approx(-20, abs=1)


def test_loud_window_reaches_the_engine_unchanged() -> None:
    loud = (np.random.default_rng(9).normal(0, 1, 3 * RATE).clip(-3, 3) * 0.1).astype(np.float32)
    engine = saying("yes", -0.1)
    run(loud, engine, detector=FakeDetector(0.01))
    assert np.array_equal(engine.calls[0][0], loud[: len(engine.calls[0][0])])


def test_is_sure_needs_text_and_confidence() -> None:
    assert is_sure(hypothesis_of("yes", 1.0, logprob=MIN_LOGPROB))
    assert not is_sure(hypothesis_of("yes", 1.0, logprob=MIN_LOGPROB - 0.01))
    assert not is_sure(hypothesis_of("(rain)", 1.0, logprob=0.0))


@pytest.mark.parametrize("name", NOISES)
def test_real_detector_finds_no_speech_in_amplified_noise(name: str) -> None:
    """Footsteps are the exception: the detector finds speech in them at any level."""
    if name == "footsteps":
        pytest.skip("its bursts last as long as words; the engine makes a marker of them")
    noise = NOISES[name](6.0, RATE, np.random.default_rng(9))
    for decibels in (-60, -25):
        engine = saying("", 0.0)
        run(noise * np.float32(10 ** (decibels / 20)), engine, detector=SileroDetector())
        assert all(options.only_sure for _, options in engine.calls)
