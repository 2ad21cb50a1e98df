"""The figures of captions: first words, lag of words, erased words, and the final text.

Times are seconds from the first sample of a recording, unless a name says otherwise.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.measure import percentile
from benchmark.scoring import score


@dataclass(frozen=True)
class Shown:
    """The text on a screen from `at` on: `stable` words will not change, those of `rest` may."""

    at: float
    stable: str
    rest: str = ""

    @property
    def words(self) -> list[str]:
        return plain(self.stable + self.rest)


@dataclass(frozen=True)
class Speech:
    """What was said: its limits, the ends of its words, and the reference text."""

    start: float
    end: float
    word_ends: tuple[float, ...]
    text: str


@dataclass(frozen=True)
class Caption:
    """One recording on one system. `final_at` is the time of the last final text."""

    name: str
    speech: Speech
    shown: tuple[Shown, ...]
    final: str
    final_at: float

    @property
    def first_words(self) -> float | None:
        """Time from the beginning of the speech to the first words on the screen."""
        times = [one.at for one in self.shown if one.words]
        return min([*times, self.final_at]) - self.speech.start if times or self.final else None

    @property
    def final_latency(self) -> float:
        """Time from the end of the speech to the final text."""
        return self.final_at - self.speech.end

    @property
    def word_lags(self) -> list[float]:
        """Time from the end of each word until it is shown for good, by its place in the text."""
        lags = []
        for number, end in enumerate(self.speech.word_ends[: len(self.final.split())]):
            times = [one.at for one in self.shown if len(one.stable.split()) > number]
            lags.append(min([*times, self.final_at]) - end)
        return lags

    @property
    def erased(self) -> int:
        """Number of shown words that were replaced by others or removed; case and punctuation do
        not count."""
        return _erased([*(one.words for one in self.shown), plain(self.final)])

    @property
    def erased_stable(self) -> int:
        """The same of the stable words."""
        return _erased([*(plain(one.stable) for one in self.shown), plain(self.final)])


@dataclass(frozen=True)
class Figures:
    """All recordings of one load on one system. `cpu` is in processor seconds per audio second."""

    load: str
    system: str
    captions: tuple[Caption, ...]
    cpu: float


@dataclass(frozen=True)
class Lags:
    """A load without known words: for each utterance, seconds from the end of its speech to its
    final text."""

    load: str
    lags: tuple[float, ...]
    cpu: float

    @property
    def drift(self) -> float:
        """Median of the last fifth minus that of the first."""
        part = max(1, len(self.lags) // 5)
        return percentile(self.lags[-part:], 50) - percentile(self.lags[:part], 50)


def plain(text: str) -> list[str]:
    """Return the words without case and punctuation."""
    words = (re.sub(r"[^\w']", "", word).lower() for word in text.split())
    return [word for word in words if word]


def _erased(texts: Sequence[Sequence[str]]) -> int:
    return sum(len(before) - _same(before, after) for before, after in itertools.pairwise(texts))


def _same(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the number of words at the beginning that are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, yours) in pairs if mine != yours), min(len(one), len(other)))


def markdown(figures: Sequence[Figures], lags: Sequence[Lags]) -> str:
    """Return two tables."""
    lines = [
        "| load | system | recordings | first words, p50 / p95 | word lag, mean | final after the "
        "end of speech, p50 / p95 | erased words of shown / of stable | word errors | CPU s per "
        "audio s |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_row, figures),
        "",
        "| load | utterances | final after the end of speech, p50 / p95 | last fifth against first "
        "| CPU s per audio s |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.load} | {len(one.lags)} | {_pair(one.lags)} | {one.drift:+.2f} s | {one.cpu:.3f} |"
        for one in lags
    ]
    return "\n".join(lines)


def _row(figures: Figures) -> str:
    captions = figures.captions
    words = sum(len(one.final.split()) for one in captions) or 1
    lags = [lag for one in captions for lag in one.word_lags]
    first = [one.first_words for one in captions if one.first_words is not None]
    wrong = score([(one.speech.text, one.final) for one in captions])
    cells = [
        figures.load,
        figures.system,
        str(len(captions)),
        _pair(first),
        f"{sum(lags) / max(1, len(lags)):.2f} s",
        _pair([one.final_latency for one in captions]),
        f"{sum(one.erased for one in captions) / words:.2f} / "
        f"{sum(one.erased_stable for one in captions) / words:.2f} a word",
        str(wrong),
        f"{figures.cpu:.3f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _pair(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{percentile(values, 50):.2f} / {percentile(values, 95):.2f} s"
