"""How much of the encoder a window gets: the bounds that every choice keeps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.context import (
    FLOOR,
    FULL,
    LONGEST_SECONDS,
    MARGIN,
    POSITIONS_PER_SECOND,
    EncoderContext,
    choose,
    choose_for_detection,
)

SECONDS = st.floats(0, 30)
SETTINGS = st.one_of(st.sampled_from(["auto", "full"]), st.integers(1, FULL))


@given(SECONDS, SETTINGS)
def test_every_choice_is_one_the_engine_takes(seconds: float, setting: EncoderContext) -> None:
    # More than FULL makes whisper.cpp fail, and 0 means the whole encoder.
    for positions in (choose(seconds, setting), choose_for_detection(seconds, setting)):
        assert isinstance(positions, int)
        assert 1 <= positions <= FULL


@given(SECONDS, SETTINGS)
def test_no_part_of_a_window_is_left_unheard(seconds: float, setting: EncoderContext) -> None:
    assert choose(seconds, setting) >= math.ceil(seconds * POSITIONS_PER_SECOND)


@given(SECONDS)
def test_full_is_full(seconds: float) -> None:
    assert choose(seconds, "full") == FULL


@given(st.floats(0, LONGEST_SECONDS))
def test_auto_leaves_a_margin_behind_the_speech(seconds: float) -> None:
    positions = choose(seconds, "auto")
    assert positions >= FLOOR
    assert positions >= min(FULL, seconds * POSITIONS_PER_SECOND + MARGIN)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, FLOOR),
        (1.0, FLOOR),
        (10.0, 500 + MARGIN),
        (10.01, 501 + MARGIN),
        (LONGEST_SECONDS, 600 + MARGIN),
        (LONGEST_SECONDS + 0.01, FULL),
        (30.0, FULL),
    ],
)
def test_auto_by_length(seconds: float, expected: int) -> None:
    assert choose(seconds, "auto") == expected


@pytest.mark.parametrize(
    ("seconds", "setting", "expected"),
    [(3.0, 512, 512), (3.0, 100, 150), (3.0, 1, 150), (29.0, 512, 1450), (1.0, FULL, FULL)],
)
def test_a_fixed_number_grows_to_cover_the_window(
    seconds: float, setting: int, expected: int
) -> None:
    assert choose(seconds, setting) == expected
