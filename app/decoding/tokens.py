"""Segments and words made from whisper.cpp's tokens.

A `SegmentBuilder` takes one window's tokens in order: timestamps end a segment and begin the next,
text tokens fill it. It collects text as bytes, because a token may be part of a character. Pure, no
engine. Times are seconds from the window's beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from app.decoding.decoded import Decoded, Token
from app.decoding.hypothesis import confidence
from app.decoding.text_tokens import fitted
from app.messages import Segment, TextToken, Word

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages written without spaces. After each token that completes a character, a new word begins;
the list is that of openai/whisper's split_to_word_tokens."""


_BYTES_PER_SECOND = 10
"""Bytes of text per second of unhurried English speech: 2 words with 5 letters."""

_SLOW_SECONDS, _SLOW_BYTES_PER_SECOND = 5.0, 4
"""Seconds, and bytes a second: a longer last segment with slower speech contains a pause, or speech
that was not transcribed."""


@dataclass(slots=True)
class _Word:
    moved: float
    text: bytearray = field(default_factory=bytearray)
    logprobs: list[float] = field(default_factory=list)


class SegmentBuilder:
    """The builder of one window's segments; `seconds` is the window's length.

    Both times of a word are the moment at which the attention moved on from it;
    `app/decoding/alignment.py` replaces them.
    """

    def __init__(
        self, seconds: float, language: str, with_words: bool, with_tokens: bool = False
    ) -> None:
        self._seconds = seconds
        self._spaced = language not in UNSPACED
        self._with_words = with_words
        self._tokens: list[TextToken] | None = [] if with_tokens else None
        self._segments: list[Segment] = []
        self._start = 0.0
        self._text = bytearray()
        self._logprobs: list[float] = []
        self._words: list[_Word] = []
        self.logprobs: list[float] = []
        """Natural logs of the probabilities of all text tokens."""
        self.count = 0
        """Number of tokens added, timestamps included."""

    def add(self, token: Token) -> None:
        """Add the next token, of either kind."""
        if token.at is not None:
            self.timestamp(token.at)
        else:
            self.token(token.text, token.logprob, token.moved)

    def timestamp(self, at: float) -> None:
        """Add a timestamp token: end the current segment at `at` and begin the next."""
        self.count += 1
        self._close(at)
        self._start = min(at, self._seconds)

    def token(self, text: bytes, logprob: float, moved: float) -> None:
        """Add a text token; `moved`, when the attention moved on from it, is for words only."""
        self.count += 1
        self._text += text
        self._logprobs.append(logprob)
        self.logprobs.append(logprob)
        if self._tokens is not None:
            self._tokens.append(TextToken(text, logprob))
        if self._with_words:
            if not self._words or self._begins_word(text):
                self._words.append(_Word(moved))
            word = self._words[-1]
            word.text += text
            word.moved = max(word.moved, moved)
            word.logprobs.append(logprob)

    def finish(self, about: float | None = None) -> tuple[Segment, ...]:
        """Return the segments after the last token.

        `about` is the most probable time of the end of text, and often too early. It is used if the
        last segment has no end timestamp and too little text to last to the window's end: the
        decoder has then stopped before the speaker.
        """
        left = self._seconds - self._start
        if left > _SLOW_SECONDS and len(self._text) < _SLOW_BYTES_PER_SECOND * left:
            spoken = self._start + len(self._text) / _BYTES_PER_SECOND
            spoken = max([spoken, *(word.moved for word in self._words)])
            self._close(min(self._seconds, max(spoken, about or 0.0)))
        else:
            self._close(self._seconds)
        return tuple(self._segments)

    def build(self, decoded: Decoded) -> tuple[Segment, ...]:
        """Return the segments of a whole decode."""
        for token in decoded.tokens:
            self.add(token)
        return self.finish(decoded.about)

    def _begins_word(self, text: bytes) -> bool:
        if self._spaced:
            return text[:1] == b" "
        try:
            self._words[-1].text.decode()
        except UnicodeDecodeError:
            return False
        return True

    def _close(self, end: float) -> None:
        text = self._text.decode(errors="replace").strip()
        if text:
            # A padded window ends with its audio.
            end = max(self._start, min(end, self._seconds))
            words = tuple(self._finish_words()) if self._with_words else None
            segment = Segment(self._start, end, text, confidence(self._logprobs), words)
            self._segments.append(replace(segment, tokens=fitted(self._tokens, text)))
        self._text.clear()
        if self._tokens is not None:
            self._tokens = []
        self._logprobs = []
        self._words = []

    def _finish_words(self) -> Iterator[Word]:
        for word in self._words:
            text = word.text.decode(errors="replace").strip()
            if text:
                yield Word(word.moved, word.moved, text, confidence(word.logprobs))
