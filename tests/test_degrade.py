"""scripts/dev/benchmark/degrade.py and noises.py: each function changes only what it names."""

from __future__ import annotations

import numpy as np
import pytest
from benchmark import degrade
from benchmark.noises import NOISES
from fakes import RATE, Samples, tone


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def voice() -> Samples:
    """Half a second of a 125 Hz buzz and half a second of silence, twice."""
    pulses = np.zeros(RATE // 2, dtype=np.float32)
    pulses[::128] = 0.5
    buzz = np.convolve(pulses, np.hanning(16))[: RATE // 2]
    return np.tile(np.concatenate((buzz, np.zeros(RATE // 2))), 2).astype(np.float32)


def periodicity(samples: Samples, lag: int = 128) -> float:
    return float(np.corrcoef(samples[lag:], samples[:-lag])[0, 1])


def test_at_level_counts_the_active_part_only() -> None:
    quiet = degrade.at_level(voice(), RATE, -60.0)
    assert degrade.speech_level(quiet, RATE) == pytest.approx(-60.0, abs=0.01)
    once = degrade.speech_level(voice()[: RATE // 2], RATE)
    assert degrade.speech_level(voice(), RATE) == pytest.approx(once, abs=0.2)
    assert degrade.speech_level(np.zeros(RATE, dtype=np.float32), RATE) == -np.inf


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_quantised_keeps_whole_steps(bits: int) -> None:
    wave = tone(RATE)
    made = degrade.quantised(wave, bits)
    steps = made.astype(np.float64) * 2 ** (bits - 1)
    assert np.array_equal(steps, np.rint(steps))
    assert np.abs(made - wave).max() <= 0.5 / 2 ** (bits - 1) + 1e-7


def test_offset_clips_nothing() -> None:
    made = degrade.offset(tone(RATE) * 2, 0.5)
    assert made.max() == pytest.approx(1.0)
    assert made.mean() == pytest.approx(0.5, abs=0.01)


def test_whispered_keeps_the_envelope_and_loses_the_pitch() -> None:
    spoken = voice()
    made = degrade.whispered(spoken, RATE, random())
    assert len(made) == len(spoken)
    assert np.abs(made).max() == pytest.approx(np.abs(spoken).max())
    assert periodicity(spoken[: RATE // 2]) > 0.95
    assert abs(periodicity(made[: RATE // 2])) < 0.3
    assert made[: RATE // 2].std() > 100 * made[RATE // 2 + 1000 : RATE - 1000].std()


def test_telephone_keeps_its_band() -> None:
    def kept(hertz: float) -> float:
        wave = tone(RATE, hertz=hertz)
        return float(degrade.telephone(wave, RATE).std() / wave.std())

    assert kept(100) < 0.05
    assert kept(1000) == pytest.approx(1.0, abs=0.01)
    assert kept(5000) < 0.05


def test_opposite_phase_cancels() -> None:
    both = degrade.opposite_phase(voice())
    assert both.shape == (len(voice()), 2)
    assert not both.sum(axis=1).any()


def test_side_by_side_pads_with_silence() -> None:
    both = degrade.side_by_side(tone(100), tone(200))
    assert both.shape == (200, 2)
    assert not both[100:, 0].any()


def test_timecode_holds_a_sync_word_in_each_frame() -> None:
    rate = 48_000
    wave = degrade.timecode(rate, rate)
    crossings = np.flatnonzero(np.diff(np.sign(wave))) + 1
    # There are 4,000 half bits a second, 12 samples each. A gap of one half bit is half of a 1; a
    # gap of two is a 0.
    halves = np.rint(np.diff(crossings) / 12).astype(int)
    assert set(halves) == {1, 2}
    bits: list[int] = []
    at = 0
    while at < len(halves) - 1:
        bits.append(0 if halves[at] == 2 else 1)
        at += 1 if halves[at] == 2 else 2
    text = "".join(map(str, bits))
    assert text.count("0011111111111101") >= 23


def test_surround_has_speech_in_the_centre() -> None:
    made = degrade.surround(voice(), tone(1000))
    assert made.shape == (len(voice()), 6)
    assert np.array_equal(made[:, 2], voice())


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_full_scale_and_repeatable(name: str) -> None:
    made = NOISES[name](2.0, RATE, random(3))
    assert made.dtype == np.float32
    assert made.shape == (2 * RATE,)
    assert np.abs(made).max() == pytest.approx(1.0)
    assert np.array_equal(made, NOISES[name](2.0, RATE, random(3)))


def test_there_are_at_least_twenty_noises() -> None:
    assert len(NOISES) >= 20


def test_repeated_has_silence_between() -> None:
    said = degrade.repeated(voice(), RATE, 3, 0.5)
    each, gap = len(voice()), RATE // 2
    assert len(said) == 3 * each + 2 * gap
    for number in range(3):
        begin = number * (each + gap)
        assert np.array_equal(said[begin : begin + each], voice())
    assert not said[each : each + gap].any()


def test_surrounded_repeats_short_noise_on_both_sides() -> None:
    noise = np.array([0.1, 0.2, 0.3], dtype=np.float32)
    whole = degrade.surrounded(voice(), RATE, noise, 0.25)
    count = RATE // 4
    assert np.array_equal(whole[count:-count], voice())
    assert np.array_equal(whole[:count], whole[-count:])
    assert np.array_equal(whole[:6], [*noise, *noise])


def test_mixed_sets_the_ratio_by_the_speech() -> None:
    noise = NOISES["white"](1.0, RATE, random())
    added = degrade.mixed(voice(), RATE, noise, 20.0) - voice()
    ratio = degrade.speech_level(voice(), RATE) - degrade.speech_level(added, RATE)
    assert ratio == pytest.approx(20.0, abs=0.1)
