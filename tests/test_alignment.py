"""Words placed by attention and sound, with synthetic sound: a tone is loud, the rest is not."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.decoding.alignment import SHORTEST_SECONDS, align
from app.messages import Segment, Word

RATE = 16000
SMOOTHED = 0.011
"""One frame, which smoothing may add to either side of a tone."""


def sound(seconds: float, *loud: tuple[float, float], noise: float = 0.0) -> Any:
    """A window with a tone in the spans of `loud`, and noise of the given level everywhere."""
    samples = np.random.default_rng(1).normal(0, 1, round(seconds * RATE)) * noise
    for start, end in loud:
        span = np.arange(round(start * RATE), round(end * RATE))
        samples[span] += 0.5 * np.sin(span * (2 * np.pi * 440 / RATE))
    return samples.astype(np.float32)


def words(count: int) -> tuple[Word, ...]:
    return tuple(Word(0.0, 0.0, str(index), 0.5) for index in range(count))


def aligned(samples: Any, *moved: float, lag: float = 0.0) -> list[tuple[float, float]]:
    given = words(len(moved))
    whole = Segment(0.0, len(samples) / RATE, "text", 0.5, given)
    (segment,) = align([whole], moved, samples, lag)
    assert segment.words is not None
    assert [(word.text, word.confidence) for word in segment.words] == [
        (word.text, word.confidence) for word in given
    ]
    assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
    return [(word.start, word.end) for word in segment.words]


def close(*spans: tuple[float, float]) -> list[Any]:
    return [pytest.approx(span, abs=SMOOTHED) for span in spans]


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05])
def test_words_begin_and_end_at_the_pauses_around_them(noise: float) -> None:
    samples = sound(4.0, (0.5, 1.0), (2.0, 2.5), noise=noise)
    assert aligned(samples, 1.5, 2.6) == close((0.5, 1.0), (2.0, 2.5))


@pytest.mark.parametrize("moved", [0.9, 1.0, 1.2, 1.5, 1.9, 2.1])
def test_pause_separates_two_words(moved: float) -> None:
    samples = sound(4.0, (0.5, 1.0), (2.0, 2.5))
    assert aligned(samples, moved, 2.6) == close((0.5, 1.0), (2.0, 2.5))


def test_words_without_a_pause_are_separated_by_the_attention() -> None:
    samples = sound(3.0, (0.5, 2.0))
    (first, second) = aligned(samples, 1.2, 2.0)
    assert first == pytest.approx((0.5, 1.2), abs=0.02)
    assert second == pytest.approx((1.2, 2.0), abs=0.02)


def test_lag_of_the_attention_is_removed() -> None:
    samples = sound(3.0, (0.5, 2.0))
    (first, second) = aligned(samples, 1.3, 2.1, lag=0.1)
    assert first == pytest.approx((0.5, 1.2), abs=0.02)
    assert second == pytest.approx((1.2, 2.0), abs=0.02)


def test_closure_of_a_consonant_stays_in_its_word() -> None:
    samples = sound(3.0, (0.5, 1.0), (1.08, 1.6))
    assert aligned(samples, 1.7) == close((0.5, 1.6))


def test_words_skipped_by_the_attention_share_the_sound() -> None:
    """The attention stands still, then moves over several words at once."""
    samples = sound(4.0, (1.0, 2.0), (3.0, 3.5))
    spans = aligned(samples, 2.0, 2.0, 2.0, 3.6)
    assert spans[3] == pytest.approx((3.0, 3.5), abs=SMOOTHED)
    assert all(start >= 1.0 - SMOOTHED for start, _ in spans)
    assert spans[2][1] == pytest.approx(2.0, abs=SMOOTHED)


def test_sound_after_the_last_word_is_not_part_of_it() -> None:
    """The decoder stopped early, so its last word does not last to the end of the window."""
    samples = sound(12.0, (0.5, 1.0), (2.0, 12.0))
    assert aligned(samples, 1.05) == close((0.5, 1.0))


def test_sound_long_before_the_first_word_is_not_part_of_it() -> None:
    samples = sound(12.0, (0.5, 8.0), (9.0, 9.5))
    assert aligned(samples, 9.5) == close((9.0, 9.5))


def test_words_in_digital_silence_follow_the_attention() -> None:
    (_, first), (second, _) = aligned(sound(3.0), 1.0, 2.0)
    assert first == pytest.approx(1.0, abs=0.05)
    assert second == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("factor", [0.001, 100.0])
def test_loudness_is_relative_to_the_window(factor: float) -> None:
    samples = sound(4.0, (0.5, 1.0), (2.0, 2.5), noise=0.001)
    assert aligned(samples * np.float32(factor), 1.5, 2.6) == aligned(samples, 1.5, 2.6)


def test_constant_offset_is_not_loud() -> None:
    samples = sound(4.0, (0.5, 1.0), (2.0, 2.5)) + np.float32(0.5)
    assert aligned(samples, 1.5, 2.6) == close((0.5, 1.0), (2.0, 2.5))


def test_segments_take_the_times_of_their_words() -> None:
    samples = sound(4.0, (0.5, 1.0), (2.0, 2.5))
    given = [
        Segment(0.0, 1.8, "one", 0.5, words(1)),
        Segment(1.8, 4.0, "two", 0.5, words(1)),
    ]
    spans = [(segment.start, segment.end) for segment in align(given, [1.5, 2.6], samples, 0.0)]
    assert spans == close((0.5, 1.0), (2.0, 2.5))


def test_segments_without_words_are_unchanged() -> None:
    samples = sound(2.0, (0.5, 1.0))
    without = Segment(0.0, 1.0, "no words", 0.5)
    empty = Segment(1.0, 2.0, "none", 0.5, ())
    assert align([without, empty], [], samples, 0.0) == (without, empty)
    assert align([], [], samples, 0.0) == ()


@pytest.mark.parametrize("count", [0, 1, 159, 160, 639])
def test_words_divide_a_window_that_is_too_short_for_them(count: int) -> None:
    seconds = count / RATE
    (first, second) = aligned(np.ones(count, dtype=np.float32), 0.0, 0.0)
    assert first == pytest.approx((0.0, seconds / 2), abs=0.001)
    assert second == pytest.approx((seconds / 2, seconds), abs=0.001)


SPANS = st.lists(st.floats(0, 4), max_size=6).map(lambda times: list(pairwise(sorted(times))))


@settings(deadline=None)
@given(
    moved=st.lists(st.floats(-1, 8), min_size=1, max_size=30),
    loud=SPANS,
    noise=st.sampled_from([0.0, 0.001, 0.1]),
    seconds=st.floats(0.05, 4),
    lag=st.floats(0, 0.2),
)
def test_any_words_are_in_order_within_the_window_and_not_too_short(
    moved: list[float],
    loud: list[tuple[float, float]],
    noise: float,
    seconds: float,
    lag: float,
) -> None:
    samples = sound(4.0, *loud, noise=noise)[: round(seconds * RATE)]
    spans = aligned(samples, *moved, lag=lag)
    least = min(SHORTEST_SECONDS, len(samples) / RATE / len(moved) - 0.001)
    before = 0.0
    for start, end in spans:
        assert before <= start
        assert end - start >= least - 1e-9
        before = end
    assert before <= len(samples) / RATE + 0.0005
