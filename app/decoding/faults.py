"""Faults of a hypothesis: the rules that reject a text, by itself and by the window's audio.

`fault` examines the text alone. It has Whisper's own rules for its temperature fallback (Radford et
al. 2022, section 4.5): a text that compresses too well is a loop, and one whose tokens were
improbable is a guess. Stricter rules hold for a decode with a reduced encoder context, which is
cheap to repeat.

`fault` rejects every repetition, but speakers repeat themselves, too. `judge` therefore compares
the text with the audio (`app/decoding/audio_evidence.py`). It accepts a repetition that the audio
repeats as often. It cuts a loop that is longer than the speech can be. All other faults cause
another attempt. Pure; figures are in docs/lab-book.md ("Repetition").
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from app.decoding.audio_evidence import AudioEvidence
from app.decoding.decoded import Decoded
from app.decoding.hypothesis import Hypothesis, compression, normal_words
from app.decoding.text_tokens import fitted, length_of
from app.messages import Segment

MAX_COMPRESSION = 2.4
MIN_LOGPROB = -1.0
"""The thresholds of openai/whisper's transcribe(): compression_ratio_threshold and
logprob_threshold."""

REDUCED_MAX_COMPRESSION = 2.0
REDUCED_MAX_WORDS_PER_SECOND = 6.0
"""Fast speech has 4 to 5 words a second; a short loop is caught by this before it compresses."""

ECHO_WORDS = 6
"""Words in a row that a window and its prompt share only if the decoder repeats the prompt, or if
the speaker does. In that case decoding without the prompt gives the same text."""

LIST_END_WORDS = 3
"""Most words with which a decode ends the list that its prompt is."""

REPEATED_WORDS = 2
"""Least number of words, with different ones among them, that count as a loop if a reduced decode
says them twice in a row. Short loops do not compress. People do say "no, no" and "five five five
five"."""

MIN_COMPRESSED_CHARACTERS = 40
"""Shorter texts are not judged by compression: zlib's own header and tables dominate, and people do
say "no, no, no, no"."""

FASTEST = 32.0
"""Most characters of text for a second of loud audio that speech can have (docs/lab-book.md,
"Repetition")."""

SLOWEST_CUT = 15.0
"""Least characters a second that must remain of a loop that is cut. With fewer, speech after the
loop may be missing."""

SLOWEST_PROMPTED = 3.0
"""Least characters a second with a prompt: the decoder then sometimes stops after a word."""

_SAME_LETTERS = 0.6
"""difflib's ratio from which two spellings count as one sentence said twice."""

_REPEATED = frozenset({"repetition", "limit", "too fast"})


def echoes(text: str, prompt: str) -> bool:
    """Return whether `text` has ECHO_WORDS words in a row that the prompt has as well."""

    def runs(words: list[str]) -> set[tuple[str, ...]]:
        count = len(words) - ECHO_WORDS + 1
        return {tuple(words[at : at + ECHO_WORDS]) for at in range(count)}

    return not runs(normal_words(text)).isdisjoint(runs(normal_words(prompt)))


def _ends_a_list(text: str, prompt: str) -> bool:
    """Return whether `text` begins by ending a list of the prompt's: "and voltage. He began ...".

    Such a beginning has a small letter, at most LIST_END_WORDS words, of which the last is in the
    prompt, and a full stop before the speech.
    """
    first, stop, rest = text.partition(". ")
    words = normal_words(first)
    return (
        bool(stop and rest and words)
        and first[0].islower()
        and len(words) <= LIST_END_WORDS
        and words[-1] in normal_words(prompt)
    )


def repeats(text: str) -> bool:
    """Return whether `text` has at least REPEATED_WORDS words, not all the same, twice in a row."""
    said = normal_words(text)
    return any(
        said[at : at + count] == said[at + count : at + 2 * count]
        and len(set(said[at : at + count])) > 1
        for count in range(REPEATED_WORDS, len(said) // 2 + 1)
        for at in range(len(said) - 2 * count + 1)
    )


def fault(hypothesis: Hypothesis, seconds: float, reduced: bool, prompt: str = "") -> str | None:
    """Return why a window of `seconds` should be decoded again, in a word for the log; None if the
    text is accepted.

    `reduced` is True if it was decoded with less than the whole encoder context. A `prompt` can
    make the decoder end too early, or repeat the prompt.
    """
    text = hypothesis.text
    if hypothesis.limited:
        return "limit"
    most = REDUCED_MAX_COMPRESSION if reduced else MAX_COMPRESSION
    if len(text) >= MIN_COMPRESSED_CHARACTERS and compression(text) > most:
        return "repetition"
    if reduced and repeats(text):
        return "repetition"
    if text and hypothesis.logprob < MIN_LOGPROB:
        return "improbable"
    if prompt and (echoes(text, prompt) or _ends_a_list(text, prompt)):
        return "echo"
    if (reduced or prompt) and not normal_words(text):
        return "empty"
    if reduced and len(text.split()) > REDUCED_MAX_WORDS_PER_SECOND * max(1.0, seconds):
        return "too fast"
    return None


def judge(
    hypothesis: Hypothesis, seconds: float, reduced: bool, prompt: str, sound: AudioEvidence
) -> tuple[Hypothesis, str | None]:
    """Return the hypothesis, cut if it is a loop that can be cut, and its fault: why it should be
    decoded again, in a word for the log; None if the text is accepted.

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
    hypothesis: Hypothesis, reason: str | None, rate: float, sound: AudioEvidence
) -> tuple[Hypothesis, str | None]:
    """Return a hypothesis that may be a loop: unchanged if the audio repeats itself as often, cut
    if its end repeats more often than the audio, else with its fault. `rate` 0 is unknown."""
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
    """Return the hypothesis without the repetitions at its end beyond `copies`; None if its end
    does not repeat itself so often."""
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
            tokens = fitted(segment.tokens, text, range(length_of(text)))
            segment = replace(segment, text=text, words=timed, tokens=tokens)
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
    """Return the number of times in a row that the text says its last words."""
    found = _loop(hypothesis.text.split())
    if found is None:
        return 1
    start, length, count = found
    return (count - start) // length


def _says_twice(text: str) -> bool:
    """Return whether the halves of `text` are about the same in spelling."""
    letters = "".join(normal_words(text))
    half = len(letters) // 2
    return SequenceMatcher(None, letters[:half], letters[half:]).ratio() >= _SAME_LETTERS


def _stutters(text: str) -> bool:
    """Return whether a pair of neighbouring words occurs twice. The decoder may have looped before
    the end, too, so that cutting the end would not give the spoken text."""
    words = normal_words(text)
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) < len(pairs)


def _loop(words: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the start and the length of the run that `words` repeats up to its end, and the number
    of all words; None if the end is said once. The last copy may break off."""
    said = [" ".join(normal_words(word)) for word in words]
    count = len(said)
    for start in range(count):
        for length in range(1, (count - start) // 2 + 1):
            if said[start + length :] == said[start : count - length]:
                return start, length, count
    return None


def _rate(hypothesis: Hypothesis, sound: AudioEvidence) -> float:
    return len(hypothesis.text) / max(sound.loud_seconds, 0.2)
