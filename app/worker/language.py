"""The language of a job's windows, and the language fields of its transcript.

A language that the request or the node names applies to all windows. With `auto` the first window
with speech determines it. With `multi` it is determined for each window; a window in the language
of the previous one needs no detection (`app/decoding/language_probe.py`). Worker thread.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions
from app.messages import Request, Segment


@dataclass(frozen=True, slots=True)
class _Heard:
    """The windows in one language, summed up: a stream may have any number of them."""

    seconds: float = 0.0
    detected_seconds: float = 0.0
    """Seconds of the windows whose language has a probability."""
    weighted: float = 0.0
    """Sum of their probabilities, each times the seconds of its window."""

    def plus(self, seconds: float, probability: float | None) -> _Heard:
        if probability is None:
            return replace(self, seconds=self.seconds + seconds)
        return _Heard(
            self.seconds + seconds,
            self.detected_seconds + seconds,
            self.weighted + seconds * probability,
        )


class SpokenLanguage:
    """The language of one job. `default` is the node's language (a code, `auto` or `multi`), for a
    request without one; `default_among` are the languages to which the node restricts detection."""

    def __init__(self, request: Request, default: str, default_among: tuple[str, ...]) -> None:
        asked = request.language or default
        if request.language is None and request.languages and asked != "multi":
            # A list requests detection, even if the node has one language.
            asked = "auto"
        detected = asked in ("auto", "multi")
        self._among = (request.languages or default_among) if detected else ()
        self.is_multi = asked == "multi"
        """Whether each window may have another language."""
        self._language = "auto" if detected else asked
        if len(self._among) == 1:
            self._language = self._among[0]
        self._before: str | None = None
        """With `multi`, the language of the last window with speech."""
        self._probability: float | None = None
        self._heard: dict[str, _Heard] = {}
        """With `multi`, the windows with speech, by language."""

    @property
    def last(self) -> str | None:
        """The language of the last window with speech; None if it is not known."""
        if self._before is not None:
            return self._before
        return None if self._language == "auto" else self._language

    def fork(self) -> SpokenLanguage:
        """Return a copy that continues from here."""
        twin = copy.copy(self)
        twin._heard = dict(self._heard)
        return twin

    def options(self, options: DecodeOptions) -> DecodeOptions:
        """Return `options` for the next window."""
        return replace(
            options,
            language=self._language,
            languages=self._among,
            expected_language=self._before if self._language == "auto" else None,
        )

    def note(self, hypothesis: Hypothesis) -> None:
        """Take the language of a decoded window, if it has speech."""
        spoken = hypothesis.spoken
        if not spoken:
            return
        if self.is_multi:
            self._before = hypothesis.language
            seconds = sum(segment.end - segment.start for segment in spoken)
            heard = self._heard.get(hypothesis.language, _Heard())
            self._heard[hypothesis.language] = heard.plus(seconds, hypothesis.language_probability)
        elif self._language == "auto":
            self._language = hypothesis.language
            self._probability = hypothesis.language_probability

    def guess(self, hypothesis: Hypothesis) -> None:
        """Take the likely language of audio without words, if none is known."""
        if self._language == "auto":
            self._language = hypothesis.language
            self._probability = hypothesis.language_probability

    def tagged(self, segment: Segment, hypothesis: Hypothesis) -> Segment:
        """Return `segment` of `hypothesis`; with `multi`, with its language."""
        return replace(segment, language=hypothesis.language) if self.is_multi else segment

    def summary(self) -> tuple[str | None, float | None]:
        """Return the language of most of the speech, and its probability: the mean over its
        windows, weighted by their seconds of speech. The probability is None without a
        detection."""
        if not self.is_multi:
            return (None if self._language == "auto" else self._language), self._probability
        if not self._heard:
            return None, None
        language = max(self._heard, key=lambda code: self._heard[code].seconds)
        heard = self._heard[language]
        total = heard.detected_seconds
        return language, heard.weighted / total if total else None
