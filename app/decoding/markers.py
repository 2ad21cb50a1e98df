"""Removal of sound descriptions from a hypothesis: "[Music]", "（音楽）", "*laughs*", "♪".

Whisper was trained on subtitles, which name sounds in brackets; a speaker did not say these words.
A segment that consists of such markers is dropped, and markers at either end of a segment are cut
off. Brackets within a sentence stay, because they may be an aside of the speaker. Musical notes are
removed everywhere, because they cannot be spoken.

Text in brackets is a marker if it names a sound (`app/decoding/marker_words.py`), or if it is in
capitals. It is also a marker if it is a whole segment and resembles a caption: a few words without
a number or a comma and, in round brackets, without a word that indicates a clause. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.decoding.marker_words import folded, makes_clause, names_sound
from app.decoding.text_tokens import fitted
from app.messages import Segment, Word

_NOTES = frozenset("♩♪♫♬𝄞🎵🎶🎼")

_ROUND = "(（﹙"
_OPENING = {**dict.fromkeys(_ROUND, "round"), **dict.fromkeys("[［【〔〖{｛", "square")}
_CLOSING = {**dict.fromkeys(")）﹚", "round"), **dict.fromkeys("]］】〕〗}｝", "square")}
"""Brackets by family. Any closing bracket of a family matches any opening one, because the model
mixes full-width and plain forms."""

_ASTERISKS = "*＊"
_STARS = re.compile(r"[*＊]+(?=[^\s*＊])([^*＊]*[^\s*＊])[*＊]+")
"""A text between asterisks: the notation of chat logs for sounds."""

_LEADING = re.compile(r"\s*(?:[-–—‐]\s*|>+\s*)?")
"""Characters allowed before a segment's first marker: the dash or angle of a new speaker."""

_AFTER_LEADING = re.compile(r"[\s.,;:…。、，।\-–—]*")
"""Punctuation that belongs to a marker at the beginning."""

_TRAILING = re.compile(r"[\s.,;:!?…。、，！？।؟~]*")
"""Punctuation allowed after a segment's last marker."""

_BEFORE_TRAILING = re.compile(r"[\s\-–—‐>]*\Z")
"""Characters removed together with a marker at the end: space, and the dash of a new speaker."""

_MOST_WORDS = 8
"""Most words in a marker of a known sound: "MUSIC PLAYING - BAND NAME, SONG TITLE" has seven."""

_MOST_UNCLOSED_WORDS = 3
"""Most words in a marker that the end of the segment cuts off, such as "[MUSIC PLAYING"."""

_MOST_UNKNOWN_WORDS, _MOST_UNKNOWN_CHARACTERS = 5, 40
"""Most words and characters in a marker of an unknown sound: "phone vibrating on a table" has five
words."""

_SENTENCE = re.compile(r"[.,;:!?。、，！？।؟]|\d")
"""Characters absent from short captions, and present in most bracketed speech."""

_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff]")
"""Scripts without spaces and case: Thai, Lao, Myanmar, Japanese and Chinese."""

_LETTER = re.compile(r"[^\W_]")
"""A letter or digit of any script."""

Span = tuple[int, int]


