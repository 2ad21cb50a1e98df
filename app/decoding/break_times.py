"""The times of breaks within a segment, from the sound alone.

A segment has times only at its ends, and times of words cost a tenth more time, and memory.
`SoundBreaks` needs neither: it spreads the text over the loud frames of the segment by its
characters. Each pause is then given to the most likely break near it, the longest pause first, and
the text between two such breaks is spread again. Measured against the times of words in
docs/lab-book.md ("Cue times").
Pure; times are seconds from the window's beginning.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from app.audio.stream import Samples
from app.decoding.pauses import Levels, levels_of, loud_frames, pauses, speech_edges
from app.decoding.text_breaks import Break, Piece
from app.messages import Segment

_REACH_FRAMES = 100
"""Greatest distance, in frames, of a pause from the place that the characters suggest: the 98th
percentile of the errors of those places is 0.9 s."""

_COSTS = {Break.SENTENCE: 0.0, Break.CLAUSE: 10.0, Break.WORD: 30.0, Break.INSIDE: 100.0}
"""Distances, in frames, that a pause accepts to follow a sentence instead of another break."""

_LENGTH_SHARE, _GREATEST_COST = 0.25, 100.0
"""A longer pause is worth a greater distance, by this share of its length. A pause whose best break
costs more belongs to none, such as one within a word."""

_EDGE_FRAMES = 5
"""A pause so near to an end of the segment is not within it."""

_GAP_CHARACTERS = 1.0
"""The time of a word beyond that of its characters, in characters."""


@dataclass(frozen=True, slots=True, order=True)
class _Anchor:
    """A break whose time is known: `index` counts breaks from 1; `end` and `start` are frames."""

    index: int
    end: int
    start: int


class SoundBreaks:
    """The times of breaks in a window of `samples`: float32, shape [n], 16 kHz."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    @cached_property
    def _levels(self) -> Levels:
        return levels_of(self._samples)

    def __call__(self, segment: Segment, some: Sequence[Piece]) -> list[tuple[float, float]]:
        """Return for each piece but the last when its speech ends and that of the next begins."""
        first, last = round(segment.start * 100), round(segment.end * 100)
        first, last = max(0, first), min(len(self._levels), last)
        shares = _shares(some)
        if last - first < 2:
            spread = segment.start + shares[1:-1] * (segment.end - segment.start)
            return [(float(at), float(at)) for at in spread]
        loud = loud_frames(self._levels, first, last)
        spoken = np.concatenate(([0], np.cumsum(loud[first:last])))
        breaks = _Breaks(first, last, shares, spoken)
        inside = [
            pause
            for pause in pauses(loud)
            if pause[0] > first + _EDGE_FRAMES and pause[1] < last - _EDGE_FRAMES
        ]
        for pause in sorted(inside, key=lambda pause: pause[0] - pause[1]):
            breaks.anchor(pause, some)
        return [(end / 100, start / 100) for end, start in map(breaks.times, range(1, len(some)))]


class _Breaks:
    """The breaks of one segment: `shares` of the text before each, from 0 to 1, and the number of
    loud frames `spoken` before each frame of `first` to `last`."""

    def __init__(self, first: int, last: int, shares: Levels, spoken: Levels) -> None:
        self._first = first
        self._shares = shares
        self._spoken = spoken
        self._anchors = [_Anchor(0, first, first), _Anchor(len(shares) - 1, last, last)]

    def anchor(self, pause: tuple[int, int], some: Sequence[Piece]) -> None:
        """Give a pause to the break that fits best, if one does."""
        low = max(anchor.index for anchor in self._anchors if anchor.start <= pause[0])
        high = min(anchor.index for anchor in self._anchors if anchor.end >= pause[1])
        best, least = 0, _GREATEST_COST + _LENGTH_SHARE * (pause[1] - pause[0])
        for index in range(low + 1, high):
            at = self._spread(index)
            away = max(0.0, pause[0] - at, at - pause[1])
            cost = away + _COSTS[some[index - 1].after]
            if away <= _REACH_FRAMES and cost < least:
                best, least = index, cost
        if best:
            insort(self._anchors, _Anchor(best, *speech_edges(pause)))

    def times(self, index: int) -> tuple[float, float]:
        """Return the frames at which speech ends before break `index` and begins after it."""
        for anchor in self._anchors:
            if anchor.index == index:
                return anchor.end, anchor.start
        at = self._spread(index)
        return at, at

    def _spread(self, index: int) -> float:
        """Return the frame of a break by the characters between its neighbouring anchors."""
        after = bisect_right(self._anchors, index, key=lambda anchor: anchor.index)
        low, high = self._anchors[after - 1], self._anchors[after]
        begin, end = self._shares[low.index], self._shares[high.index]
        share = (self._shares[index] - begin) / (end - begin)
        heard = self._spoken[low.start - self._first], self._spoken[high.end - self._first]
        if heard[1] <= heard[0]:
            return float(low.start + share * (high.end - low.start))
        wanted = heard[0] + share * (heard[1] - heard[0])
        return float(self._first + np.searchsorted(self._spoken, wanted))


def _shares(some: Sequence[Piece]) -> Levels:
    """Return the share of the text before each break; 0 before the first piece and 1 after the
    last."""
    weights = np.array([len(piece.text) + _GAP_CHARACTERS * piece.spaced for piece in some])
    weights[0] += _GAP_CHARACTERS
    shares: Levels = np.concatenate(([0.0], np.cumsum(weights) / weights.sum()))
    return shares
