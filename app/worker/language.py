"""The language of a job's windows, and the language fields of its transcript.

A language that the request or the node names applies to all windows. With `auto` the first window
with speech determines it. With `multi` it is determined for each window; a window in the language
of the previous one needs no detection (`app/decoding/language_probe.py`). Worker thread.
"""

from __future__ import annotations

from dataclasses import replace

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions
from app.messages import Request, Segment


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
        self._heard: dict[str, list[tuple[float, float | None]]] = {}
        """With `multi`, seconds of speech and probability of each window, by language."""

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
            windows = self._heard.setdefault(hypothesis.language, [])
            windows.append((seconds, hypothesis.language_probability))
        elif self._language == "auto":
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
        language = max(self._heard, key=lambda code: sum(s for s, _ in self._heard[code]))
        sure = [(seconds, p) for seconds, p in self._heard[language] if p is not None]
        total = sum(seconds for seconds, _ in sure)
        return language, sum(s * p for s, p in sure) / total if total else None