def without_markers(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Return `segments` without markers; drop a segment that consists of markers.

    The words of the markers are removed too, and the segment's times shrink to its other words. A
    segment without words keeps its times.
    """
    stripped = (_strip(segment) for segment in segments)
    return tuple(segment for segment in stripped if segment is not None)


def _strip(segment: Segment) -> Segment | None:
    kept = kept_characters(segment.text)
    if len(kept) == len(segment.text):
        return segment
    text = " ".join("".join(segment.text[at] for at in kept).split())
    if not text:
        return None
    if segment.tokens is not None:
        places = [at for at, character in enumerate(segment.text) if not character.isspace()]
        inside = frozenset(kept)
        left = {number for number, at in enumerate(places) if at in inside}
        segment = replace(segment, tokens=fitted(segment.tokens, text, left))
    if not segment.words:
        return replace(segment, text=text)
    words = _kept_words(segment.text, segment.words, frozenset(kept))
    if not words:
        return replace(segment, text=text, words=words)
    start = segment.start if words[0].start == segment.words[0].start else words[0].start
    end = segment.end if words[-1].end == segment.words[-1].end else words[-1].end
    return replace(segment, text=text, words=words, start=start, end=end)


def kept_characters(text: str) -> list[int]:
    """Return the positions in `text` outside markers; empty if `text` consists of markers."""
    kept = [at for at, character in enumerate(text) if character not in _NOTES]
    while (cut := _first_marker("".join(text[at] for at in kept))) is not None:
        del kept[cut[0] : cut[1]]
    # Only punctuation remains of a text that consists of markers.
    if len(kept) < len(text) and not any(_LETTER.match(text[at]) for at in kept):
        return []
    return kept


def _first_marker(text: str) -> Span | None:
    """Return the span of a marker at the beginning or the end of `text`, with its punctuation."""
    groups = _groups(text)
    if not groups:
        return None
    outside = text
    for begin, end in groups:
        outside = outside[:begin] + " " * (end - begin) + outside[end:]
    alone = not _LETTER.search(outside)
    begin, end = groups[0]
    lead = _LEADING.match(text)
    if lead is not None and lead.end() == begin and _is_marker(text, begin, end, alone):
        after = _AFTER_LEADING.match(text, end)
        return 0, end if after is None else after.end()
    begin, end = groups[-1]
    if _TRAILING.fullmatch(text, end) and _is_marker(text, begin, end, alone):
        before = _BEFORE_TRAILING.search(text[:begin])
        cut = begin if before is None else before.start()
        # "Hello (laughs)." keeps its full stop; "Hello. (laughs)." already has one.
        finished = cut == 0 or not _LETTER.match(text[cut - 1])
        return cut, len(text) if finished else end
    return None


def _groups(text: str) -> list[Span]:
    """Return the spans of the outermost bracketed texts in order, with their brackets. An unclosed
    one extends to the end."""
    found: list[Span] = []
    at = 0
    while at < len(text):
        if family := _OPENING.get(text[at]):
            end = _closed(text, at, family)
        elif stars := _STARS.match(text, at):
            end = stars.end()
        else:
            at += 1
            continue
        found.append((at, end))
        at = end
    return found


def _closed(text: str, begin: int, family: str) -> int:
    depth = 0
    for at in range(begin, len(text)):
        if _OPENING.get(text[at]) == family:
            depth += 1
        elif _CLOSING.get(text[at]) == family:
            depth -= 1
            if depth == 0:
                return at + 1
    return len(text)


def _is_marker(text: str, begin: int, end: int, alone: bool) -> bool:
    """Return whether the bracketed text from `begin` to `end` describes a sound. `alone` is true if
    `text` has no letter outside brackets."""
    inside = text[begin:end]
    words = folded(inside).split()
    if not words:
        return True
    is_round = inside[0] in _ROUND
    is_closed = inside[-1] in _CLOSING or inside[-1] in _ASTERISKS
    is_capitals = inside.isupper()
    is_clause = is_round and any(makes_clause(word) for word in words)
    most = _MOST_WORDS if is_closed else _MOST_UNCLOSED_WORDS
    if len(words) <= most and any(names_sound(word) for word in words):
        return is_capitals or not is_clause
    around = (text[begin - 1] if begin else "") + text[end : end + 1]
    # "f(x)" and "(un)likely" are parts of words.
    if not is_closed or (_LETTER.search(around) and not _UNSPACED.search(around + inside)):
        return False
    # "(UN)" is an abbreviation; "[DAVID]" names a speaker.
    if is_capitals and (not is_round or len(words) > 1):
        return True
    return (
        alone
        and not is_clause
        and len(words) <= _MOST_UNKNOWN_WORDS
        and len(inside) <= _MOST_UNKNOWN_CHARACTERS
        and not _SENTENCE.search(inside)
        # A script without spaces has no words to count, so an aside resembles a caption.
        and not (is_round and _UNSPACED.search(inside))
    )


def _kept_words(text: str, words: Sequence[Word], kept: frozenset[int]) -> tuple[Word, ...]:
    """Return the `words` of a segment with this `text`, reduced to the characters in `kept`."""
    places = [at for at, character in enumerate(text) if not character.isspace()]
    lengths = [len("".join(word.text.split())) for word in words]
    if sum(lengths) != len(places):
        # A character is divided between two words, so the words cannot be found in the text.
        return tuple(words)
    found: list[Word] = []
    at = 0
    for word, length in zip(words, lengths, strict=True):
        rest = "".join(text[place] for place in places[at : at + length] if place in kept)
        at += length
        if len(rest) == length:
            found.append(word)
        elif _LETTER.search(rest):
            found.append(replace(word, text=rest))
        elif rest and found:
            # The full stop of "(laughs)." belongs to the word before.
            found[-1] = replace(found[-1], text=found[-1].text + rest)
    return tuple(found)
