"""Whether a decoded text stands, judged by itself and by the audio it was heard in.

`fault` (`app/decoding/hypothesis.py`) judges the text alone, and takes every repetition for a loop
of the decoder. A speaker repeats himself, too. The audio tells them apart: an honest repetition is
in it several times, and its text is not longer than the speech. So a text that repeats what the
audio repeats stands, and a loop that the audio plainly has no room for is cut to what there is,
without another decode. What is neither is decoded again. Pure; figures are in docs/lab-book.md
("Repetition").
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from app.decoding.decoded import Decoded
from app.decoding.hypothesis import Hypothesis, fault, normal_words
from app.decoding.sound import Sound
from app.messages import Segment

FASTEST = 32.0
"""Characters of text for a second of loud audio that speech can hold. On 66 short clips the
references have 6 to 29, and text that a loop has doubled has 35 and more in 36 of 42 cases."""

SLOWEST_CUT = 15.0
"""A loop is only cut where what stays has this many: with less, speech may have gone unheard behind
the loop. The median of the references is 20."""

SLOWEST_PROMPTED = 3.0
"""Under a prompt the decoder sometimes stops after a word; the slowest reference has 6."""

_SAME_LETTERS = 0.6
"""difflib's ratio from which two spellings are one sentence heard twice."""

_REPEATED = frozenset({"repetition", "limit", "too fast"})


def judge(
    hypothesis: Hypothesis, seconds: float, reduced: bool, prompt: str, sound: Sound
) -> tuple[Hypothesis, str | None]:
    """The hypothesis, cut where it is a loop that can be cut, and its fault: why it should be
    decoded again, in a word for the log; None if it stands.

    `seconds`, `reduced` and `prompt` as `fault` takes them; `sound` is the window's.
    """
    reason = fault(hypothesis, seconds, reduced, prompt)
    if not reduced and reason not in _REPEATED:
        return hypothesis, reason
    rate = _rate(hypothesis, sound)
    if reason is None and rate > FASTEST:
        reason = "too fast"
    if reason in _REPEATED or (reason is None and _copies(hypothesis) > sound.copies > 1):
        return _unloop(hypothesis, reason, rate if reduced else 0.0, sound)
    if reason is None and hypothesis.text and rate < SLOWEST_CUT:
        if prompt and rate < SLOWEST_PROMPTED:
            reason = "too slow"
        elif not _says_twice(hypothesis.text) and sound.copies > _copies(hypothesis):
            reason = "lost"
    return hypothesis, reason


def _unloop(
    hypothesis: Hypothesis, reason: str | None, rate: float, sound: Sound
) -> tuple[Hypothesis, str | None]:
    """A hypothesis that may be a loop: as it is where the audio repeats itself as often, cut where
    the loop is at its end and the audio is short of it, else with its fault. `rate` 0 is unknown.
    """
    heard, said = sound.copies, _copies(hypothesis)
    if heard > 1 and not hypothesis.limited and said == heard:
        return hypothesis, None
    shorter = cut(hypothesis, heard)
    if shorter is None:
        return hypothesis, reason
    too_long = rate > 0.0 and (hypothesis.limited or rate > FASTEST)
    fits = SLOWEST_CUT <= _rate(shorter, sound) <= FASTEST and not _stutters(shorter.text)
    if heard > 1 or (too_long and fits):
        return shorter, None
    return hypothesis, reason


def cut(hypothesis: Hypothesis, copies: int) -> Hypothesis | None:
    """The hypothesis without what its end repeats beyond `copies` times; None where its end does
    not repeat itself so often."""
    found = _loop([word for segment in hypothesis.segments for word in segment.text.split()])
    if found is None:
        return None
    start, length, count = found
    kept = start + copies * length
    if kept >= count:
        return None
    decoded = _first_words(hypothesis.decoded, kept)
    segments: list[Segment] = []
    for segment in hypothesis.segments:
        words = segment.text.split()
        if len(words) > kept:
            timed = None if segment.words is None else segment.words[:kept]
            text = " ".join(words[:kept])
            segment = replace(segment, text=text, words=timed)
        if segment.text:
            segments.append(segment)
        kept = max(0, kept - len(words))
    return replace(hypothesis, segments=tuple(segments), decoded=decoded, limited=False)


def _first_words(decoded: Decoded, count: int) -> Decoded:
    text, tokens = b"", []
    for token in decoded.tokens:
        text += token.text
        if len(text.decode(errors="replace").split()) > count:
            break
        tokens.append(token)
    return replace(decoded, tokens=tuple(tokens))


def _copies(hypothesis: Hypothesis) -> int:
    """How many times in a row the text says the words that it ends with; 1 if once."""
    found = _loop(hypothesis.text.split())
    if found is None:
        return 1
    start, length, count = found
    return (count - start) // length


def _says_twice(text: str) -> bool:
    """Whether the halves of `text` are about the same, however they are spelt."""
    letters = "".join(normal_words(text))
    half = len(letters) // 2
    return SequenceMatcher(None, letters[:half], letters[half:]).ratio() >= _SAME_LETTERS


def _stutters(text: str) -> bool:
    """Whether a pair of neighbouring words comes twice: the decoder may have looped before the end,
    too, so that cutting the end does not give what was said."""
    words = normal_words(text)
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) < len(pairs)


def _loop(words: Sequence[str]) -> tuple[int, int, int] | None:
    """Where the words begin that `words` repeats up to its end, how many they are, and how many
    words there are in all; None where the end is said once. The last copy may break off."""
    said = [" ".join(normal_words(word)) for word in words]
    count = len(said)
    for start in range(count):
        for length in range(1, (count - start) // 2 + 1):
            if said[start + length :] == said[start : count - length]:
                return start, length, count
    return None


def _rate(hypothesis: Hypothesis, sound: Sound) -> float:
    return len(hypothesis.text) / max(sound.loud_seconds, 0.2)
