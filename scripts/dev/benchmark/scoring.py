"""Word error rate by the usual method: Whisper's English normalizer, then jiwer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import jiwer
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

_english = EnglishTextNormalizer()
_basic = BasicTextNormalizer()


@dataclass(frozen=True)
class Score:
    """Wrong words (substituted, missing, inserted) and the number of words in the reference."""

    wrong: int
    words: int

    @property
    def percent(self) -> float:
        return 100 * self.wrong / self.words if self.words else 0.0

    def __str__(self) -> str:
        return f"{self.percent:.2f} % ({self.wrong} of {self.words})"


def normal(text: str, language: str = "en") -> str:
    """Normalize a text for the comparison."""
    return str(_english(text) if language == "en" else _basic(text))


def joined(text: str) -> str:
    """Reduce a text for an exact comparison: the normalizer turns "one two three" into 123, but
    keeps "1, 2, 3"."""
    return normal(text).replace(" ", "")


def score(pairs: Iterable[tuple[str, str]]) -> Score:
    """Score (reference, hypothesis) pairs together; an empty reference counts insertions."""
    wrong = words = 0
    for reference, hypothesis in pairs:
        expected, heard = normal(reference), normal(hypothesis)
        if not expected:
            wrong += len(heard.split())
            continue
        result = jiwer.process_words(expected, heard)
        wrong += result.substitutions + result.deletions + result.insertions
        words += len(expected.split())
    return Score(wrong, words)
