"""A constant offset is removed from the first sample on; samples without one are unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import RATE, Samples, tone

from app.audio.offset import OffsetRemover


def removed(samples: Samples, size: int = RATE, rate: int = RATE) -> Samples:
    remover = OffsetRemover(rate, samples.shape[1])
    blocks = []
    for at in range(0, len(samples), size):
        block = samples[at : at + size].copy()
        remover.remove(block)
        blocks.append(block)
    return np.concatenate(blocks)


def wave(seconds: float = 3.0, channels: int = 1, level: float = 0.5) -> Samples:
    made = tone(int(seconds * RATE), channels=channels, hertz=200) * np.float32(level)
    return made.reshape(-1, channels)


def test_samples_without_offset_pass_unchanged() -> None:
    samples = wave(channels=2)
    assert np.array_equal(removed(samples), samples)


@pytest.mark.parametrize("offset", [0.5, -0.25, 0.05])
@pytest.mark.parametrize("level", [0.5, 0.001])
@pytest.mark.parametrize("size", [100, 16_000, 50_000])
def test_offset_is_removed_without_a_step(offset: float, level: float, size: int) -> None:
    samples = wave(level=level)
    made = removed(samples + np.float32(offset), size)
    assert np.abs(made - samples).max() < 0.1 * level


def test_offset_is_removed_from_each_channel_separately() -> None:
    samples = wave(channels=3)
    made = removed(samples + np.array([0.5, 0.0, -0.3], dtype=np.float32))
    assert np.abs(made - samples).max() < 0.02


def test_offset_that_begins_later_is_faded_out() -> None:
    samples = wave(5.0, level=0.01)
    spoilt = samples.copy()
    spoilt[2 * RATE + 77 :] += 0.5
    made = removed(spoilt)
    assert np.array_equal(made[: 2 * RATE], samples[: 2 * RATE])
    assert np.abs(made[3 * RATE :] - samples[3 * RATE :]).max() < 1e-3


@pytest.mark.parametrize("count", [0, 1, 7, 319, 321])
def test_offset_is_removed_in_short_blocks(count: int) -> None:
    made = removed(np.full((count, 2), 0.5, dtype=np.float32)) if count else np.empty((0, 2))
    assert made.shape == (count, 2)
    assert not np.abs(made).max(initial=0.0) > 1e-6


def test_low_voice_is_kept() -> None:
    low = tone(3 * RATE, hertz=50).reshape(-1, 1)
    made = removed(low + np.float32(0.5))
    assert np.abs(made[RATE:] - low[RATE:]).max() < 0.03


@pytest.mark.parametrize("rest", [1, 7, 118, 700])
def test_short_last_block_of_noise_has_no_offset(rest: int) -> None:
    random = np.random.default_rng(rest)
    samples = random.uniform(-0.3, 0.3, (2 * RATE + rest, 1)).astype(np.float32)
    assert np.array_equal(removed(samples), samples)


def test_offset_in_short_blocks_is_found_later() -> None:
    samples = wave(5.0, level=0.01)
    spoilt = samples.copy()
    spoilt[2 * RATE + 77 :] += 0.5
    made = removed(spoilt, 1024)
    assert np.abs(made[3 * RATE :] - samples[3 * RATE :]).max() < 1e-3
