"""The probabilities of tokens in the shape of OpenAI's API reference (audio and realtime). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from app.decoding.hypothesis import joint
from app.decoding.text_tokens import led
from app.messages import Segment, TextToken

_LEAST = -9999.0
"""OpenAI's value for a token that is not among the probable ones: JSON has no infinity."""


def logprobs_json(tokens: Iterable[TextToken]) -> list[dict[str, Any]]:
    """Return the list `logprobs`. A part of a character is U+FFFD in `token`; `bytes` are exact."""
    return [
        {
            "token": token.data.decode(errors="replace"),
            "bytes": list(token.data),
            "logprob": round(max(token.logprob, _LEAST), 6),
        }
        for token in tokens
    ]


def joined(segments: Sequence[Segment]) -> list[TextToken]:
    """Return the tokens of the text that `app.decoding.hypothesis.join` makes of `segments`."""
    tokens: list[TextToken] = []
    before: Segment | None = None
    for segment in segments:
        tokens += led(segment.tokens or (), joint(before, segment))
        before = segment
    return tokens
