"""What one decode of one window said, and how much it is to be believed.

`Hypothesis` is made by the engine from whisper.cpp's tokens; `fault` judges it. The rules are
Whisper's own for its temperature fallback (Radford et al. 2022, section 4.5): a text that
compresses too well is a loop, one whose tokens were improbable is a guess. Pure; times are seconds
from the window's beginning.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from app.messages import Segment

MAX_COMPRESSION = 2.4
MIN_LOGPROB = -1.0
"""Both thresholds as in openai/whisper's transcribe(): compression_ratio_threshold and
logprob_threshold."""

MIN_COMPRESSED_BYTES = 40
"""Shorter texts are not judged by compression: zlib's own header and tables dominate, and "no, no,
no, no" is a thing people say."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The segments of a window.

    `end` is where the last segment ends, `logprob` the mean natural log of the text tokens'
    probabilities, `language` a code, `limited` true where decoding stopped at the token limit.
    """

    segments: tuple[Segment, ...]
    language: str
    logprob: float
    end: float
    limited: bool = False

    @property
    def text(self) -> str:
        return join(self.segments)


def join(segments: Sequence[Segment]) -> str:
    """The texts of `segments` as one."""
    return " ".join(segment.text for segment in segments)


def compression(text: str) -> float:
    """How many times smaller zlib makes `text`; above about 2.4 it repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def fault(hypothesis: Hypothesis) -> str | None:
    """Why this hypothesis should be decoded again, in a word for the log, or None if it stands."""
    text = hypothesis.text
    if hypothesis.limited:
        return "limit"
    if len(text.encode()) >= MIN_COMPRESSED_BYTES and compression(text) > MAX_COMPRESSION:
        return "repetition"
    if text and hypothesis.logprob < MIN_LOGPROB:
        return "improbable"
    return None


def confidence(logprobs: Sequence[float]) -> float:
    """The geometric mean of the tokens' probabilities, 0 to 1; 0 for none."""
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0
