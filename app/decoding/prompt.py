"""From a prompt's text to the tokens that the decoder reads.

whisper.cpp can read a prompt's text by itself. Its tokenizer is a recursive regular expression with
a quadratic search for tokens behind it, which a prompt of 16 KiB without spaces would hold up for
minutes, and it cannot say how many tokens a text has. `Tokenizer` splits as whisper.cpp does
(GPT-2's pattern, then the longest token that fits) in linear time, from the end backwards, and only
as far as there is room. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from app.decoding.decoded import TIMESTAMP_SECONDS

MOST_TOKENS = 223
"""What whisper.cpp's decoder reads of a prompt: half of its 448 positions, less one."""

_BEFORE_SECONDS = (20.0, 28.0, 28.0)
"""Timestamps around the prompt of a reduced decode, which make it a segment that ended, as text
before was in Whisper's training. Without them tiny.en writes no timestamps behind a prompt, and
then nothing stops it in the silence at the window's end: it says the last sentence again. Lab book,
"Prompts"."""

_PIECE = re.compile(
    rb"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
)
"""GPT-2's pattern on bytes, as whisper.cpp has it: what is not ASCII counts as punctuation."""

_LONGEST_TOKEN = 32
"""Bytes. The few longer ones in Whisper's vocabulary are runs of spaces and of broken text."""


class Tokenizer:
    """Splits text into the tokens of one model.

    `tokens` are the bytes of its text tokens, by number.
    """

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._numbers = {text: number for number, text in enumerate(tokens)}

    def tail(self, text: str, most: int) -> tuple[int, ...]:
        """The last tokens of `text`, `most` at most."""
        if most <= 0:
            return ()
        taken: list[int] = []
        for piece in reversed(_PIECE.findall(text.encode())):
            taken[:0] = self._split(piece)
            if len(taken) >= most:
                break
        return tuple(taken[-most:])

    def _split(self, piece: bytes) -> list[int]:
        found: list[int] = []
        at = 0
        while at < len(piece):
            for end in range(min(len(piece), at + _LONGEST_TOKEN), at, -1):
                number = self._numbers.get(piece[at:end])
                if number is not None:
                    found.append(number)
                    at = end
                    break
            else:
                # A byte that no token has: whisper.cpp leaves it out, too.
                at += 1
        return found


class PromptEncoder:
    """Writes prompts for one model.

    `read_token` gives the bytes of a token by number; numbers below `text_tokens` are text,
    `first_timestamp` is that of 0 s. The vocabulary is read with the first prompt: that takes 50 ms
    and some memory.
    """

    def __init__(
        self, read_token: Callable[[int], bytes], text_tokens: int, first_timestamp: int
    ) -> None:
        self._read_token = read_token
        self._text_tokens = text_tokens
        self._first_timestamp = first_timestamp
        self._tokenizer: Tokenizer | None = None

    def encode(self, prompt: str, carried: str, most: int, timed: bool) -> list[int]:
        """The tokens of a `prompt` with `carried` text behind it, `most` at most; between
        timestamps if `timed`. Empty without either."""
        if not prompt.strip() and not carried.strip():
            return []
        if self._tokenizer is None:
            self._tokenizer = Tokenizer([self._read_token(n) for n in range(self._text_tokens)])
        if not timed:
            return list(share(self._tokenizer, prompt, carried, most))
        begin, end, again = (
            self._first_timestamp + round(at / TIMESTAMP_SECONDS) for at in _BEFORE_SECONDS
        )
        tokens = share(self._tokenizer, prompt, carried, most - len(_BEFORE_SECONDS))
        return [begin, *tokens, end, again]


def share(
    tokenizer: Tokenizer, prompt: str, carried: str, most: int = MOST_TOKENS
) -> tuple[int, ...]:
    """The tokens of `prompt` and behind them those of the `carried` text, `most` at most.

    Each keeps its end and at least its half of `most`, and takes what the other leaves.
    """
    after = tokenizer.tail(_spaced(carried), most)
    before = tokenizer.tail(_spaced(prompt), most)
    room = max(most // 2, most - len(before))
    after = after[-room:] if room else ()
    left = most - len(after)
    return (before[-left:] if left else ()) + after


def _spaced(text: str) -> str:
    """Whisper's training text begins with a space, as does every word in it."""
    text = text.strip()
    return f" {text}" if text else ""
