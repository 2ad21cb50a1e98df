"""Which attention heads of a model follow the sound, and how late they are.

Some cross-attention heads of a Whisper decoder look at the audio of the token they are about to
say; whisper.cpp has OpenAI's list of them for each official model. A model is known here by its
shape, because a file may have any name: a fine-tuned model keeps the heads of its origin. A decoder
of another shape (a distilled one) takes all heads of its upper half, openai/whisper's own default.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

_UNKNOWN_LAG = 0.05
"""Seconds; between the two that were measured, and good enough for both (docs/lab-book.md, "Word
times by attention")."""

_LAGS = {"TINY_EN": 0.1, "BASE": 0.0}
"""Seconds from a word's beginning to the moment at which the heads move to it."""

_ENGLISH_TOO = {(4, 6): "TINY", (6, 8): "BASE", (12, 12): "SMALL", (24, 16): "MEDIUM"}
"""By decoder layers and heads a layer."""

_LARGE_HEADS, _LARGE_LAYERS, _TURBO_LAYERS = 20, 32, 4

_LARGE_V3_MELS = 128


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's decoder `layers`, attention `heads` in each, `mels` of its input, and languages."""

    layers: int
    heads: int
    mels: int
    multilingual: bool


@dataclass(frozen=True, slots=True)
class AlignmentHeads:
    """`preset` is the end of the name of a `whisper_alignment_heads_preset`; `top_layers` counts
    for `N_TOP_MOST` alone; `lag` is in seconds."""

    preset: str
    lag: float
    top_layers: int = -1


def alignment_heads(shape: Shape, name: str) -> AlignmentHeads:
    """The heads of the model of this shape. `name` tells large-v1 from v2, which look the same."""
    preset = _preset(shape, name)
    if preset is None:
        return AlignmentHeads("N_TOP_MOST", _UNKNOWN_LAG, max(1, shape.layers // 2))
    return AlignmentHeads(preset, _LAGS.get(preset, _UNKNOWN_LAG))


def _preset(shape: Shape, name: str) -> str | None:
    if shape.heads == _LARGE_HEADS:
        if shape.layers == _TURBO_LAYERS:
            return "LARGE_V3_TURBO"
        if shape.layers != _LARGE_LAYERS:
            return None
        if shape.mels == _LARGE_V3_MELS:
            return "LARGE_V3"
        return "LARGE_V1" if "large-v1" in name else "LARGE_V2"
    size = _ENGLISH_TOO.get((shape.layers, shape.heads))
    return size if size is None or shape.multilingual else f"{size}_EN"
