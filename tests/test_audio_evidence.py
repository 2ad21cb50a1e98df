"""Measurements of the audio to check a text: its loud seconds, and its repetitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from benchmark import degrade
from benchmark.noises import NOISES

from app.audio.samples import SAMPLE_RATE, Samples
from app.decoding.audio_evidence import AudioEvidence

_STEREO, _RATE = soundfile.read(Path(__file__).parent / "audio" / "jfk.flac", always_2d=True)
SPEECH = soxr.resample(_STEREO.mean(axis=1).astype(np.float32), _RATE, SAMPLE_RATE)
PHRASE = SPEECH[: int(2.2 * SAMPLE_RATE)]
"""And so my fellow Americans."""


def times(count: int, gap: float, part: Samples = PHRASE) -> Samples:
    silence = np.zeros(int(gap * SAMPLE_RATE), dtype=np.float32)
    return np.concatenate([part, *[np.concatenate([silence, part])] * (count - 1)])


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("gap", [0.0, 0.21, 0.5, 1.03])
def test_copies_are_counted(count: int, gap: float) -> None:
    assert AudioEvidence(times(count, gap)).copies == count


@pytest.mark.parametrize("length", [1.0, 2.2, 4.0, 7.0, 11.0])
def test_continuous_speech_is_one_copy(length: float) -> None:
    assert AudioEvidence(SPEECH[: int(length * SAMPLE_RATE)]).copies == 1


def test_different_parts_of_a_speech_are_no_copies() -> None:
    second = SPEECH[int(3.3 * SAMPLE_RATE) : int(5.5 * SAMPLE_RATE)]
    assert AudioEvidence(np.concatenate([PHRASE, second])).copies == 1


def test_copies_are_counted_in_noise_and_at_another_level() -> None:
    twice = times(2, 0.5)
    twice[len(PHRASE) :] *= 0.5
    noise = np.random.default_rng(1).normal(0, 0.002, len(twice)).astype(np.float32)
    assert AudioEvidence(twice + noise).copies == 2


@pytest.mark.parametrize("samples", [0, 1, 100, 640, 5_000])
def test_short_audio_gives_no_count(samples: int) -> None:
    for sound in (AudioEvidence(np.zeros(samples, np.float32)), AudioEvidence(SPEECH[:samples])):
        assert sound.copies == 1
        assert 0 <= sound.loud_seconds <= 1


def test_loud_seconds_exclude_silence() -> None:
    quiet = np.zeros(3 * SAMPLE_RATE, dtype=np.float32)
    alone = AudioEvidence(PHRASE).loud_seconds
    assert 0.5 < alone < 2.2
    assert AudioEvidence(np.concatenate([quiet, PHRASE, quiet])).loud_seconds == pytest.approx(
        alone, abs=0.3
    )


@pytest.mark.parametrize("name", ["white", "pink", "fan", "hum-and-hiss"])
@pytest.mark.parametrize("level", [-40.0, -30.0])
def test_noise_before_and_after_is_no_copy(name: str, level: float) -> None:
    random = np.random.default_rng(2)
    before, after = (
        degrade.at_level(NOISES[name](3.0, SAMPLE_RATE, random), SAMPLE_RATE, level)
        for _ in range(2)
    )
    assert AudioEvidence(np.concatenate([before, PHRASE, after])).copies == 1


def test_loud_seconds_exclude_steady_noise() -> None:
    noise = NOISES["white"](3.0, SAMPLE_RATE, np.random.default_rng(3))
    noise = degrade.at_level(noise, SAMPLE_RATE, -30.0)
    alone = AudioEvidence(PHRASE).loud_seconds
    surrounded = AudioEvidence(degrade.surrounded(PHRASE, SAMPLE_RATE, noise, 3.0))
    assert surrounded.loud_seconds == pytest.approx(alone, abs=0.5)


@pytest.mark.parametrize("level", [-50, -40, -30, -20])
@pytest.mark.parametrize(("before", "after"), [(0.5, 3.0), (3.0, 3.0), (0.0, 2.0)])
def test_steady_noise_around_speech_is_no_copy(level: int, before: float, after: float) -> None:
    random = np.random.default_rng(3)

    def noise(seconds: float) -> Samples:
        samples = random.normal(0, 10 ** (level / 20), int(seconds * SAMPLE_RATE))
        return samples.astype(np.float32)

    assert AudioEvidence(np.concatenate([noise(before), PHRASE, noise(after)])).copies == 1
