"""The attention heads of a model that follow the sound, and their lag.

Some cross-attention heads of a Whisper decoder attend to the audio of the next token; whisper.cpp
has OpenAI's list of them for each official model. A model is identified by its shape, because a
file may have any name, and a fine-tuned model keeps the heads of its origin. A decoder of another
shape, such as a distilled one, uses all heads of its upper half, openai/whisper's default. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

_UNKNOWN_LAG = 0.05
"""Lag of a model that was not measured, in seconds: between the two measured ones, and adequate for
both (docs/lab-book.md, "Word times by attention")."""

_LAGS = {"TINY_EN": 0.1, "BASE": 0.0}
"""Seconds from a word's beginning to the moment at which the heads move to it, by preset."""

_ENGLISH_TOO = {(4, 6): "TINY", (6, 8): "BASE", (12, 12): "SMALL", (24, 16): "MEDIUM"}
"""Presets of sizes that have an English-only model too, by decoder layers and heads per layer."""

_LARGE_HEADS, _LARGE_LAYERS, _TURBO_LAYERS = 20, 32, 4

_LARGE_V3_MELS = 128


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's numbers of decoder `layers`, attention `heads` per layer and input `mels`."""

    layers: int
    heads: int
    mels: int
    multilingual: bool


@dataclass(frozen=True, slots=True)
class AlignmentHeads:
    """The heads for whisper.cpp: `preset` is the end of the name of a
    `whisper_alignment_heads_preset`; `top_layers` is used by `N_TOP_MOST` only; `lag` is in
    seconds."""

    preset: str
    lag: float
    top_layers: int = -1


def alignment_heads(shape: Shape, name: str) -> AlignmentHeads:
    """Return the heads of a model by its shape; `name` distinguishes large-v1 from large-v2."""
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
