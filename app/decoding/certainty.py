"""The certainty required of words in audio in which the detector heard no speech.

From noise Whisper produces nothing, markers of sounds, or improbable words; from whispered speech
that it understands, probable words. Pure. Figures: docs/lab-book.md ("Levels, channels and range").
"""

from __future__ import annotations

from app.decoding.hypothesis import Hypothesis

MIN_LOGPROB = -0.9
"""Lowest mean natural log of the tokens' probabilities. Whispered clips have -0.07 to -0.67 with
tiny.en, -0.57 to -0.86 with base; the most probable words produced from noise have -1.27."""


def is_sure(hypothesis: Hypothesis) -> bool:
    """Return whether a `hypothesis` has words, other than markers of sounds, that are certain."""
    said = any(character.isalnum() for character in hypothesis.text)
    return said and hypothesis.logprob >= MIN_LOGPROB
