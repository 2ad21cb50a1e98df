"""The tokens of a prompt's text, as the decoder reads them.

whisper.cpp has a tokenizer too, but it needs minutes for a prompt of 16 KiB without spaces: a
recursive regular expression followed by a quadratic search. It also does not return the number of
tokens. `Tokenizer` gives the same tokens (GPT-2's pattern, then the longest token that fits) in
linear time. It starts at the text's end and stops as soon as there are enough tokens. Pure.
"""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Callable, Sequence

from app.decoding.decoded import TIMESTAMP_SECONDS

MOST_TOKENS = 223
"""Most tokens that whisper.cpp's decoder reads of a prompt: half of its 448 positions, less one."""

CARRIED_TOKENS = 24
"""Most tokens of the preceding text. whisper.cpp computes the probabilities of the whole vocabulary
for each and keeps them twice, 0.4 MiB. More of them make more errors (docs/lab-book.md, "Shorter
prompts")."""

_BEFORE_SECONDS = (20.0, 28.0, 28.0)
"""Timestamps in seconds around a prompt, which make it a finished segment, as in Whisper's
training. Without them tiny.en writes no timestamps after a prompt, omits speech, and repeats the
last sentence in the silence at the window's end (docs/lab-book.md, "Prompts")."""

_PIECE = re.compile(
    rb"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
)
"""GPT-2's pattern on bytes, as in whisper.cpp: bytes outside ASCII count as punctuation."""

_LONGEST_TOKEN = 32
"""Bytes of the longest token tried. The few longer ones in Whisper's vocabulary are runs of spaces
and broken text."""


class _Numbers:
    """The numbers of tokens by their bytes: a hash table with open addressing (Knuth, volume 3,
    section 6.4, algorithm L). It takes 1 MiB for Whisper's tokens, a dictionary 6."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._text = b"".join(tokens)
        self._ends = array("I", itertools.accumulate(len(token) for token in tokens))
        slots = 1 << (2 * len(tokens)).bit_length()
        self._mask = slots - 1
        self._slots = array("i", [-1]) * slots
        for number, token in enumerate(tokens):
            self._slots[self._find(token)] = number

    def get(self, token: bytes) -> int | None:
        """Return a token's number; None if there is no such token."""
        number = self._slots[self._find(token)]
        return None if number < 0 else number

    def _find(self, token: bytes) -> int:
        """Return the slot of a token, or the empty slot in which it belongs."""
        slot = hash(token) & self._mask
        while (number := self._slots[slot]) >= 0 and self._token(number) != token:
            slot = (slot + 1) & self._mask
        return slot

    def _token(self, number: int) -> bytes:
        return self._text[self._ends[number - 1] if number else 0 : self._ends[number]]


class Tokenizer:
    """The tokenizer of one model. `tokens` are the bytes of its text tokens, by number."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._numbers = _Numbers(tokens)

    def tail(self, text: str, most: int) -> tuple[int, ...]:
        """Return the last tokens of `text`, at most `most`."""
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
                # No token begins with this byte: skip it, as whisper.cpp does.
                at += 1
        return found


class PromptEncoder:
    """The encoder of prompts for one model.

    `read_token` returns the bytes of a token by number; numbers below `text_tokens` are text,
    `first_timestamp` is the token of 0 s. The first prompt loads the vocabulary, which takes 0.1 s
    and 1 MiB.
    """

    def __init__(
        self, read_token: Callable[[int], bytes], text_tokens: int, first_timestamp: int
    ) -> None:
        self._read_token = read_token
        self._text_tokens = text_tokens
        self._first_timestamp = first_timestamp
        self._tokenizer: Tokenizer | None = None

    def encode(self, prompt: str, carried: str, most: int) -> list[int]:
        """Return at most `most` tokens: a `prompt` followed by `carried` text, between timestamps.
        Empty if both texts are."""
        if not prompt.strip() and not carried.strip():
            return []
        if self._tokenizer is None:
            self._tokenizer = Tokenizer([self._read_token(n) for n in range(self._text_tokens)])
        begin, end, again = (
            self._first_timestamp + round(at / TIMESTAMP_SECONDS) for at in _BEFORE_SECONDS
        )
        tokens = share(self._tokenizer, prompt, carried, most - len(_BEFORE_SECONDS))
        return [begin, *tokens, end, again]


def share(
    tokenizer: Tokenizer, prompt: str, carried: str, most: int = MOST_TOKENS
) -> tuple[int, ...]:
    """Return the tokens of `prompt`, followed by those of the `carried` text; at most `most`.

    Each text keeps its end. Each may use half of `most`, and the part that the other does not use;
    the carried text at most `CARRIED_TOKENS`.
    """
    after = tokenizer.tail(_spaced(carried), min(most, CARRIED_TOKENS))
    before = tokenizer.tail(_spaced(prompt), most)
    room = max(most // 2, most - len(before))
    after = after[-room:] if room else ()
    left = most - len(after)
    return (before[-left:] if left else ()) + after


def _spaced(text: str) -> str:
    """Return `text` with a space before it, like the text in Whisper's training."""
    text = text.strip()
    return f" {text}" if text else ""
