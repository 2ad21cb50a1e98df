"""Which language the windows of a job are decoded in, and what its transcript says of it.

A language that the request or the node names holds for all windows. With `auto` the first window
with speech determines it. With `multi` each window is examined again. A window in the language of
the preceding one costs no detection (`app/decoding/language_probe.py`). Worker thread.
"""

from __future__ import annotations

from dataclasses import replace

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions
from app.messages import Request, Segment


class SpokenLanguage:
    """The language of one job. `default` is the node's language (a code, `auto` or `multi`), for a
    request that names none; `default_among` the languages that the node confines detection to."""

    def __init__(self, request: Request, default: str, default_among: tuple[str, ...]) -> None:
        asked = request.language or default
        if request.language is None and request.languages and asked != "multi":
            # A list asks for detection, also where the node has one language.
            asked = "auto"
        detected = asked in ("auto", "multi")
        self._among = (request.languages or default_among) if detected else ()
        self.is_multi = asked == "multi"
        """Whether each window may have another."""
        self._language = "auto" if detected else asked
        if len(self._among) == 1:
            self._language = self._among[0]
        self._before: str | None = None
        """With `multi`, the language of the last window in which something was said."""
        self._probability: float | None = None
        self._heard: dict[str, list[tuple[float, float | None]]] = {}
        """With `multi`, seconds of speech and probability of each window, by language."""

    def options(self, options: DecodeOptions) -> DecodeOptions:
        """`options` for the next window."""
        return replace(
            options,
            language=self._language,
            languages=self._among,
            expected_language=self._before if self._language == "auto" else None,
        )

    def note(self, hypothesis: Hypothesis) -> None:
        """Take what a window was heard as. One without speech tells nothing."""
        spoken = hypothesis.spoken
        if not spoken:
            return
        if self.is_multi:
            self._before = hypothesis.language
            seconds = sum(segment.end - segment.start for segment in spoken)
            windows = self._heard.setdefault(hypothesis.language, [])
            windows.append((seconds, hypothesis.language_probability))
        elif self._language == "auto":
            self._language = hypothesis.language
            self._probability = hypothesis.language_probability

    def tagged(self, segment: Segment, hypothesis: Hypothesis) -> Segment:
        """`segment` of `hypothesis`, with `multi` with its language."""
        return replace(segment, language=hypothesis.language) if self.is_multi else segment

    def summary(self) -> tuple[str | None, float | None]:
        """The language of most of the speech, and how probable it was: the mean over its windows,
        by their seconds of speech. The probability is None where nothing was detected."""
        if not self.is_multi:
            return (None if self._language == "auto" else self._language), self._probability
        if not self._heard:
            return None, None
        language = max(self._heard, key=lambda code: sum(s for s, _ in self._heard[code]))
        sure = [(seconds, p) for seconds, p in self._heard[language] if p is not None]
        total = sum(seconds for seconds, _ in sure)
        return language, sum(s * p for s, p in sure) / total if total else None
