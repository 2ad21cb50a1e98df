"""Turn detection: when the node ends an utterance by itself.

Server VAD has a threshold, a padding and a silence. Semantic VAD asks for a model that judges
whether the speaker has finished; the node has none and waits for a silence instead, longer for a
less eager client. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from app.live import LiveOptions

_LIMITS: dict[str, tuple[int, int]] = {
    "prefix_padding_ms": (0, 5_000),
    "silence_duration_ms": (100, 10_000),
}
"""Smallest and largest values. The detector needs some 100 ms to be sure of a silence."""

_SEMANTIC_MS = {"low": 1_500, "medium": 800, "auto": 800, "high": 500}
"""The silence that stands for an eagerness. The model in OpenAI's service waits up to 8, 4 and 2
seconds, but only if a sentence seems unfinished."""


@dataclass(frozen=True, slots=True)
class Turns:
    """The node ends an utterance after `silence_ms`. `threshold` None is the node's."""

    threshold: float | None = None
    padding_ms: int = 300
    silence_ms: int = 500


DEFAULT_TURNS = Turns()
"""The defaults of OpenAI's types."""


def read_turns(value: Any, before: Turns | None) -> Turns | None:
    """Return the turn detection in `value`, with absent fields as `before`; None if the client
    commits the audio. Raises `ValueError`."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("turn_detection must be an object or null")
    kind = value.get("type", "server_vad")
    if kind == "semantic_vad":
        return _semantic(value)
    if kind != "server_vad":
        raise ValueError("type must be server_vad or semantic_vad")
    turns = before or DEFAULT_TURNS
    if "threshold" in value:
        turns = replace(turns, threshold=_threshold(value["threshold"]))
    if "prefix_padding_ms" in value:
        milliseconds = _milliseconds(value, "prefix_padding_ms", DEFAULT_TURNS.padding_ms)
        turns = replace(turns, padding_ms=milliseconds)
    if "silence_duration_ms" in value:
        milliseconds = _milliseconds(value, "silence_duration_ms", DEFAULT_TURNS.silence_ms)
        turns = replace(turns, silence_ms=milliseconds)
    return turns


def live_options(turns: Turns | None) -> LiveOptions:
    """Return the options of a stream with these turns."""
    if turns is None:
        return LiveOptions(end_pause=None, partials=True)
    return LiveOptions(
        end_pause=turns.silence_ms / 1000,
        threshold=turns.threshold,
        lead_in=turns.padding_ms / 1000,
        partials=True,
        reports_speech=True,
    )


def turns_json(turns: Turns, threshold: float) -> dict[str, Any]:
    """Return the values in effect; `threshold` is the node's."""
    return {
        "type": "server_vad",
        "threshold": threshold if turns.threshold is None else turns.threshold,
        "prefix_padding_ms": turns.padding_ms,
        "silence_duration_ms": turns.silence_ms,
    }


def _semantic(value: dict[str, Any]) -> Turns:
    eagerness = value.get("eagerness")
    if eagerness is None:
        eagerness = "auto"
    if not isinstance(eagerness, str) or eagerness not in _SEMANTIC_MS:
        raise ValueError(f"eagerness must be one of {', '.join(_SEMANTIC_MS)}")
    return replace(DEFAULT_TURNS, silence_ms=_SEMANTIC_MS[eagerness])


def _threshold(value: Any) -> float | None:
    if value is None:
        return None
    # Written so that NaN fails too.
    if type(value) not in (int, float) or not 0.0 <= value <= 1.0:
        raise ValueError("threshold must be a number from 0 to 1")
    return float(value)


def _milliseconds(value: dict[str, Any], name: str, default: int) -> int:
    number: Any = value[name]
    if number is None:
        return default
    low, high = _LIMITS[name]
    if type(number) not in (int, float) or not low <= number <= high:
        raise ValueError(f"{name} must be a number from {low} to {high}")
    milliseconds: float = number
    return round(milliseconds)
