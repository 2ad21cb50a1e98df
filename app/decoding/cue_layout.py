"""Subtitle cues of a size that people can read in their time.

`lay_out` divides a segment into cues of at most so many columns, lines and seconds. Among all
divisions it takes the one of the least cost: few cues of similar size that end with a sentence, a
clause or in a pause. A segment that fits is one cue, whatever its text. Lines are divided in the
same way. Nothing is joined, and no text changes. Pure; times are seconds.

The method is that of Knuth and Plass, "Breaking paragraphs into lines" (1981), for cues and, within
each cue, for lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.decoding.text_breaks import Break, Piece, pieces
from app.decoding.text_tokens import divided, fitted
from app.limits import MAX_LINE_WIDTH, CueLayout
from app.messages import Segment, Word

CHANNEL_LABEL_COLUMNS = len("Channel 1: ")
"""Columns of the label in a cue of a split recording (`app/protocols/subtitles.py`)."""

BreakTimes = Callable[[Segment, Sequence[Piece]], Sequence[tuple[float, float]]]
"""Return for each piece but the last when its speech ends, and when that of the next begins."""

_CUE_COST = 1.0
_END_COSTS = {Break.SENTENCE: 0.0, Break.CLAUSE: 0.6, Break.WORD: 2.0, Break.INSIDE: 6.0}
"""Costs of a cue, and of its end. A clause is worth two thirds of a further cue, and the end of a
word outweighs two."""

_PAUSE_SECONDS, _PAUSE_SHARE = 0.35, 0.3
"""A pause of so many seconds lowers the cost of an end to this share, a shorter one in
proportion."""

_SHORT_SECONDS, _SHORT_COST = 1.0, 2.0
"""Shorter cues cannot be read; the cost is for one without any duration."""

_OVERLONG_COST = 100.0
"""Cost of a cue that is too long because its one piece is."""

_LINE_END_COSTS = {Break.SENTENCE: 0.0, Break.CLAUSE: 0.1, Break.WORD: 0.3, Break.INSIDE: 3.0}
"""Costs of a line's end, relative to 1 for an unused line."""


@dataclass(frozen=True, slots=True)
class _Page:
    """The pieces of a segment and the size of a cue; the first line of a cue is narrower."""

    pieces: Sequence[Piece]
    first_width: int
    width: int
    lines: int

    def line_columns(self, begin: int, end: int) -> int:
        """Return the columns of one line with pieces `begin` to `end`."""
        some = self.pieces[begin:end]
        return sum(piece.columns for piece in some) + sum(piece.spaced for piece in some[1:])

    def text(self, begin: int, end: int) -> str:
        """Return the text of pieces `begin` to `end` in one line."""
        parts = [(" " if piece.spaced else "") + piece.text for piece in self.pieces[begin:end]]
        return "".join(parts).lstrip(" ")


def lay_out(
    segment: Segment, layout: CueLayout, times: BreakTimes, label_columns: int = 0
) -> tuple[Segment, ...]:
    """Return the cues of `segment`, each a segment with `lines`.

    `times` is asked only for a segment that must be divided and has no words. `label_columns` stay
    free in the first line of each cue. A cue is longer than `layout.seconds` only if it would be a
    part of a word; then it ends early.
    """
    text = " ".join(segment.text.split())
    first_width = max(1, layout.width - label_columns)
    widest = MAX_LINE_WIDTH if layout.whole_words else first_width
    page = _Page(pieces(text, widest), first_width, layout.width, layout.lines)
    count = len(page.pieces)
    if not count or not text:
        return (segment,)
    fits = segment.end - segment.start <= layout.seconds
    if fits and _reach(page, 0) == count:
        whole = replace(segment, text=text, tokens=fitted(segment.tokens, text))
        return (replace(whole, lines=_lines(page, 0, count)),)
    if segment.words is None:
        breaks = list(times(segment, page.pieces))
    else:
        breaks = _word_times(segment.words, page.pieces)
    starts, ends = _clamped(segment, breaks)
    words = _words(segment.words, page.pieces)
    cues = []
    divisions = _divisions(page, starts, ends, layout.seconds)
    tokens = divided(segment.tokens, [page.text(begin, end) for begin, end in divisions])
    for (begin, end), some in zip(divisions, tokens, strict=True):
        last = min(ends[end - 1], starts[begin] + layout.seconds)
        cues.append(
            replace(
                segment,
                start=starts[begin],
                end=last,
                text=page.text(begin, end),
                lines=_lines(page, begin, end),
                words=None if words is None else _within(words[begin:end], last),
                continues=begin > 0 and not page.pieces[begin].spaced,
                tokens=some,
            )
        )
    return tuple(cues)


def _clamped(
    segment: Segment, breaks: Sequence[tuple[float, float]]
) -> tuple[list[float], list[float]]:
    """Return the start and the end of each piece, in order and within the segment."""
    starts, ends = [segment.start], []
    for end, start in breaks:
        ends.append(min(max(end, starts[-1]), segment.end))
        starts.append(min(max(start, ends[-1]), segment.end))
    return starts, [*ends, max(segment.end, starts[-1])]


