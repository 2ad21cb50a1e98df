"""Timestamps for text that was decoded without them.

After a prompt of plain text, Whisper's smallest models write no timestamps: a window of 30 s
becomes one segment. Its text is worth keeping, so `place` lets the decoder read that text once
more, without the prompt, and takes a pair of timestamps from its logits at the ends of sentences
and clauses. The text stays as it is. Measured in docs/lab-book.md ("Subtitle times"). Pure: the
decoder is handed in; times are seconds from the window's beginning.
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
"""A window with a longer segment is worth the second reading. Cues shall last less than 8 s."""

_FIRST_SECONDS = 1.0
"""The first timestamp is not later; openai/whisper's max_initial_timestamp."""

_SENTENCE_SECONDS, _CLAUSE_SECONDS, _WORDS_SECONDS = 1.0, 4.0, 6.0
"""A segment ends at a sentence's end if it lasts this long, or at a clause's, or at a word's."""

_PROBE_BYTES = 40
"""Of text before the end of a clause or, since the last look, a word is tried: 3 to 4 s of
speech."""

_SLOW_SECONDS, _SLOW_BYTES_PER_SECOND = 5.0, 4
"""A segment this long with this little text did not begin where it seems to."""

_BYTES_PER_SECOND = 10
"""Of text in unhurried English speech: 2 words, 5 letters each."""

_SENTENCE_ENDS = tuple(mark.encode() for mark in ".?!\u3002\uff1f\uff01\u0964\u061f")
_CLAUSE_ENDS = tuple(mark.encode() for mark in ",;:\u2026\u2014\u3001\uff0c\uff1b\uff1a\u060c")


class Decoder(Interface):
    """`app/decoding/raw_decoder.py` as it is used here."""

    @property
    def past(self) -> int: ...

    def rewind(self, past: int) -> None: ...

    def feed(self, tokens: Sequence[int]) -> Logits: ...


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Numbers of special tokens: `start` is the sequence before any text (start of transcript,
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
    """`tokens` of a window of `seconds` with timestamps added; those that are there are kept.

    `tokens` holds text and timestamps only. Passes on what `decoder` raises.
    """
    return _Placing(seconds, language, vocabulary, decoder).run(tokens)


class _Placing:
    """One window's second reading."""

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
        """Where the present segment begins; its text follows `_placed[_first]`."""
        self._first = 0
        self._before = 0
        """Tokens that the decoder had been fed before the present segment's text."""

    def run(self, tokens: Sequence[Token]) -> tuple[Token, ...]:
        self._decoder.rewind(0)
        self._pending = list(self._vocabulary.start)
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
            read += len(token.text)
            probed += len(token.text)
            after = tokens[index + 1] if index + 1 < len(tokens) else None
            least = self._least_seconds(token, after, read, probed)
            if least is None:
                continue
            at, likely = self._time(self._start)
            probed = 0
            if after is None:
                self._correct_start(at)
                self._stamp(at)
            elif at - self._start >= least or (likely and at - self._start >= _SENTENCE_SECONDS):
                self._correct_start(at)
                self._stamp(at)
                self._stamp(self._time(at)[0])
                read = 0
        return tuple(self._placed)

    def _least_seconds(
        self, token: Token, after: Token | None, read: int, probed: int
    ) -> float | None:
        """How long the segment must be to end behind `token`; None if it cannot end there. `read`
        is the text of the segment so far, `probed` that since the last look, in bytes."""
        if after is None:
            return 0.0
        if after.at is not None or (self._spaced and not after.text.startswith(b" ")):
            return None
        if token.text.endswith(_SENTENCE_ENDS):
            return _SENTENCE_SECONDS
        if token.text.endswith(_CLAUSE_ENDS) and read >= _PROBE_BYTES:
            return _CLAUSE_SECONDS
        return _WORDS_SECONDS if probed >= _PROBE_BYTES else None

    def _time(self, earliest: float, latest: float | None = None) -> tuple[float, bool]:
        """The most probable timestamp for what comes next, and whether one is more probable than
        text: openai/whisper's rule, the sum of all timestamps against the best token of text."""
        logits = self._decoder.feed(self._pending)
        self._pending = []
        low = min(round(earliest / TIMESTAMP_SECONDS), self._last_step)
        high = self._last_step if latest is None else round(latest / TIMESTAMP_SECONDS)
        stamps = logits[self._vocabulary.first_timestamp :][: self._last_step + 1].astype(float)
        step = low + int(stamps[low : max(low, high) + 1].argmax())
        mass = float(np.logaddexp.reduce(stamps[low:]))
        likely = mass > float(logits[: self._vocabulary.first_timestamp].max())
        return step * TIMESTAMP_SECONDS, likely

    def _correct_start(self, end: float) -> None:
        """Move a start that is far too early for so little text to the end of the first word."""
        text = self._placed[self._first :]
        size = sum(len(token.text) for token in text)
        lasts = end - self._start
        if not text or lasts <= _SLOW_SECONDS or size >= _SLOW_BYTES_PER_SECOND * lasts:
            return
        count = next(
            (index for index, token in enumerate(text) if index and token.text[:1] == b" "),
            len(text),
        )
        self._decoder.rewind(self._before)
        self._pending = [token.id for token in text[:count]]
        at = min(self._time(self._start)[0], end)
        self._pending = [token.id for token in text[count:]]
        spoken = sum(len(token.text) for token in text[:count]) / _BYTES_PER_SECOND
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
