"""Streams and commands with the real detector and the real engine. The speech is jfk.flac."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
import soxr
from benchmark import degrade
from benchmark.noises import NOISES
from fakes import RATE, Samples
from live import LiveBench
from node import JFK, ROOT

from app.audio.vad import SileroDetector
from app.decoding.engine import Engine
from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions
from app.live import LiveOptions, Partial
from app.messages import RawFormat, Streamed, Transcript, Utterance

pytestmark = pytest.mark.slow

MODEL = ROOT / "models" / "ggml-tiny.en-q8_0.bin"


class CountingEngine:
    """The real engine with a counter of its decodes."""

    def __init__(self) -> None:
        self._engine = Engine(MODEL, "tiny.en-q8_0", 2, "auto")
        self.calls = 0

    def warm_up(self) -> None:
        self._engine.warm_up()

    def rest(self) -> None:
        self._engine.rest()

    def abort(self) -> None:
        self._engine.abort()

    def close(self) -> None:
        self._engine.close()

    def transcribe(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        self.calls += 1
        return self._engine.transcribe(samples, options)


@pytest.fixture(scope="module")
def bench() -> Iterator[LiveBench]:
    engine = CountingEngine()
    bench = LiveBench(engine, SileroDetector)  # type: ignore[arg-type]
    yield bench
    bench.close()
    engine.close()


def microphone(samples: Samples, seconds_after: float) -> bytes:
    """The samples with the hiss of a quiet room after them."""
    hiss = np.random.default_rng(3).standard_normal(int(seconds_after * RATE)) * 1e-3
    joined = np.concatenate((samples, hiss.astype(np.float32)))
    return bytes((np.clip(joined, -1, 1) * 32767).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def speech() -> Samples:
    samples, rate = soundfile.read(JFK, dtype="float32")
    resampled: Samples = soxr.resample(samples.mean(axis=1), rate, RATE).astype(np.float32)
    return resampled


def words(text: str) -> list[str]:
    return "".join(each for each in text.lower() if each.isalpha() or each == " ").split()


def play(bench: LiveBench, number: int, data: bytes) -> None:
    """Send audio in packets; the worker does all that it can before the next one."""
    for at in range(0, len(data), 3200):
        bench.worker.feed(number, data[at : at + 3200])
        bench.settled()


def test_command_at_its_pace_has_the_text_of_the_file_without_a_further_decode(
    bench: LiveBench, speech: Samples
) -> None:
    data = microphone(speech, 1.0)
    number, file = bench.listen(), bench.listen()
    bench.worker.cancel(file)
    play(bench, number, data)
    calls = bench.engine.calls
    bench.submit(number, data)
    heard = bench.outcome(number)
    assert bench.engine.calls == calls
    bench.submit(file, data)
    transcribed = bench.outcome(file)
    assert isinstance(heard, Transcript)
    assert isinstance(transcribed, Transcript)
    assert words(heard.text) == words(transcribed.text)
    assert len(words(heard.text)) == 22
    assert heard.audio_seconds == transcribed.audio_seconds
    assert heard.segments[-1].end <= len(speech) / RATE + 0.3


def test_stream_gives_the_same_text_in_any_packets(bench: LiveBench, speech: Samples) -> None:
    data = microphone(speech, 0.6) + microphone(speech[: 5 * RATE], 1.0)
    heard = []
    for size in (len(data), 7919):
        number = bench.listen(LiveOptions())
        bench.feed(number, data, [size] * (len(data) // size))
        bench.worker.end(number)
        outcome = bench.outcome(number)
        assert isinstance(outcome, Streamed)
        heard.append([r for r in bench.replies(number) if isinstance(r, Utterance)])
        assert outcome.utterances == len(heard[-1]) >= 2
    assert heard[0] == heard[1]
    text = " ".join(segment.text for each in heard[0] for segment in each.segments)
    assert "ask what you can do for your country" in " ".join(words(text))


def test_partials_of_speech_only_grow_in_their_stable_part(
    bench: LiveBench, speech: Samples
) -> None:
    number = bench.listen(LiveOptions(partials=True, end_pause=None))
    play(bench, number, microphone(speech[: 6 * RATE], 1.0))
    bench.worker.end(number)
    assert isinstance(bench.outcome(number), Streamed)
    shown = [reply for reply in bench.replies(number) if isinstance(reply, Partial)]
    assert len(shown) >= 3
    assert all(b.stable.startswith(a.stable) for a, b in itertools.pairwise(shown))
    assert words(shown[-1].stable)[:5] == ["and", "so", "my", "fellow", "americans"]


def test_telephone_stream_is_understood(bench: LiveBench, speech: Samples) -> None:
    narrow = soxr.resample(speech, RATE, 8000)
    data = bytes((np.clip(narrow, -1, 1) * 32767).astype(">i2").tobytes())
    number = bench.listen(LiveOptions(), raw=RawFormat("s16", 8000, 1, "big"), reply="transcript")
    bench.feed(number, data)
    bench.worker.end(number)
    outcome = bench.outcome(number)
    assert isinstance(outcome, Transcript)
    assert "your country can do for you" in " ".join(words(outcome.text))


@pytest.mark.parametrize("name", sorted(NOISES))
def test_noise_gives_no_text(bench: LiveBench, name: str) -> None:
    """It costs no decode either, except for a rustle that the detector takes for speech."""
    calls = bench.engine.calls
    number = bench.listen(LiveOptions())
    noise = degrade.gained(NOISES[name](8.0, RATE, np.random.default_rng(4)), -30.0)
    bench.feed(number, microphone(noise, 0.5))
    bench.worker.end(number)
    outcome = bench.outcome(number)
    assert isinstance(outcome, Streamed)
    assert outcome.segments == 0
    assert bench.engine.calls == calls or name == "rustle"
