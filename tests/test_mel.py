"""The log mel spectrogram against its definition, computed in double precision."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.decoding.mel import FRAME, STEP, MelFilters, read_filters

BINS = FRAME // 2 + 1
BANDS = 80
FLOOR = np.float32((-10.0 + 4.0) / 4.0)
"""The value of silence in a window that is silent throughout."""


def triangles(bands: int = BANDS) -> Any:
    """Overlapping triangles, as mel filters are: shape [bins, bands]."""
    centres = np.linspace(1, BINS - 2, bands)
    distance = np.abs(np.arange(BINS)[:, None] - centres)
    return np.maximum(0.0, 1.0 - distance / 4.0).astype(np.float32)


def by_definition(samples: Any, weights: Any) -> Any:
    """Shape [bands, frames]: all frames that overlap the samples, before the range is limited."""
    half = FRAME // 2
    count = (len(samples) + half) // STEP + 1
    padded = np.concatenate((samples[half:0:-1], samples, np.zeros(FRAME + STEP))).astype(float)
    window = 0.5 * (1.0 - np.cos(2.0 * np.pi * np.arange(FRAME) / FRAME))
    turns = np.outer(np.arange(FRAME), np.arange(BINS)) / FRAME
    transform = np.exp(-2j * np.pi * turns)
    frames = np.array([padded[at * STEP : at * STEP + FRAME] * window for at in range(count)])
    power = np.abs(frames @ transform) ** 2
    return np.log10(np.maximum(power @ weights.astype(float), 1e-10)).T


@pytest.fixture
def noise() -> Any:
    return np.random.default_rng(1).normal(0, 0.1, 16_123).astype(np.float32)


@pytest.mark.parametrize("bands", [80, 128])
def test_spectrogram_agrees_with_its_definition(noise: Any, bands: int) -> None:
    weights = triangles(bands)
    found, within = MelFilters(weights).spectrogram(noise, 100)
    expected = by_definition(noise, weights)
    expected = np.maximum(expected, expected.max() - 8.0) / 4.0 + 1.0
    assert found.shape == (bands, 200)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert within == 1 + (len(noise) - FRAME // 2) // STEP
    count = expected.shape[1]
    assert count < 200
    assert np.abs(found[:, :count] - expected).max() < 1e-3
    assert (found[:, count:] == found[:, -1:]).all()


def test_spectrogram_is_cut_at_the_encoders_end_but_judged_as_a_whole(noise: Any) -> None:
    filters = MelFilters(triangles())
    noise[12_000:] *= 1000
    whole, _ = filters.spectrogram(noise, 100)
    cut, within = filters.spectrogram(noise, 30)
    assert np.array_equal(cut, whole[:, :60])
    assert within == 1 + (len(noise) - FRAME // 2) // STEP


def test_silence_has_the_lowest_value() -> None:
    found, _ = MelFilters(triangles()).spectrogram(np.zeros(16_000, np.float32), 60)
    assert found == pytest.approx(FLOOR)


def test_filters_are_read_from_the_head_of_a_model(tmp_path: Path) -> None:
    bands, bins = 80, BINS
    stored = np.arange(bands * bins, dtype="<f4").reshape(bands, bins)
    head = struct.pack("<I11i2i", 0x67676D6C, *range(11), bands, bins)
    path = tmp_path / "model.bin"
    path.write_bytes(head + stored.tobytes() + b"the vocabulary and the tensors")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        weights = read_filters(descriptor).weights
    finally:
        os.close(descriptor)
    assert np.array_equal(weights, stored.T)
