"""The times of breaks within a segment by its sound."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from app.decoding.break_times import SoundBreaks
from app.decoding.text_breaks import pieces
from app.messages import Segment

RATE = 16_000


def sound(*stretches: tuple[float, bool]) -> npt.NDArray[np.float32]:
    """Loud noise in the given spans (in seconds), and a soft hiss elsewhere."""
    generator = np.random.default_rng(1)
    parts = [
        generator.normal(0, 0.1 if loud else 0.0005, int(seconds * RATE))
        for seconds, loud in stretches
    ]
    return np.concatenate(parts).astype(np.float32)


def times(
    text: str, samples: npt.NDArray[np.float32], start: float, end: float
) -> dict[str, tuple[float, float]]:
    """The times after each word but the last."""
    some = pieces(text, 42)
    found = SoundBreaks(samples)(Segment(start, end, text, 0.9), some)
    assert len(found) == len(some) - 1
    assert all(a <= b for a, b in found)
    return {piece.text: time for piece, time in zip(some, found, strict=False)}


def test_break_is_placed_by_the_characters_in_steady_speech() -> None:
    found = times("aaaa bbbb cccc dddd", sound((8.0, True)), 0.0, 8.0)
    assert found["aaaa"] == pytest.approx((2.0, 2.0), abs=0.05)
    assert found["cccc"] == pytest.approx((6.0, 6.0), abs=0.05)


def test_break_takes_the_pause_near_it() -> None:
    samples = sound((2.4, True), (0.5, False), (5.1, True))
    found = times("aaaa bbbb cccc dddd", samples, 0.0, 8.0)
    assert found["aaaa"] == pytest.approx((2.5, 2.8), abs=0.02)
    # The rest of the text is spread over the rest of the sound.
    assert found["bbbb"][0] == pytest.approx(2.8 + 5.2 / 3, abs=0.1)


def test_pause_belongs_to_the_end_of_a_sentence_rather_than_of_a_word() -> None:
    samples = sound((3.7, True), (0.4, False), (3.9, True))
    found = times("aaaa bbb bbb, ccc cccc dddd", samples, 0.0, 8.0)
    assert found["bbb,"] == pytest.approx((3.8, 4.0), abs=0.02)


def test_silence_within_a_segment_takes_no_text() -> None:
    samples = sound((2.0, True), (4.0, False), (2.0, True))
    found = times("aaaa bbbb", samples, 0.0, 8.0)
    assert found["aaaa"] == pytest.approx((2.1, 5.9), abs=0.02)


def test_pause_far_from_every_break_belongs_to_none() -> None:
    """A pause within a word."""
    samples = sound((1.0, True), (0.3, False), (6.7, True))
    found = times("aaaaaaaa bbbbbbbb", samples, 0.0, 8.0)
    assert found["aaaaaaaa"][0] == found["aaaaaaaa"][1] > 3.5


@pytest.mark.parametrize("seconds", [0.0, 0.01, 3.0])
def test_segment_without_sound_is_divided_evenly(seconds: float) -> None:
    found = times("aa bb", np.zeros(5 * RATE, np.float32), 1.0, 1.0 + seconds)
    assert found["aa"][0] == pytest.approx(1.0 + seconds / 2, abs=0.02)


def test_segment_beyond_the_window_has_times() -> None:
    found = times("aa bb cc", sound((2.0, True)), 1.0, 9.0)
    assert all(1.0 <= at <= 9.0 for pair in found.values() for at in pair)
    found = times("aa bb cc", sound((2.0, True)), 5.0, 9.0)
    assert all(5.0 <= at <= 9.0 for pair in found.values() for at in pair)
