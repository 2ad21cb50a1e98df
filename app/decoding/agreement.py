"""The part of a growing text that will not change: words on which two successive hypotheses agree.

LocalAgreement-2 (Macháček et al. 2023, "Turning Whisper into Real-Time Transcription System"): the
longest common prefix of two successive hypotheses of the same utterance is stable. Case and
punctuation do not count, because the model changes them as more is said. Pure.
"""

from __future__ import annotations

from app.decoding.tokens import UNSPACED


def words_of(text: str, language: str) -> list[str]:
    """Return the words of a text with the spaces before them; in languages without spaces, its
    characters. Joined they are the text."""
    if language in UNSPACED:
        return list(text)
    return [word if number == 0 else f" {word}" for number, word in enumerate(text.split())]


class Agreement:
    """The hypotheses of one utterance, in their order."""

    def __init__(self) -> None:
        self._stable: list[str] = []
        self._before: list[str] = []

    @property
    def stable(self) -> str:
        """The text that will not change."""
        return "".join(self._stable)

    def update(self, words: list[str]) -> str:
        """Take the next hypothesis; return the text that follows `stable` in it."""
        agreed = 0
        for old, new in zip(self._before, words, strict=False):
            if _plain(old) != _plain(new):
                break
            agreed += 1
        if agreed > len(self._stable):
            self._stable += words[len(self._stable) : agreed]
        self._before = words
        return "".join(words[len(self._stable) :])


def _plain(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum()) or word
