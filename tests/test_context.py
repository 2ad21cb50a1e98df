"""How much of the encoder a window gets: the bounds that every choice keeps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.decoding.context import (
    FLOOR,
    FULL,
    LONGEST_SECONDS,
    MARGIN,
    MOST_FOR_DETECTION,
    POSITIONS_PER_SECOND,
    EncoderContext,
    for_detection,
    ladder,
)

SECONDS = st.floats(0, 30)
SETTINGS = st.one_of(st.sampled_from(["auto", "full"]), st.integers(1, FULL))


@given(SECONDS, SETTINGS)
def test_every_rung_is_one_the_engine_takes(seconds: float, setting: EncoderContext) -> None:
    # More than FULL makes whisper.cpp fail, and 0 means the whole encoder.
    for positions in (*ladder(seconds, setting), for_detection(seconds, setting)):
        assert isinstance(positions, int)
        assert 1 <= positions <= FULL


@given(SECONDS, SETTINGS)
def test_rungs_rise_to_the_whole_encoder(seconds: float, setting: EncoderContext) -> None:
    rungs = ladder(seconds, setting)
    assert list(rungs) == sorted(set(rungs))
    assert rungs[-1] == FULL


@given(SECONDS, SETTINGS)
def test_no_part_of_a_window_is_left_unheard(seconds: float, setting: EncoderContext) -> None:
    assert ladder(seconds, setting)[0] >= math.ceil(seconds * POSITIONS_PER_SECOND)


@given(SECONDS)
def test_full_is_full(seconds: float) -> None:
    assert ladder(seconds, "full") == (FULL,)


@given(SECONDS)
def test_a_longer_window_never_gets_less(seconds: float) -> None:
    shorter, longer = ladder(seconds / 2, "auto"), ladder(seconds, "auto")
    assert shorter[0] <= longer[0]


@pytest.mark.parametrize(
    ("seconds", "first"),
    [
        (0.0, FLOOR),
        (1.0, FLOOR),
        ((FLOOR - MARGIN) / POSITIONS_PER_SECOND, FLOOR),
        (5.0, 5 * POSITIONS_PER_SECOND + MARGIN),
        (LONGEST_SECONDS + 0.1, FULL),
        (30.0, FULL),
    ],
)
def test_auto(seconds: float, first: int) -> None:
    assert ladder(seconds, "auto")[0] == first


def test_a_language_is_told_by_the_beginning() -> None:
    assert for_detection(30.0, "auto") == MOST_FOR_DETECTION
    assert for_detection(1.0, "auto") == FLOOR
    assert for_detection(30.0, "full") == FULL


@pytest.mark.parametrize(
    ("seconds", "setting", "expected"),
    [(2.0, 512, (512, FULL)), (20.0, 512, (1000, FULL)), (30.0, 64, (FULL,)), (1.0, FULL, (FULL,))],
)
def test_a_fixed_number_covers_the_window(
    seconds: float, setting: int, expected: tuple[int, ...]
) -> None:
    assert ladder(seconds, setting) == expected
