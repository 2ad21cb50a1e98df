"""The probability of each language, read from the decoder's logits.

Whisper encodes a language as the token that follows its start token, so the decoder's logits after
the start token alone give the probability of each language (openai/whisper, `detect_language`).
whisper.cpp computes them when it detects a language, but reports only the best one. After an
encoder pass they cost one decoder step, about a hundredth of the pass. Worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.decoding.raw_decoder import RawDecoder

SWITCH_RATIO = 4.0
"""Ratio of another language's probability to the expected language's from which the language has
changed. Measured ratios on both sides of it: docs/lab-book.md, "Languages"."""

SWITCH_SECONDS = 1.5
"""Shortest window in which a change of language is detected, in seconds. Shorter cuts were too
often assigned to a wrong language (docs/lab-book.md, "Languages")."""


class LanguageProbe:
    """The probabilities of the languages in one loaded model.

    `start` is the number of the start token, `first` that of the first language's token, `codes`
    the languages in whisper.cpp's order.
    """

    def __init__(self, decoder: RawDecoder, start: int, first: int, codes: Sequence[str]) -> None:
        self._decoder = decoder
        self._start = start
        self._first = first
        self._codes = tuple(codes)

    def read(self) -> dict[str, float]:
        """Return probabilities by code after a detection, whose last decoder pass was the start
        token's."""
        logits = self._decoder.logits()[self._first : self._first + len(self._codes)]
        scores = logits.astype(np.float64)
        scores = np.exp(scores - scores.max())
        return dict(zip(self._codes, (scores / scores.sum()).tolist(), strict=True))

    def hear(self) -> dict[str, float]:
        """Return probabilities by code for the audio that was encoded last, by one decoder step.

        Raises `RawDecoderError`. Call it before the text is decoded, never during that: it
        overwrites the decoder's memory.
        """
        self._decoder.rewind(0)
        self._decoder.feed((self._start,))
        return self.read()


@dataclass
class LanguageWatch:
    """A check, while a window is decoded, whether its language has changed.

    `hear` returns the probabilities after the encoder has run; `expected` is the language of the
    previous window, `among` the allowed languages, `seconds` the window's length.
    """

    hear: Callable[[], Mapping[str, float]]
    expected: str
    among: Collection[str]
    seconds: float
    language: str = ""
    """The window's language; empty until the encoder has run."""
    probability: float | None = None

    @property
    def changed(self) -> bool:
        return self.language not in ("", self.expected)

    def listen(self) -> bool:
        """Return whether to stop decoding the window in the expected language.

        The caller calls it after each pass of encoder and decoder. Only the first pass is the
        encoder's.
        """
        if not self.language:
            self.language = self.expected
            heard = confined(self.hear(), self.among)
            best = max(heard, key=heard.__getitem__)
            expected = heard.get(self.expected, 0.0)
            if self.seconds >= SWITCH_SECONDS and heard[best] >= SWITCH_RATIO * expected:
                self.language = best
            self.probability = heard.get(self.language)
        return self.changed


def confined(probabilities: Mapping[str, float], among: Collection[str]) -> dict[str, float]:
    """Return the probabilities of the languages in `among`, scaled to a sum of 1; of all languages
    if `among` is empty."""
    kept = {code: p for code, p in probabilities.items() if not among or code in among}
    total = sum(kept.values())
    # Probabilities too small for a float are all 0; each language then gets the same share.
    return {code: p / total if total else 1 / len(kept) for code, p in kept.items()}
