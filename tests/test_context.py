"""The encoder context of a window: the bounds of every choice."""

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
    MULTIPLE,
    POSITIONS_PER_SECOND,
    EncoderContext,
    contexts_to_try,
    for_detection,
    for_partial,
)

SECONDS = st.floats(0, 30)
SETTINGS = st.one_of(st.sampled_from(["auto", "full"]), st.integers(1, FULL))


@given(SECONDS, SETTINGS)
def test_every_context_is_valid_for_the_engine(seconds: float, setting: EncoderContext) -> None:
    # More than FULL makes whisper.cpp fail, and 0 means the full context.
    for positions in (*contexts_to_try(seconds, setting), for_detection(seconds, setting)):
        assert isinstance(positions, int)
        assert 1 <= positions <= FULL


@given(SECONDS, SETTINGS)
def test_contexts_rise_to_the_full_one(seconds: float, setting: EncoderContext) -> None:
    contexts = contexts_to_try(seconds, setting)
    assert list(contexts) == sorted(set(contexts))
    assert contexts[-1] == FULL


@given(SECONDS, SETTINGS)
def test_first_context_covers_the_window(seconds: float, setting: EncoderContext) -> None:
    assert contexts_to_try(seconds, setting)[0] >= math.ceil(seconds * POSITIONS_PER_SECOND)


@given(SECONDS)
def test_reduced_contexts_are_whole_blocks(seconds: float) -> None:
    contexts = (*contexts_to_try(seconds, "auto"), for_detection(seconds, "auto"))
    for context in (*contexts, for_partial(seconds, "auto")):
        assert context == FULL or context % MULTIPLE == 0


@given(SECONDS)
def test_block_adds_less_than_its_own_length(seconds: float) -> None:
    least = max(FLOOR, math.ceil(seconds * POSITIONS_PER_SECOND) + MARGIN)
    assert for_partial(seconds, "auto") < least + MULTIPLE


@given(SECONDS)
def test_full_gives_only_the_full_context(seconds: float) -> None:
    assert contexts_to_try(seconds, "full") == (FULL,)


@given(SECONDS)
def test_longer_window_never_gets_a_smaller_context(seconds: float) -> None:
    shorter, longer = contexts_to_try(seconds / 2, "auto"), contexts_to_try(seconds, "auto")
    assert shorter[0] <= longer[0]


@pytest.mark.parametrize(
    ("seconds", "first"),
    [
        (0.0, FLOOR),
        (1.0, FLOOR),
        ((FLOOR - MARGIN) / POSITIONS_PER_SECOND, FLOOR),
        (5.12, 384),  # 256 + MARGIN is 24 blocks,
        (5.14, 400),  # and a position more takes another one
        (LONGEST_SECONDS + 0.1, FULL),
        (30.0, FULL),
    ],
)
def test_auto_chooses_the_first_context_by_length(seconds: float, first: int) -> None:
    assert contexts_to_try(seconds, "auto")[0] == first


def test_detection_uses_the_beginning_of_a_window() -> None:
    assert for_detection(30.0, "auto") == MOST_FOR_DETECTION
    assert for_detection(1.0, "auto") == FLOOR
    assert for_detection(30.0, "full") == FULL


@pytest.mark.parametrize(
    ("seconds", "setting", "expected"),
    [(2.0, 512, (512, FULL)), (20.0, 512, (1000, FULL)), (30.0, 64, (FULL,)), (1.0, FULL, (FULL,))],
)
def test_fixed_context_is_raised_to_cover_the_window(
    seconds: float, setting: int, expected: tuple[int, ...]
) -> None:
    assert contexts_to_try(seconds, setting) == expected


@pytest.mark.parametrize("setting", ["full", 300, 1500])
def test_setting_holds_for_partials(setting: EncoderContext) -> None:
    assert for_partial(2.0, setting) == contexts_to_try(2.0, setting)[0]
