"""The times of words, from the decoder's attention and from the sound.

whisper.cpp's alignment by dynamic time warping gives the moment at which the decoder's attention
moves on from a token, in steps of 20 ms (`heads.py` selects the attention heads). That moment lies
between the end of a word and a little after the beginning of the next, so it does not show a pause
between the two. The sound does: `align` finds the cheapest path through the window, frame by frame,
as a chain of words and gaps (Viterbi 1967). Quiet frames in a word, frames away from its attention,
and loud frames in a gap add to the cost. The resulting words are in order, none shorter than
`SHORTEST_SECONDS`, none outside the window. Measured against joined words and a forced alignment in
docs/lab-book.md ("Word times"). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from app.audio.stream import SAMPLE_RATE, Samples
from app.messages import Segment

FRAME_SECONDS = 0.01
"""Duration of one step of the search, in seconds."""

_FRAME = round(FRAME_SECONDS * SAMPLE_RATE)

_SHORTEST_FRAMES = 4
SHORTEST_SECONDS = _SHORTEST_FRAMES * FRAME_SECONDS
"""Shortest duration of a word: about that of a short vowel, and the shortest that a player can
highlight."""

_QUIET_BELOW_PEAK = 26.0
"""Threshold in dB below the loud parts of a window; soft consonants are louder, a quiet room is
quieter."""

_NOISE_MARGIN = 4.0
"""Distance in dB of the threshold below the middle between noise and the loud parts, if noise makes
it higher than `_QUIET_BELOW_PEAK` does. More of a word than of a pause is near the threshold."""

_RAMP = 10.0
"""Distance in dB from the threshold at which a frame is certainly loud or quiet."""

_DISPLACEMENT = 2.0
"""Cost of one second's distance from the attention, relative to 1 for a quiet frame in a word. A
word half a second from its attention is as implausible as a silent one."""

_LONGEST_SECONDS, _LONGEST_PER_CHARACTER = 0.8, 0.1
"""Longest sound of the first word, in seconds: a constant part and a part per character. The
attention does not show the first word's beginning, and sound long before it was not transcribed."""

_SILENCE_COUNTS = 0.25
"""Share at which a pause between the first word and the moment when the attention moves on counts
towards that longest sound."""

_Costs = npt.NDArray[np.float64]


def align(
    segments: Sequence[Segment], moved: Sequence[float], samples: Samples, lag: float
) -> tuple[Segment, ...]:
    """Return `segments` with the times of their words, and with their own times around them.

    `moved` has the times at which the attention moved on from each word of all segments, in seconds
    from the window's beginning; the times in `segments` are not read. `samples` is the window,
    float32, shape [n], 16 kHz; `lag` is the time in seconds from a word's beginning until the
    attention moves to it. A segment without words keeps its times.
    """
    words = [word for segment in segments for word in segment.words or ()]
    if not words:
        return tuple(segments)
    seconds = len(samples) / SAMPLE_RATE
    # The search needs rising times.
    rising = np.maximum.accumulate(np.clip(np.array(moved) - lag, 0.0, seconds))
    spans = _spans(_loudness(samples), rising / FRAME_SECONDS, len(words[0].text))
    if spans is None:
        edges = np.linspace(0.0, seconds, len(words) + 1)
        times = [(float(start), float(end)) for start, end in pairwise(edges)]
    else:
        times = [(_seconds(start), _seconds(end)) for start, end in spans]
    timed = iter(times)

    def place(segment: Segment) -> Segment:
        if not segment.words:
            return segment
        spans = zip(segment.words, timed, strict=False)
        placed = tuple(replace(word, start=start, end=end) for word, (start, end) in spans)
        return replace(segment, start=placed[0].start, end=placed[-1].end, words=placed)

    return tuple(place(segment) for segment in segments)


def _seconds(frame: int) -> float:
    return round(frame * FRAME_SECONDS, 2)


def _loudness(samples: Samples) -> _Costs:
    """Return the loudness of each frame, from quiet (-1) to loud (1): float64, [n // _FRAME]."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float64)
    if not len(frames):
        return np.zeros(0)
    power = np.pad(frames.var(axis=1), 1, mode="edge")
    # Smoothed, because one pitch period of a low voice fills a frame.
    power = power[:-2] / 4 + power[1:-1] / 2 + power[2:] / 4
    levels = 10 * np.log10(np.maximum(power, 1e-12))
    peak, floor = np.percentile(levels, 95), np.percentile(levels, 5)
    threshold = max(peak - _QUIET_BELOW_PEAK, (peak + floor) / 2 - _NOISE_MARGIN)
    loudness: _Costs = np.clip((levels - threshold) / _RAMP, -1.0, 1.0)
    return loudness


def _spans(loudness: _Costs, moved: _Costs, characters: int) -> list[tuple[int, int]] | None:
    """Return the first frame of each word and the one after its last; None if the words do not fit.

    `moved` has the times at which the attention moved on from each word, in frames, rising;
    `characters` is the length of the first word.
    """
    count, frames = len(moved), len(loudness)
    if frames < count * _SHORTEST_FRAMES:
        return None
    # States in order: a gap, the first word's _SHORTEST_FRAMES, a gap, and so on to a last gap.
    # The path may stay in a gap or in a word's last state, and may skip a gap.
    stride = _SHORTEST_FRAMES + 1
    states = count * stride + 1
    position = np.arange(states) % stride
    is_gap = position == 0
    no_stay = np.where(is_gap | (position == stride - 1), 0.0, np.inf)
    skip = np.where(position == 1, 0.0, np.inf)
    owner = np.repeat(np.arange(count), stride)
    rate = _DISPLACEMENT * FRAME_SECONDS
    quiet, loud = np.maximum(0.0, -loudness), np.maximum(0.0, loudness)
    before = np.cumsum(np.maximum(loud, _SILENCE_COUNTS)[: int(moved[0])][::-1])
    longest = (_LONGEST_SECONDS + _LONGEST_PER_CHARACTER * characters) / FRAME_SECONDS
    first = moved[0] - float(np.searchsorted(before, longest))
    earliest = np.concatenate(([first], moved[:-1]))

    best = np.full(states, np.inf)
    steps = np.zeros((frames, states), dtype=np.int8)
    for frame in range(frames):
        if frame == 0:
            best[:2] = 0.0
        else:
            one = np.concatenate(([np.inf], best[:-1]))
            two = np.concatenate(([np.inf, np.inf], best[:-2])) + skip
            best = best + no_stay
            step = steps[frame]
            better = one < best
            best[better] = one[better]
            step[better] = 1
            better = two < best
            best[better] = two[better]
            step[better] = 2
        away = np.maximum(0.0, np.maximum(earliest - frame, frame - moved))
        cost = (quiet[frame] + rate * away)[owner]
        best[:-1] += np.where(is_gap[:-1], loud[frame], cost)
        best[-1] += loud[frame]
    state = states - 1 if best[-1] <= best[-2] else states - 2
    path = np.empty(frames, dtype=np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= int(steps[frame, state])
    # A word's frames are those of its states, without the gap before it.
    owners = np.where(path % stride > 0, path // stride, -1)
    edges = np.searchsorted(np.maximum.accumulate(owners), np.arange(count))
    lengths = np.bincount(owners[owners >= 0], minlength=count)
    return [(int(edge), int(edge + length)) for edge, length in zip(edges, lengths, strict=True)]
