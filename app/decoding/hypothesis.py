"""What one decode of one window said, and how much it is to be believed.

`Hypothesis` is made by the engine from whisper.cpp's tokens; `fault` judges it. Two kinds of rules:
Whisper's own for its temperature fallback (Radford et al. 2022, section 4.5: a text that compresses
too well is a loop, one whose tokens were improbable is a guess), and stricter ones for a decode
with a reduced encoder context, which is repeated cheaply compared with what it saved. Pure; times
are seconds from the window's beginning.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.decoding.decoded import Decoded
from app.decoding.markers import without_markers
from app.messages import Segment

MAX_COMPRESSION = 2.4
MIN_LOGPROB = -1.0
"""Both thresholds as in openai/whisper's transcribe(): compression_ratio_threshold and
logprob_threshold."""

REDUCED_MAX_COMPRESSION = 2.0
REDUCED_MAX_WORDS_PER_SECOND = 6.0
"""Fast speech has 4 to 5 words a second; a short loop is caught by this before it compresses."""

ENGLISH_TOKENS_PER_SECOND, OTHER_TOKENS_PER_SECOND, EXTRA_TOKENS = 8, 24, 16
"""The most tokens a reduced decode may take: fast English speech has about 6 a second, timestamps
included. A loop ends here instead of at the 220 of a whole window. Whisper's tokens were made for
English; a script of its own costs it two to three times as many, which is an estimate, not measured
on speech."""

ECHO_WORDS = 6
"""Words in a row that a window and the text before it have in common only if the decoder repeats
its prompt, or the speaker himself: then decoding without the prompt gives the same."""

REPEATED_WORDS = 2
"""From this many on, different ones among them, words that a reduced decode says twice in a row are
taken for a loop: short ones do not compress. "And so my fellow Americans", "hey computer" and "by a
similar process" came twice, in none of 66 clips in five versions each did anybody say so. "No, no"
and "five five five five" are things people say."""

_PUNCTUATION = ".,;:!?\"'()[]-\u2013\u2014\u2026\u00bf\u00a1\u3001\u3002\u0964"
"""What may stand at the ends of a word, in English, Spanish, Japanese and Hindi."""

MIN_COMPRESSED_CHARACTERS = 40
"""Shorter texts are not judged by compression: zlib's own header and tables dominate, and "no, no,
no, no" is a thing people say."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The segments of a window, as the model wrote them.

    `end` is where the last segment ends, `logprob` the mean natural log of the text tokens'
    probabilities, `language` a code, `language_probability` 0 to 1 where it was detected, `limited`
    true where decoding stopped at the token limit, `encoder_context` the positions used, `passes`
    how many decodes it took to get here, `decoded` the tokens that the segments were made of.
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
        """The segments without markers of other sounds; empty where there is nothing else."""
        return without_markers(self.segments)

    @property
    def text(self) -> str:
        """The text of what is spoken."""
        return join(self.spoken)


def join(segments: Sequence[Segment]) -> str:
    """The texts of `segments` as one."""
    return " ".join(segment.text for segment in segments)


def compression(text: str) -> float:
    """How many times smaller zlib makes `text`; above about 2.4 it repeats itself.

    Each different character counts as one byte, in whatever script: in UTF-8 an ordinary sentence
    in Hindi or Thai, three bytes a character, compresses as well as a loop in English.
    """
    codes = {character: code % 256 for code, character in enumerate(dict.fromkeys(text))}
    data = bytes(codes[character] for character in text)
    return len(data) / len(zlib.compress(data))


def most_tokens(seconds: float, language: str) -> int:
    """How many tokens a reduced decode of a window may take."""
    rate = ENGLISH_TOKENS_PER_SECOND if language == "en" else OTHER_TOKENS_PER_SECOND
    return int(rate * seconds) + EXTRA_TOKENS


def normal_words(text: str) -> list[str]:
    # Not by \w, which takes the vowel signs of Hindi and others for the ends of words.
    bare = (word.strip(_PUNCTUATION) for word in text.lower().split())
    return [word for word in bare if word]


def echoes(text: str, prompt: str) -> bool:
    """Whether `text` says ECHO_WORDS words in a row that the prompt says as well."""

    def runs(words: list[str]) -> set[tuple[str, ...]]:
        count = len(words) - ECHO_WORDS + 1
        return {tuple(words[at : at + ECHO_WORDS]) for at in range(count)}

    return not runs(normal_words(text)).isdisjoint(runs(normal_words(prompt)))


def repeats(text: str) -> bool:
    """Whether REPEATED_WORDS or more, not all the same, stand in `text` twice in a row."""
    said = normal_words(text)
    return any(
        said[at : at + count] == said[at + count : at + 2 * count]
        and len(set(said[at : at + count])) > 1
        for count in range(REPEATED_WORDS, len(said) // 2 + 1)
        for at in range(len(said) - 2 * count + 1)
    )


def fault(hypothesis: Hypothesis, seconds: float, reduced: bool, prompt: str = "") -> str | None:
    """Why a window of `seconds` should be decoded again, in a word for the log; None if it stands.

    `reduced` says that it was decoded with less than the whole encoder context. A `prompt` can make
    the decoder think that all has been said, or say it again.
    """
    text = hypothesis.text
    if hypothesis.limited:
        return "limit"
    most = REDUCED_MAX_COMPRESSION if reduced else MAX_COMPRESSION
    if len(text) >= MIN_COMPRESSED_CHARACTERS and compression(text) > most:
        return "repetition"
    if reduced and repeats(text):
        return "repetition"
    if text and hypothesis.logprob < MIN_LOGPROB:
        return "improbable"
    if prompt and echoes(text, prompt):
        return "echo"
    if not text and (reduced or prompt):
        return "empty"
    if reduced and len(text.split()) > REDUCED_MAX_WORDS_PER_SECOND * max(1.0, seconds):
        return "too fast"
    return None


def confidence(logprobs: Sequence[float]) -> float:
    """The geometric mean of the tokens' probabilities, 0 to 1; 0 for none."""
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0
