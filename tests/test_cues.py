"""app/decoding/cues.py: edges move into pauses, and long segments are divided."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.decoding.cues import LONGEST_SECONDS, fit
from app.messages import Segment, Word

RATE = 16_000


def sound(*stretches: tuple[float, bool]) -> npt.NDArray[np.float32]:
    """Loud noise in the given spans (in seconds), and a soft hiss elsewhere."""
    generator = np.random.default_rng(1)
    parts = [
        generator.normal(0, 0.1 if loud else 0.0005, int(seconds * RATE))
        for seconds, loud in stretches
    ]
    return np.concatenate(parts).astype(np.float32)


def times(segments: tuple[Segment, ...]) -> list[tuple[float, float]]:
    return [(round(segment.start, 1), round(segment.end, 1)) for segment in segments]


def test_edges_at_whole_seconds_move_into_the_pause() -> None:
    samples = sound((0.5, False), (3.0, True), (0.5, False), (2.6, True), (0.4, False))
    rounded = (Segment(0.0, 3.0, "One two.", 0.9), Segment(3.0, 7.0, "Three four.", 0.9))
    assert times(fit(rounded, samples)) == [(0.4, 3.6), (3.9, 6.7)]


def test_edges_far_from_any_pause_are_unchanged() -> None:
    samples = sound((6.0, True))
    segments = (Segment(0.0, 3.0, "One two.", 0.9), Segment(3.0, 6.0, "Three four.", 0.9))
    assert fit(segments, samples) == segments


def test_gap_between_segments_is_kept_if_both_sides_are_loud() -> None:
    samples = sound((10.0, True))
    segments = (Segment(0.0, 3.0, "One.", 0.9), Segment(6.0, 9.0, "Two.", 0.9))
    assert times(fit(segments, samples)) == [(0.0, 3.0), (6.0, 9.0)]


def test_long_segment_is_divided_at_a_sentence_in_a_pause() -> None:
    samples = sound((4.6, True), (0.4, False), (5.0, True))
    text = "Alpha beta, gamma delta epsilon. Zeta eta, theta iota kappa."
    parts = fit((Segment(0.0, 10.0, text, 0.8),), samples)
    assert [part.text for part in parts] == [
        "Alpha beta, gamma delta epsilon.",
        "Zeta eta, theta iota kappa.",
    ]
    assert times(parts) == [(0.0, 4.7), (4.9, 10.0)]
    assert all(part.confidence == 0.8 for part in parts)


def test_text_without_spaces_is_divided_at_its_punctuation() -> None:
    samples = sound((12.0, True))
    text = "\u5ba2\u89b3\u7684\u3002\u5224\u65ad\u7684\u77e5\u8b58\u3002"
    parts = fit((Segment(0.0, 12.0, text, 0.8),), samples)
    assert "".join(part.text for part in parts) == text
    assert parts[0].text.endswith("\u3002")
    assert all(part.end - part.start <= LONGEST_SECONDS for part in parts)


def test_marker_of_a_sound_is_not_divided() -> None:
    samples = sound((20.0, True))
    (part,) = fit((Segment(0.0, 20.0, "[MUSIC PLAYING]", 0.8),), samples)
    assert part.text == "[MUSIC PLAYING]"


def test_single_word_keeps_the_end_of_its_long_segment() -> None:
    (part,) = fit((Segment(0.0, 20.0, "Goodbye.", 0.8),), sound((20.0, True)))
    assert (part.start, part.end) == (18.0, 20.0)


def test_words_stay_in_their_part() -> None:
    samples = sound((10.0, True))
    words = tuple(Word(index, index + 1, f"w{index}", 0.9) for index in range(10))
    text = " ".join(word.text for word in words)
    parts = fit((Segment(0.0, 10.0, text, 0.8, words),), samples)
    assert len(parts) == 2
    for part in parts:
        assert part.words
        assert " ".join(word.text for word in part.words) == part.text
        assert all(part.start <= word.start <= word.end <= part.end for word in part.words)


def test_no_edge_moves_beyond_the_end_of_the_window() -> None:
    samples = sound((2.0, True), (0.9375, True))
    (part,) = fit((Segment(0.0, 2.9375, "One two.", 0.9),), samples)
    assert part.end == 2.9375


def test_silence_changes_no_times() -> None:
    segments = (Segment(0.0, 3.0, "One.", 0.9), Segment(3.0, 5.0, "Two.", 0.9))
    assert fit(segments, np.zeros(5 * RATE, np.float32)) == segments
    assert fit(segments, np.zeros(0, np.float32)) == segments
    assert fit((), np.zeros(RATE, np.float32)) == ()


@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_no_cue_is_longer_than_twelve_seconds_with_any_audio(
    data: st.DataObject, seed: int
) -> None:
    seconds = data.draw(st.floats(1.0, 30.0))
    generator = np.random.default_rng(seed)
    levels = generator.choice([0.0, 0.0005, 0.02, 0.3], size=int(seconds * 4) + 1)
    samples = (generator.normal(0, 1, len(levels) * 4000) * np.repeat(levels, 4000)).astype(
        np.float32
    )[: int(seconds * RATE)]
    count = data.draw(st.integers(1, 4))
    edges = sorted(data.draw(st.floats(0.0, seconds)) for _ in range(2 * count))
    word = st.text(st.sampled_from("abc.,?[(]\u3002\u5ba2"), min_size=1, max_size=12)
    segments = tuple(
        Segment(start, end, " ".join(data.draw(st.lists(word, min_size=1, max_size=40))), 0.5)
        for start, end in zip(edges[::2], edges[1::2], strict=True)
    )
    parts = fit(segments, samples)
    before = 0.0
    for part in parts:
        assert before <= part.start <= part.end <= seconds
        assert part.text.strip()
        before = part.end
    joined = "".join(part.text for part in parts)
    assert "".join(joined.split()) == "".join("".join(s.text for s in segments).split())
    assert all(part.end - part.start <= 12.0 for part in parts)


@pytest.mark.parametrize("seconds", [8.5, 12.0, 30.0])
def test_parts_of_a_steady_sentence_have_similar_lengths(seconds: float) -> None:
    text = " ".join(["word"] * int(seconds * 2))
    parts = fit((Segment(0.0, seconds, text, 0.8),), sound((seconds, True)))
    lasts = [part.end - part.start for part in parts]
    assert max(lasts) <= LONGEST_SECONDS
    assert min(lasts) > 2.0
