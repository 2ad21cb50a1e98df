"""Word edges moved out of silence, on made-up sound: a tone is loud, the rest is not."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.decoding.alignment import snap
from app.messages import Segment, Word

RATE = 16000


def sound(seconds: float, *loud: tuple[float, float], noise: float = 0.0) -> Any:
    """A window with a tone in the spans of `loud`, and noise of that level all over."""
    samples = np.random.default_rng(1).normal(0, 1, round(seconds * RATE)) * noise
    for start, end in loud:
        span = np.arange(round(start * RATE), round(end * RATE))
        samples[span] += 0.5 * np.sin(span * (2 * np.pi * 440 / RATE))
    return samples.astype(np.float32)


def snapped(samples: Any, *times: tuple[float, float]) -> list[tuple[float, float]]:
    words = tuple(Word(start, end, str(index), 0.5) for index, (start, end) in enumerate(times))
    (segment,) = snap([Segment(0.0, len(samples) / RATE, "text", 0.5, words)], samples)
    assert segment.words is not None
    assert [(word.text, word.confidence) for word in segment.words] == [
        (word.text, word.confidence) for word in words
    ]
    return [(word.start, word.end) for word in segment.words]


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_word_shrinks_to_what_is_loud_in_it(noise: float) -> None:
    samples = sound(3.0, (0.5, 1.0), (2.0, 2.5), noise=noise)
    assert snapped(samples, (0.0, 1.8), (1.8, 3.0)) == [(0.5, 1.0), (2.0, 2.5)]


def test_a_short_silence_within_a_word_stays() -> None:
    samples = sound(3.0, (0.5, 1.0), (1.2, 1.7))
    assert snapped(samples, (0.2, 2.8)) == [(0.5, 1.7)]


def test_a_word_stretched_over_a_pause_is_what_comes_behind_it() -> None:
    samples = sound(3.0, (0.5, 1.0), (2.0, 2.2))
    assert snapped(samples, (0.2, 2.8)) == [(2.0, 2.2)]


def test_a_moment_of_the_next_word_is_not_the_word() -> None:
    samples = sound(3.0, (0.5, 1.0), (2.76, 3.0))
    assert snapped(samples, (0.2, 2.8)) == [(0.5, 1.0)]


def test_a_word_only_ever_shrinks() -> None:
    samples = sound(3.0, (0.5, 2.5))
    assert snapped(samples, (1.0, 2.0)) == [(1.0, 2.0)]


def test_a_word_in_silence_stays_where_it_is() -> None:
    samples = sound(3.0, (2.0, 2.5))
    assert snapped(samples, (0.25, 1.25), (1.25, 1.25)) == [(0.25, 1.25), (1.25, 1.25)]


def test_other_words_and_the_segments_stay() -> None:
    samples = sound(2.0, (0.5, 1.0))
    without = Segment(0.0, 1.0, "no words", 0.5)
    empty = Segment(1.0, 2.0, "none", 0.5, ())
    assert snap([without, empty], samples) == (without, empty)
    assert snap([], samples) == ()


@pytest.mark.parametrize("count", [0, 1, 159, 160])
def test_hardly_any_audio(count: int) -> None:
    assert snapped(np.ones(count, dtype=np.float32), (0.0, 0.0)) == [(0.0, 0.0)]


def test_loud_is_relative_to_the_window() -> None:
    samples = sound(3.0, (0.5, 1.0))
    quiet = samples * np.float32(0.001)
    assert snapped(quiet, (0.0, 1.8)) == snapped(samples, (0.0, 1.8)) == [(0.5, 1.0)]


TIMES = st.lists(st.floats(0, 3), min_size=2, max_size=8).map(sorted)


@given(TIMES, st.floats(0, 3), st.floats(0, 0.1))
def test_any_words_stay_in_their_place(times: list[float], loud: float, noise: float) -> None:
    spans = list(pairwise(times))
    samples = sound(3.0, (loud, min(3.0, loud + 0.4)), noise=noise)
    for (start, end), (new_start, new_end) in zip(spans, snapped(samples, *spans), strict=True):
        # Half a frame, to which times are rounded.
        assert start - 0.0051 <= new_start <= new_end <= end + 0.0051
