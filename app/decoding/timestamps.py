"""Timestamps for text that was decoded without them.

After a prompt of plain text, Whisper's smallest models write no timestamps: a window of 30 s
becomes one segment. Its text is good, so `place` lets the decoder read that text once
more, without the prompt, and takes a pair of timestamps from its logits at the ends of sentences
and clauses. The text does not change. Measured in docs/lab-book.md ("Subtitle times"). Pure: the
decoder is a parameter. Times are seconds from the window's beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np

from app.decoding.decoded import TIMESTAMP_SECONDS, Token
from app.decoding.raw_decoder import Logits
from app.decoding.tokens import UNSPACED

LONG_SECONDS = 7.0
"""Longest segment, in seconds, without a second reading of its window: cues must be under 8 s."""

_FIRST_SECONDS = 1.0
"""Latest first timestamp, in seconds; openai/whisper's max_initial_timestamp."""

_SENTENCE_SECONDS, _CLAUSE_SECONDS, _WORDS_SECONDS = 1.0, 4.0, 6.0
"""Shortest segments, in seconds, that end after a sentence, after a clause and after a word."""

_GAP_SECONDS = 1.0
"""Shortest silence, in seconds, after which a shorter segment may end."""

_LEAST_ODDS = -5.0
"""Lowest log odds of a timestamp against text, in nats. Sentences have 0 to 9, clauses -1 to -5;
after "Mr." (-8) the most probable time is meaningless."""

_LEAST_WORD_ODDS = -7.0
"""Lowest log odds of a timestamp between words, in nats; -4.5 to -7 still gave the right time."""

_PROBE_CHARACTERS, _REST_CHARACTERS = 40, 20
"""Characters that must precede an end after a clause or, since the last attempt, after a word (3 to
4 s of speech), and characters that the following segment must have."""

_FASTEST = 30.0
"""Fastest speech, in characters a second. A timestamp leaves time for the text on both sides."""

_SLOW_SECONDS, _SLOWEST = 5.0, 4.0
"""Duration in seconds, and characters a second: a longer segment with slower speech begins too
early."""

_UNHURRIED = 10.0
"""Characters a second of unhurried English speech: 2 words with 5 letters."""

_SENTENCE_ENDS = tuple(mark.encode() for mark in ".?!\u3002\uff1f\uff01\u0964\u061f")
_CLAUSE_ENDS = tuple(mark.encode() for mark in ",;:\u2026\u2014\u3001\uff0c\uff1b\uff1a\u060c")


class Decoder(Interface):
    """The part of `app/decoding/raw_decoder.py` that this module uses."""

    @property
    def past(self) -> int: ...

    def rewind(self, past: int) -> None: ...

    def feed(self, tokens: Sequence[int]) -> Logits: ...


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The numbers of special tokens: `start` is the sequence before any text (start of transcript,
    language, task), `first_timestamp` the token of 0 s."""

    start: tuple[int, ...]
    first_timestamp: int


def place(
    tokens: Sequence[Token],
    seconds: float,
    language: str,
    vocabulary: Vocabulary,
    decoder: Decoder,
) -> tuple[Token, ...]:
    """Return the `tokens` of a window of `seconds` with timestamps added to the existing ones.

    `tokens` holds text and timestamps only. Raises the errors of `decoder`.
    """
    return _Placing(seconds, language, vocabulary, decoder).run(tokens)


@dataclass(frozen=True, slots=True)
class _End:
    """A kind of place for a segment's end: its shortest duration and lowest odds of a timestamp."""

    least_seconds: float
    least_odds: float


_SENTENCE = _End(_SENTENCE_SECONDS, _LEAST_ODDS)
_CLAUSE = _End(_CLAUSE_SECONDS, _LEAST_ODDS)
_WORD = _End(_WORDS_SECONDS, _LEAST_WORD_ODDS)


