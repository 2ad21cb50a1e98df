"""The attention heads that align words, by a model's shape."""

from __future__ import annotations

import pytest

from app.decoding.heads import Shape, alignment_heads

LARGE = Shape(layers=32, heads=20, mels=80, multilingual=True)


@pytest.mark.parametrize(
    ("layers", "heads", "size"),
    [(4, 6, "TINY"), (6, 8, "BASE"), (12, 12, "SMALL"), (24, 16, "MEDIUM")],
)
def test_heads_follow_the_shape_of_official_models(layers: int, heads: int, size: str) -> None:
    assert alignment_heads(Shape(layers, heads, 80, True), "any name").preset == size
    assert alignment_heads(Shape(layers, heads, 80, False), "any name").preset == f"{size}_EN"


def test_heads_of_large_models_are_those_published() -> None:
    assert alignment_heads(LARGE, "large-v2").preset == "LARGE_V2"
    assert alignment_heads(LARGE, "large-v1-q8_0").preset == "LARGE_V1"
    assert alignment_heads(Shape(32, 20, 128, True), "x").preset == "LARGE_V3"
    assert alignment_heads(Shape(4, 20, 128, True), "x").preset == "LARGE_V3_TURBO"


@pytest.mark.parametrize(("layers", "top"), [(1, 1), (2, 1), (4, 2)])
@pytest.mark.parametrize("heads", [12, 16, 20])
def test_heads_of_other_decoders_are_in_the_upper_layers(layers: int, top: int, heads: int) -> None:
    if (layers, heads) == (4, 20):
        pytest.skip("this is large-v3-turbo")
    chosen = alignment_heads(Shape(layers, heads, 80, True), "distil")
    assert (chosen.preset, chosen.top_layers) == ("N_TOP_MOST", top)


def test_lag_of_other_models_is_between_the_measured_ones() -> None:
    lags = [
        alignment_heads(shape, "x").lag
        for shape in (Shape(4, 6, 80, False), Shape(12, 12, 80, True), Shape(6, 8, 80, True))
    ]
    assert lags == sorted(lags, reverse=True)
    assert len(set(lags)) == 3
