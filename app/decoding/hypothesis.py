"""The hypothesis: the decoder's result for one window, with its probabilities.

The engine makes it from whisper.cpp's tokens; `app/decoding/faults.py` accepts or rejects it. Pure;
times are seconds from the window's beginning.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.decoding.decoded import Decoded
from app.decoding.markers import without_markers
from app.messages import Segment

ENGLISH_TOKENS_PER_SECOND, OTHER_TOKENS_PER_SECOND, EXTRA_TOKENS = 8, 24, 16
"""The most tokens a reduced decode may take: fast English speech has about 6 a second, timestamps
included. A loop ends here instead of at the 220 of a whole window. Whisper's tokens were made for
English; a script of its own costs it two to three times as many, which is an estimate, not measured
on speech."""

_PUNCTUATION = ".,;:!?\"'()[]-\u2013\u2014\u2026\u00bf\u00a1\u3001\u3002\u0964"
"""Characters that may stand at the ends of a word, in English, Spanish, Japanese and Hindi."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The segments of a window, as the model wrote them.

    `end` is the end of the last segment, `logprob` the mean natural log of the text tokens'
    probabilities, `language` a code, and `language_probability` 0 to 1 if it was detected.
    `limited` is True if decoding stopped at the token limit. `encoder_context` is the number of
    positions used, `passes` the number of decodes of the window. `decoded` has the tokens that the
    segments were made of.
    """

    segments: tuple[Segment, ...]
    language: str
    logprob: float
    end: float
    limited: bool = False
    language_probability: float | None = None
    encoder_context: int = 0
    passes: int = 1
    decoded: Decoded = field(default_factory=Decoded)

    @property
    def spoken(self) -> tuple[Segment, ...]:
        """The segments without markers of other sounds; empty if there is nothing else."""
        return without_markers(self.segments)

    @property
    def text(self) -> str:
        """The text of the spoken segments."""
        return join(self.spoken)


def join(segments: Sequence[Segment]) -> str:
    """Return the texts of `segments` as one."""
    text = ""
    before: Segment | None = None
    for segment in segments:
        text += joint(before, segment) + segment.text
        before = segment
    return text


def joint(before: Segment | None, segment: Segment) -> str:
    """Return the white space between a segment and that `before` it."""
    # Between channels there always is one.
    is_same = before is not None and segment.channel == before.channel
    return "" if before is None or (segment.continues and is_same) else " "


def compression(text: str) -> float:
    """Return the factor by which zlib makes `text` smaller; above about 2.4 it repeats itself.

    Each different character counts as one byte, in whatever script: in UTF-8 an ordinary sentence
    in Hindi or Thai, three bytes a character, compresses as well as a loop in English.
    """
    codes = {character: code % 256 for code, character in enumerate(dict.fromkeys(text))}
    data = bytes(codes[character] for character in text)
    return len(data) / len(zlib.compress(data))


def most_tokens(seconds: float, language: str) -> int:
    """Return the most tokens that a reduced decode of a window may take."""
    rate = ENGLISH_TOKENS_PER_SECOND if language == "en" else OTHER_TOKENS_PER_SECOND
    return int(rate * seconds) + EXTRA_TOKENS


def normal_words(text: str) -> list[str]:
    # Not by \w, which takes the vowel signs of Hindi and others for the ends of words.
    bare = (word.strip(_PUNCTUATION) for word in text.lower().split())
    return [word for word in bare if word]


def confidence(logprobs: Sequence[float]) -> float:
    """The geometric mean of the tokens' probabilities, 0 to 1; 0 for none."""
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0
