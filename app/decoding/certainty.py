"""Whether a decode is sure enough to make words of audio in which the detector heard no speech.

Of noise Whisper makes nothing, markers of sounds, or words that it finds improbable; of a whisper
that it understands, probable words. Pure. Figures are in docs/lab-book.md ("Levels, channels and
range").
"""

from __future__ import annotations

from app.decoding.hypothesis import Hypothesis

MIN_LOGPROB = -0.9
"""Mean natural log of the tokens' probabilities. Whispered clips have -0.07 to -0.67 with tiny.en,
-0.57 to -0.86 with base; the likeliest words made of noise have -1.27."""


def is_sure(hypothesis: Hypothesis) -> bool:
    """Whether to believe the words of a `hypothesis`; markers of other sounds are none."""
    said = any(character.isalnum() for character in hypothesis.text)
    return said and hypothesis.logprob >= MIN_LOGPROB
