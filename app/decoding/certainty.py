"""Whether a decode is sure enough to make words of audio in which the detector heard no speech.

Of noise Whisper makes nothing, markers, single words ("you") or improbable ones. Of a whisper that
it understands it makes probable sentences. Pure. Figures are in docs/lab-book.md ("Levels").
"""

from __future__ import annotations

from app.decoding.hypothesis import Hypothesis

MIN_LOGPROB = -0.5
"""Mean natural log of the tokens' probabilities."""

MIN_FEW_LOGPROB, FEW_WORDS = -0.25, 3
"""Fewer words are easier to make up, so they have to be surer."""


def is_sure(hypothesis: Hypothesis) -> bool:
    """Whether to believe the words of a `hypothesis`; markers of other sounds are none."""
    words = hypothesis.text.split()
    if not any(character.isalnum() for word in words for character in word):
        return False
    return hypothesis.logprob >= (MIN_FEW_LOGPROB if len(words) < FEW_WORDS else MIN_LOGPROB)
