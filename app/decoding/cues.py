"""Subtitle segments: short, and at the time of their speech.

Whisper's timestamps are often rounded to whole seconds, and a segment can be as long as the window.
`fit` moves the edges of segments into the pauses of the audio. It divides a segment that is still
too long at the end of a sentence, clause or word, in a pause near the place that the share of text
suggests.
Measured in docs/lab-book.md ("Subtitle times"). Pure; times are seconds from the window's
beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from app.audio.stream import Samples
from app.decoding.pauses import (
    PAD_FRAMES,
    PAUSE_FRAMES,
    Levels,
    Mask,
    levels_of,
    loud_frames,
    pauses,
    speech_edges,
)
from app.decoding.text_tokens import divided, length_of
from app.messages import Segment, Word

LONGEST_SECONDS = 8.0
"""Longest segment that stays whole, in seconds: two lines of subtitle are read in 6 to 8 s."""

_REACH_FRAMES = 60
"""Greatest distance of a pause from the timestamp that belongs to it, in frames: a little more than
half a second, because the small models round to whole seconds."""

_CUT_REACH_FRAMES = 150
"""Greatest distance, in frames, of a pause from a place that the share of text suggests."""

_CLAUSE_COST, _WORD_COST = 0.1, 0.3
"""Distances from the middle, as shares of a segment's text, that a division accepts to follow a
sentence instead of a clause, and a clause instead of a word."""

_SLOWEST_BYTES_PER_SECOND, _LEAST_SECONDS = 4, 2.0
"""Slowest speech and shortest duration, in seconds, of a word or marker alone in a segment that is
too long. Its time ends at the segment's end."""

_SENTENCE_ENDS = ".?!\u3002\uff1f\uff01\u0964\u061f"
_CLAUSE_ENDS = ",;:\u2026\u2014\u3001\uff0c\uff1b\uff1a\u060c"

_MARKER = re.compile(r"[\[(][^\])]{1,40}[\])]")
"""A text in brackets, which may be a marker such as "[MUSIC PLAYING]"; it is not divided."""


def fit(segments: Sequence[Segment], samples: Samples) -> tuple[Segment, ...]:
    """Return `segments` at the time of their speech in `samples`, the long ones divided.

    A segment over LONGEST_SECONDS remains only if its text has no place for a division. `samples`
    is the window, float32, shape [n], 16 kHz. The joined text does not change.
    """
    levels = levels_of(samples)
    if not len(levels) or not segments:
        return tuple(segments)
    moved = _into_pauses(segments, levels)
    return tuple(part for segment in moved for part in _divided(segment, levels))


def _near_pause(loud: Mask, first: int, last: int, reach: int) -> tuple[int, int] | None:
    """Return the longest and nearest pause at most `reach` frames from `first` to `last`."""

    def worth(pause: tuple[int, int]) -> int:
        away = max(0, pause[0] - last, first - pause[1])
        return min(pause[1] - pause[0], reach) - away

    found = [
        (begin, end) for begin, end in pauses(loud) if end > first - reach and begin < last + reach
    ]
    return max(found, key=worth) if found else None


def _into_pauses(segments: Sequence[Segment], levels: Levels) -> list[Segment]:
    starts = [round(segment.start * 100) for segment in segments]
    ends = [round(segment.end * 100) for segment in segments]
    starts[0] = _start(levels, starts[0], ends[0])
    ends[-1] = _end(levels, starts[-1], ends[-1])
    for index in range(len(segments) - 1):
        end, start = ends[index], starts[index + 1]
        if start - end > 2 * _REACH_FRAMES:
            ends[index] = _end(levels, starts[index], end)
            starts[index + 1] = _start(levels, start, ends[index + 1])
            continue
        pause = _near_pause(loud_frames(levels, end, start), end, start, _REACH_FRAMES)
        if pause is not None and starts[index] < pause[0] and pause[1] < ends[index + 1]:
            ends[index], starts[index + 1] = speech_edges(pause)
    moved: list[Segment] = []
    earliest, latest = 0.0, max(segments[-1].end, len(levels) / 100)
    for segment, first, last in zip(segments, starts, ends, strict=True):
        times = (first / 100, last / 100) if first < last else (segment.start, segment.end)
        begin = min(max(times[0], earliest), latest)
        earliest = max(begin, min(times[1], latest))
        moved.append(_with_times(segment, begin, earliest))
    return moved


def _start(levels: Levels, first: int, last: int) -> int:
    """Return the beginning of speech in frames `first` to `last`, or just before them."""
    loud = loud_frames(levels, first, last)
    inside = np.flatnonzero(loud[first:last])
    if not len(inside):
        return first
    if inside[0] > PAD_FRAMES:
        return first + int(inside[0]) - PAD_FRAMES
    before = [pause for pause in pauses(loud) if first - _REACH_FRAMES < pause[1] <= first]
    return speech_edges(before[-1])[1] if before else first


