"""Samples beyond full scale are scaled instead of clipped, in blocks of any size; damaged samples
do not change the scale."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import RATE, Samples, encoded, tone
from test_audio import Decoded, far, pack

from app.audio.range import RangeKeeper
from app.messages import RawFormat


def kept(samples: Samples, size: int = RATE) -> Samples:
    """`samples`, shape [n], passed through the range keeper in blocks of `size`."""
    keeper = RangeKeeper(RATE)
    blocks = []
    for at in range(0, len(samples), size):
        block = samples[at : at + size, None].copy()
        keeper.keep(block)
        blocks.append(block[:, 0])
    made = np.concatenate(blocks)
    assert np.isfinite(made).all()
    assert np.abs(made).max() <= 1.0
    return made


def likeness(one: Samples, other: Samples) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def test_samples_in_range_pass_unchanged() -> None:
    wave = tone(3 * RATE) * 2
    assert np.array_equal(kept(wave), wave)


@pytest.mark.parametrize("factor", [1.01, 3.0, 7.0, 60.0])
def test_loud_floats_are_divided_by_their_peak(factor: float) -> None:
    wave = tone(3 * RATE) * 2
    assert far(kept(wave * np.float32(factor)), wave) < 1e-3


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("level", [1.0, 0.01])
def test_integers_are_divided_by_the_scale_of_their_format(bits: int, level: float) -> None:
    wave = tone(3 * RATE) * np.float32(level)
    whole = np.rint(wave.astype(np.float64) * 2 ** (bits - 1)).astype(np.float32)
    made = kept(whole)
    # A quiet 24-bit recording may look like a loud 16-bit one.
    assert likeness(made, wave) > 0.9999
    if level == 1.0:
        assert far(made, wave) < 1e-3


def test_noise_before_integer_speech_stays_noise() -> None:
    random = np.random.default_rng(1)
    noise = random.integers(-3, 4, 2 * RATE).astype(np.float32)
    speech = np.rint(tone(2 * RATE) * 30_000)
    made = kept(np.concatenate((noise, speech)))
    assert np.abs(made[: 2 * RATE]).max() < 1e-3
    assert np.abs(made[2 * RATE :]).max() > 0.4


def test_louder_block_lowers_the_gain_smoothly() -> None:
    begin, fade = 5 * RATE // 2, RATE // 50
    wave = tone(5 * RATE) * 2
    wave[begin:] *= 4
    made = kept(wave)
    assert far(made[: begin - fade], wave[: begin - fade]) < 1e-6
    assert far(made[begin + fade :], wave[begin + fade :] / 4) < 1e-3
    # No step is greater than the steps of the wave itself.
    own = np.abs(np.diff(tone(RATE) * 2)).max()
    assert np.abs(np.diff(made)).max() < 1.5 * own


@pytest.mark.parametrize("glitch", [1e30, 1e9, 40_000.0, 20.0, np.inf, np.nan, -1e30])
@pytest.mark.parametrize("at", [100, RATE + 5, 3 * RATE - 1])
def test_single_glitch_does_not_silence_the_rest(glitch: float, at: int) -> None:
    wave = tone(3 * RATE) * 2
    spoilt = wave.copy()
    spoilt[at] = glitch
    made = kept(spoilt)
    others = np.arange(len(wave)) != at
    assert far(made[others], wave[others]) < 1e-6


def test_gain_recovers_after_a_burst_of_damage() -> None:
    wave = tone(8 * RATE)
    wave[RATE : RATE + 200] = 1e6
    made = kept(wave)
    assert far(made[6 * RATE :], wave[6 * RATE :]) < 1e-6


@pytest.mark.parametrize("size", [1, 160, 1_000, RATE, 10 * RATE])
def test_result_is_independent_of_the_block_size(size: int) -> None:
    wave = tone(2_000 if size == 1 else 3 * RATE) * 8
    made = kept(wave, size)
    assert likeness(made[RATE // 50 :], wave[RATE // 50 :]) > 0.99


def test_samples_that_are_all_damaged_give_silence() -> None:
    assert not kept(np.full(RATE, 1e35, dtype=np.float32)).any()


@pytest.mark.parametrize("kind", ["WAV", "AU", "CAF", "AIFF", "W64"])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("factor", [8.0, 32_768.0])
def test_float_files_of_every_format_are_scaled(kind: str, subtype: str, factor: float) -> None:
    wave = tone(2 * RATE)
    samples = np.rint(wave * factor) if factor > 8 else wave * factor
    made = Decoded(encoded(samples, format=kind, subtype=subtype)).samples
    assert likeness(made, wave) > 0.9999
    assert np.abs(made).max() <= 1.0


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_raw_floats_in_integer_range_are_scaled(byteorder: str) -> None:
    wave = tone(2 * RATE, channels=2)
    data = pack(np.rint(wave * 32_767), "f32", byteorder)
    made = Decoded(data, RawFormat("f32", RATE, 2, byteorder)).samples  # type: ignore[arg-type]
    assert far(made, wave[:, 0]) < 1e-3