class _Placing:
    """The second reading of one window."""

    def __init__(
        self, seconds: float, language: str, vocabulary: Vocabulary, decoder: Decoder
    ) -> None:
        self._last_step = int(seconds / TIMESTAMP_SECONDS)
        self._spaced = language not in UNSPACED
        self._vocabulary = vocabulary
        self._decoder = decoder
        self._placed: list[Token] = []
        self._pending: list[int] = []
        """Tokens that the decoder has not been fed yet."""
        self._start = 0.0
        """The present segment's beginning; its text follows `_placed[_first]`."""
        self._first = 0
        self._before = 0
        """Tokens that the decoder had been fed before the present segment's text."""

    def run(self, tokens: Sequence[Token]) -> tuple[Token, ...]:
        self._decoder.rewind(0)
        self._pending = list(self._vocabulary.start)
        left = sum(_characters(token) for token in tokens)
        if tokens and tokens[0].at is None:
            self._stamp(self._time(0.0, _FIRST_SECONDS)[0])
        read = probed = 0
        for index, token in enumerate(tokens):
            self._placed.append(token)
            self._pending.append(token.id)
            if token.at is not None:
                self._begin(token.at)
                read = probed = 0
                continue
            size = _characters(token)
            left, read, probed = left - size, read + size, probed + size
            after = tokens[index + 1] if index + 1 < len(tokens) else None
            end = self._kind(token, after, read, left, probed)
            if end is None:
                continue
            probed = 0
            latest = self._last_step * TIMESTAMP_SECONDS - left / _FASTEST
            at, odds = self._time(self._start + read / _FASTEST, latest)
            if after is None:
                self._correct_start(at)
                self._stamp(at)
            elif odds >= end.least_odds and self._end(at, odds, end.least_seconds):
                read = 0
        return tuple(self._placed)

    def _kind(
        self, token: Token, after: Token | None, read: int, left: int, probed: int
    ) -> _End | None:
        """Return the kind of end after `token`; None if no segment can end there.

        Lengths of text, in characters: `read` of the segment so far, `left` of the rest of the
        window, `probed` since the last attempt.
        """
        if after is None:
            return _SENTENCE
        if after.at is not None or (self._spaced and not after.text.startswith(b" ")):
            return None
        if token.text.endswith(_SENTENCE_ENDS):
            return _SENTENCE
        if left < _REST_CHARACTERS:
            return None
        if token.text.endswith(_CLAUSE_ENDS):
            return _CLAUSE if read >= _PROBE_CHARACTERS else None
        return _WORD if probed >= _PROBE_CHARACTERS else None

    def _end(self, at: float, odds: float, least: float) -> bool:
        """End the segment at `at` and begin the next if it is long enough; return whether it is."""
        lasts = at - self._start
        if lasts >= least or (odds > 0 and lasts >= _SENTENCE_SECONDS):
            self._correct_start(at)
            self._stamp(at)
            self._stamp(self._time(at)[0])
            return True
        if odds <= 0:
            return False
        past = self._decoder.past
        begun = self._start, self._first, self._before
        self._stamp(at)
        after = self._time(at)[0]
        if after - at >= _GAP_SECONDS:
            self._stamp(after)
            return True
        self._decoder.rewind(past)
        self._placed.pop()
        self._start, self._first, self._before = begun
        return False

    def _time(self, earliest: float, latest: float | None = None) -> tuple[float, float]:
        """Return the most probable next timestamp between two times, and the log odds of any
        timestamp between them against the best token of text."""
        logits = self._decoder.feed(self._pending)
        self._pending = []
        low = min(round(earliest / TIMESTAMP_SECONDS), self._last_step)
        high = self._last_step if latest is None else round(latest / TIMESTAMP_SECONDS)
        high = max(low, high)
        stamps = logits[self._vocabulary.first_timestamp :][: self._last_step + 1].astype(float)
        step = low + int(stamps[low : high + 1].argmax())
        mass = float(np.logaddexp.reduce(stamps[low : high + 1]))
        odds = mass - float(logits[: self._vocabulary.first_timestamp].max())
        return step * TIMESTAMP_SECONDS, odds

    def _correct_start(self, end: float) -> None:
        """Move a start that is too early for the amount of text near to its first word."""
        text = self._placed[self._first :]
        size = sum(_characters(token) for token in text)
        lasts = end - self._start
        if not text or lasts <= _SLOW_SECONDS or size >= _SLOWEST * lasts:
            return
        count = next(
            (index for index, token in enumerate(text) if index and token.text[:1] == b" "),
            len(text),
        )
        self._decoder.rewind(self._before)
        self._pending = [token.id for token in text[:count]]
        at = min(self._time(self._start)[0], end)
        self._pending = [token.id for token in text[count:]]
        spoken = sum(_characters(token) for token in text[:count]) / _UNHURRIED
        start = max(self._start, at - spoken)
        if self._placed[self._first - 1].at is not None:
            self._placed[self._first - 1] = self._token(start)

    def _stamp(self, at: float) -> None:
        token = self._token(at)
        self._placed.append(token)
        self._pending.append(token.id)
        self._begin(at)

    def _token(self, at: float) -> Token:
        step = round(at / TIMESTAMP_SECONDS)
        return Token(self._vocabulary.first_timestamp + step, at=step * TIMESTAMP_SECONDS)

    def _begin(self, at: float) -> None:
        self._start = at
        self._first = len(self._placed)
        self._before = self._decoder.past + len(self._pending)


def _characters(token: Token) -> int:
    # A token may be part of a character, so the first bytes of UTF-8 characters are counted.
    return sum(byte & 0xC0 != 0x80 for byte in token.text)