def _end(levels: Levels, first: int, last: int) -> int:
    """Return the end of speech in frames `first` to `last`, or just after them."""
    loud = loud_frames(levels, first, last)
    inside = np.flatnonzero(loud[first:last])
    if not len(inside):
        return last
    final = first + int(inside[-1]) + 1
    if final < last - PAD_FRAMES:
        return final + PAD_FRAMES
    after = [pause for pause in pauses(loud) if last <= pause[0] < last + _REACH_FRAMES]
    return speech_edges(after[0])[0] if after else last


def _divided(segment: Segment, levels: Levels) -> Iterator[Segment]:
    if segment.end - segment.start <= LONGEST_SECONDS:
        yield segment
        return
    offset = _division(segment)
    if offset is None:
        spoken = max(_LEAST_SECONDS, len(segment.text.encode()) / _SLOWEST_BYTES_PER_SECOND)
        spoken = min(spoken, LONGEST_SECONDS)
        yield _with_times(segment, max(segment.start, segment.end - spoken), segment.end)
        return
    first, last = round(segment.start * 100), round(segment.end * 100)
    end, start = _cut(levels, first, last, offset / len(segment.text))
    texts = segment.text[:offset].strip(), segment.text[offset:].strip()
    words = _divided_words(segment.words, length_of(texts[0]))
    tokens = divided(segment.tokens, texts)
    parts = (segment.start, end / 100), (start / 100, segment.end)
    for text, some, said, (begin, finish) in zip(texts, words, tokens, parts, strict=True):
        part = replace(segment, text=text, words=some, tokens=said)
        part = _with_times(part, begin, finish)
        yield from _divided(part, levels)


def _division(segment: Segment) -> int | None:
    """Return the best offset for a division of the text; None if there is none."""
    text = segment.text
    breaks = [at for at in range(1, len(text)) if text[at].isspace()]
    whole = [match.span() for match in _MARKER.finditer(text)]
    breaks = [at for at in breaks if not any(first < at < last for first, last in whole)]
    if not breaks and segment.words is None:
        # Without spaces: after every punctuation mark, or else after every character.
        marks = _SENTENCE_ENDS + _CLAUSE_ENDS
        breaks = [at for at in range(1, len(text)) if text[at - 1] in marks]
        breaks = breaks or list(range(1, len(text))) if not text.isascii() else breaks

    def cost(at: int) -> float:
        away = abs(at / len(text) - 0.5)
        if text[at - 1] in _SENTENCE_ENDS:
            return away
        return away + _CLAUSE_COST + (0.0 if text[at - 1] in _CLAUSE_ENDS else _WORD_COST)

    return min(breaks, key=cost) if breaks else None


def _cut(levels: Levels, first: int, last: int, share: float) -> tuple[int, int]:
    """Return end and start of two parts, in frames; the first has `share` of the speech."""
    loud = loud_frames(levels, first, last)
    spoken = np.cumsum(loud[first:last])
    if len(spoken) and spoken[-1]:
        at = first + int(np.searchsorted(spoken, share * spoken[-1]))
    else:
        at = first + round(share * (last - first))
    margin = min(PAUSE_FRAMES, (last - first) // 4)
    inside = [
        (begin, end)
        for begin, end in pauses(loud)
        if begin > first + margin
        and end < last - margin
        and abs((begin + end) / 2 - at) <= _CUT_REACH_FRAMES
    ]
    if inside:
        return speech_edges(
            max(inside, key=lambda pause: pause[1] - pause[0] - abs(sum(pause) / 2 - at) / 4)
        )
    return at, at


def _divided_words(
    words: tuple[Word, ...] | None, characters: int
) -> tuple[tuple[Word, ...] | None, tuple[Word, ...] | None]:
    """Return `words` within and after the first `characters` of the text, not counting spaces."""
    if words is None:
        return None, None
    count = taken = 0
    while count < len(words) and taken < characters:
        taken += len("".join(words[count].text.split()))
        count += 1
    return words[:count], words[count:]


def _with_times(segment: Segment, start: float, end: float) -> Segment:
    """Return `segment` from `start` to `end`, with its words kept inside."""

    def inside(word: Word) -> Word:
        return replace(
            word, start=min(max(word.start, start), end), end=min(max(word.end, start), end)
        )

    words = None if segment.words is None else tuple(inside(word) for word in segment.words)
    return replace(segment, start=start, end=end, words=words)