def _reach(page: _Page, begin: int) -> int:
    """Return the end of the longest cue that begins with piece `begin`: one piece at least."""
    line, used, at, first = 1, 0, begin, begin
    while at < len(page.pieces):
        piece = page.pieces[at]
        width = page.first_width if line == 1 else page.width
        needed = piece.columns + (piece.spaced if at > first else 0)
        if at > first and used + needed > width:
            if line == page.lines:
                break
            line, used, needed, first = line + 1, 0, piece.columns, at
        used += needed
        at += 1
    return at


def _divisions(
    page: _Page, starts: Sequence[float], ends: Sequence[float], seconds: float
) -> list[tuple[int, int]]:
    """Return the first piece of each cue, and the one after its last."""
    count = len(page.pieces)
    capacity = page.first_width + page.width * (page.lines - 1)
    best = [0.0] + [float("inf")] * count
    before = [0] * (count + 1)
    for begin in range(count):
        used = 0
        for end in range(begin + 1, _reach(page, begin) + 1):
            piece = page.pieces[end - 1]
            used += piece.columns + piece.spaced
            lasts = ends[end - 1] - starts[begin]
            is_overlong = lasts > seconds
            if is_overlong and end > begin + 1:
                break
            cost = best[begin] + _CUE_COST + (used / capacity) ** 2
            cost += _SHORT_COST * max(0.0, 1 - lasts / _SHORT_SECONDS)
            cost += _OVERLONG_COST * is_overlong
            if end < count:
                pause = (starts[end] - ends[end - 1]) / _PAUSE_SECONDS
                cost += _END_COSTS[piece.after] * (1 - (1 - _PAUSE_SHARE) * min(1.0, pause))
            if cost < best[end]:
                best[end], before[end] = cost, begin
    return _path(before, count)


def _lines(page: _Page, begin: int, end: int) -> tuple[str, ...]:
    """Return the lines of a cue, as few as possible, of similar length."""
    if page.line_columns(begin, end) <= page.first_width:
        return (page.text(begin, end),)
    # By the number of lines so far: the least cost up to each piece.
    least: list[dict[int, tuple[float, int]]] = [{begin: (0.0, begin)}]
    while end not in least[-1] and len(least) <= end - begin:
        width = page.first_width if len(least) == 1 else page.width
        reached: dict[int, tuple[float, int]] = {}
        for first, (cost, _) in least[-1].items():
            for last in range(first + 1, end + 1):
                used = page.line_columns(first, last)
                if used > width and last > first + 1:
                    break
                total = cost + (used / width) ** 2
                if last < end:
                    total += _LINE_END_COSTS[page.pieces[last - 1].after]
                if last not in reached or total < reached[last][0]:
                    reached[last] = total, first
        least.append(reached)
    lines: list[str] = []
    for reached in reversed(least[1:]):
        first = reached[end][1]
        lines.append(page.text(first, end))
        end = first
    return tuple(reversed(lines))


def _path(before: Sequence[int], end: int) -> list[tuple[int, int]]:
    path = []
    while end > 0:
        path.append((before[end], end))
        end = before[end]
    return path[::-1]


def _owners(words: Sequence[Word], some: Sequence[Piece]) -> list[int]:
    """Return for each word the piece in which it begins, by the characters before it."""
    lengths = [len(piece.text) for piece in some]
    owners, piece, used, taken = [], 0, 0, 0
    for word in words:
        while piece < len(some) - 1 and used + lengths[piece] <= taken:
            used += lengths[piece]
            piece += 1
        owners.append(piece)
        taken += len("".join(word.text.split()))
    return owners


def _word_times(words: Sequence[Word], some: Sequence[Piece]) -> list[tuple[float, float]]:
    """Return the times between pieces by the words. A word that begins before a break and ends
    after it is divided by its characters."""
    characters = [len("".join(word.text.split())) for word in words]
    times, index, before, taken = [], 0, 0, 0
    for piece in some[:-1]:
        taken += len(piece.text)
        while index < len(words) - 1 and before + characters[index] <= taken:
            before += characters[index]
            index += 1
        word = words[index] if words else None
        if word is None:
            times.append((0.0, 0.0))
        elif before >= taken and index > 0:
            times.append((words[index - 1].end, word.start))
        else:
            share = min(1.0, (taken - before) / max(1, characters[index]))
            at = word.start + share * (word.end - word.start)
            times.append((at, at))
    return times


def _words(words: Sequence[Word] | None, some: Sequence[Piece]) -> list[tuple[Word, ...]] | None:
    """Return the words that begin in each piece."""
    if words is None:
        return None
    owners = _owners(words, some)
    return [
        tuple(word for word, owner in zip(words, owners, strict=True) if owner == number)
        for number in range(len(some))
    ]


def _within(groups: Sequence[tuple[Word, ...]], last: float) -> tuple[Word, ...]:
    """Return the words of several pieces, none later than `last`."""
    return tuple(
        replace(word, start=min(word.start, last), end=min(word.end, last))
        for group in groups
        for word in group
    )
