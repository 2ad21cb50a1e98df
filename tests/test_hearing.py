"""Difficult recordings through the real detector and the real engine: quiet, with an offset,
whispered, on one of several channels, out of range, and without speech. The speech is jfk.flac;
`test_field.py` has recordings that are not part of the project."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import soundfile
import soxr
from benchmark import degrade
from benchmark.noises import NOISES
from fakes import RATE, Samples, body_of, encoded
from node import JFK, ROOT

from app.audio.probe import ChannelProbe
from app.audio.vad import SileroDetector
from app.decoding.engine import Engine
from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions
from app.messages import Request, Transcript
from app.worker.job import Job, JobSettings, Transcription

pytestmark = pytest.mark.slow

MODEL = ROOT / "models" / "ggml-tiny.en-q8_0.bin"
SAID = "ask not what your country can do for you"


class CountingEngine:
    """The real engine with a counter of its decodes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.calls = 0

    def warm_up(self) -> None:
        self._engine.warm_up()

    def rest(self) -> None:
        self._engine.rest()

    def transcribe(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        self.calls += 1
        return self._engine.transcribe(samples, options)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(MODEL, "tiny.en-q8_0", 2, "auto")
    yield engine
    engine.close()


@pytest.fixture
def counting(engine: Engine) -> CountingEngine:
    return CountingEngine(engine)


@pytest.fixture(scope="module")
def speech() -> Samples:
    """The clip at -20 dB, so that it can be amplified without clipping."""
    samples, rate = soundfile.read(JFK, dtype="float32")
    mono = soxr.resample(samples.mean(axis=1), rate, RATE).astype(np.float32)
    return degrade.at_level(mono, RATE, -20.0)


def transcribe(data: bytes, engine: CountingEngine) -> Transcript:
    body = body_of(data)
    settings = JobSettings(3600.0, 0.5, "en", "", "tiny.en")
    job = Job(1, 1, Request("1", None), body, 0.0)
    probe = ChannelProbe(SileroDetector, 0.5)
    work = Transcription(job, engine, SileroDetector(), settings, probe)
    while not work.turn()[1]:
        pass
    made = work.transcript()
    work.close()
    body.close()
    return made


def plain_text(data: bytes, engine: CountingEngine) -> str:
    """The text without case and punctuation, which may differ between correct texts."""
    letters = transcribe(data, engine).text.lower().replace(",", "").replace(".", "")
    return " ".join(letters.split())


@pytest.mark.parametrize(
    ("level", "subtype"), [(-70, "FLOAT"), (-70, "PCM_24"), (-60, "PCM_24"), (-50, "PCM_16")]
)
def test_quiet_speech_is_transcribed(
    level: float, subtype: str, speech: Samples, counting: CountingEngine
) -> None:
    data = encoded(degrade.at_level(speech, RATE, level), subtype=subtype)
    assert SAID in plain_text(data, counting)


@pytest.mark.parametrize("level", [-20.0, -60.0])
def test_speech_with_an_offset_is_transcribed(
    level: float, speech: Samples, counting: CountingEngine
) -> None:
    data = encoded(degrade.offset(degrade.at_level(speech, RATE, level), 0.5), subtype="PCM_24")
    assert SAID in plain_text(data, counting)


def test_whispered_speech_is_transcribed(speech: Samples, counting: CountingEngine) -> None:
    data = encoded(degrade.whispered(speech, RATE, np.random.default_rng(1)))
    assert "what you can do for your country" in plain_text(data, counting)


CHANNELS: dict[str, Callable[[Samples], Samples]] = {
    "opposite phase": degrade.opposite_phase,
    "tone": lambda speech: degrade.side_by_side(degrade.tone(len(speech), RATE), speech),
    "timecode": lambda speech: degrade.side_by_side(speech, degrade.timecode(len(speech), RATE)),
    "dead": lambda speech: degrade.side_by_side(np.zeros_like(speech), speech),
    "5.1": lambda speech: degrade.surround(
        speech, degrade.at_level(NOISES["rain"](5.0, RATE, np.random.default_rng(2)), RATE, -20)
    ),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_speech_on_one_of_several_channels_is_transcribed(
    name: str, speech: Samples, counting: CountingEngine
) -> None:
    assert SAID in plain_text(encoded(CHANNELS[name](speech)), counting)


@pytest.mark.parametrize("factor", [50.0, 32_768.0 * 5])
def test_samples_out_of_range_are_transcribed(
    factor: float, speech: Samples, counting: CountingEngine
) -> None:
    samples = speech * np.float32(factor)
    data = encoded(np.rint(samples) if factor > 1_000 else samples, subtype="FLOAT")
    assert SAID in plain_text(data, counting)


@pytest.mark.parametrize("name", ["white", "brown", "hum-50", "one-bit-dither", "silence"])
def test_silence_and_steady_noise_cost_no_decode(name: str, counting: CountingEngine) -> None:
    random = np.random.default_rng(3)
    noise = np.zeros(8 * RATE) if name == "silence" else NOISES[name](8.0, RATE, random)
    for level in (-70.0, -10.0):
        data = encoded(degrade.gained(noise.astype(np.float32), level), subtype="FLOAT")
        assert transcribe(data, counting).text == ""
    assert counting.calls == 0


@pytest.mark.parametrize("name", ["keyboard", "dripping", "wind", "crackle"])
def test_noise_that_gets_a_second_look_stays_empty(name: str, counting: CountingEngine) -> None:
    noise = degrade.gained(NOISES[name](8.0, RATE, np.random.default_rng(4)), -30.0)
    for samples in (noise, degrade.gained(noise, 40.0)):
        assert transcribe(encoded(samples, subtype="PCM_16"), counting).text == ""
    assert counting.calls <= 2
