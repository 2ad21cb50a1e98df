"""Places where a text may be divided, in any script, and the columns that a text takes.

Words are divided at spaces. Scripts that are written without spaces (Chinese, Japanese, Thai and
their like) are divided between characters, but not before a mark that closes and not after one that
opens. Pure.

Sources: Unicode Standard Annex 11 (columns) and 14 (the marks that begin and end no line).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

SENTENCE_ENDS = ".?!\u3002\uff0e\uff1f\uff01\u0964\u0965\u061f\u06d4\u104b\u17d4\u1362"
CLAUSE_ENDS = ",;:\u2026\u2014\u2013\u3001\uff0c\uff1b\uff1a\u060c\u061b\u104a\u1363"

_UNSPACED = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3000, 0x30FF),  # CJK punctuation, Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x9FFF),  # Chinese characters
    (0xF900, 0xFAFF),
    (0xFF00, 0xFF9F),  # full-width forms, half-width Katakana
    (0x20000, 0x3FFFF),
)
"""Ranges of characters that are written without spaces between words."""

_LEADING = "\u00bf\u00a1" + "".join(map(chr, (*range(0x0E40, 0x0E45), *range(0x0EC0, 0x0EC5))))
"""Characters that belong to the next one although Unicode does not class them as opening: inverted
marks, and the vowels that Thai and Lao write before their consonant."""

_FOLLOWING = (
    "\u3041\u3043\u3045\u3047\u3049\u3063\u3083\u3085\u3087\u308e\u3095\u3096"
    "\u30a1\u30a3\u30a5\u30a7\u30a9\u30c3\u30e3\u30e5\u30e7\u30ee\u30f5\u30f6"
    "\u30fc\u3005\u303b\u309d\u309e\u30fd\u30fe\u301c\uff5e"
    "\u0e2f\u0e30\u0e32\u0e33\u0e45\u0e46\u0eaf\u0eb0\u0eb2\u0eb3\u0ec6"
)
"""Characters that belong to the one before: small kana, signs of length and repetition, and the
vowels that Thai and Lao write after their consonant."""

_JOINERS = "\u200d\u17d2\u1039"
"""Characters that join the next one to the one before: the zero-width joiner, and the signs of
stacked consonants of Khmer and Myanmar."""

_SOFT_ENDS = "-/_.?&=@"
"""Marks after which a word that is longer than a line is divided rather than elsewhere."""

_LONGEST_TITLE = 3
"""Letters of the longest short form, such as "Mrs.", whose full stop ends no sentence."""


class Break(IntEnum):
    """The end of a piece of text, from the best place for a division to the worst."""

    SENTENCE = 0
    CLAUSE = 1
    WORD = 2
    INSIDE = 3
    """Within a word that is longer than a line."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text that is not divided: a word, or a character of a script without spaces.

    `at` is the position of its first character; `spaced` is True if a space precedes it; `after` is
    the kind of place that follows it.
    """

    text: str
    at: int
    spaced: bool
    after: Break
    columns: int


def columns(text: str) -> int:
    """Return the columns of `text`: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(character) for character in text)


def pieces(text: str, width: int) -> list[Piece]:
    """Return the pieces of `text`, none wider than `width` columns unless a single character is.

    Words in `text` are separated by single spaces.
    """
    found: list[Piece] = []
    at = 0
    for word in text.split(" "):
        parts = [part for part in _parts(word) if part]
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            after = _kind(part)
            if is_last and after is Break.WORD and _is_unspaced(part[-1]):
                after = Break.CLAUSE  # such a script has spaces between phrases only
            chunks = _chunks(part, width)
            for index, chunk in enumerate(chunks):
                ends = after if index == len(chunks) - 1 else Break.INSIDE
                spaced = number == index == 0 and at > 0
                found.append(Piece(chunk, at, spaced, ends, columns(chunk)))
                at += len(chunk)
        at += 1
    return found


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _is_unspaced(character: str) -> bool:
    code = ord(character)
    return code >= 0x0E00 and any(first <= code <= last for first, last in _UNSPACED)


def _clusters(text: str) -> Iterator[str]:
    """Yield the characters of `text`, each with the marks that combine with it."""
    cluster = ""
    for character in text:
        combines = unicodedata.category(character)[0] == "M" or character in _JOINERS
        if cluster and not combines and cluster[-1] not in _JOINERS:
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _parts(word: str) -> Iterator[str]:
    """Yield the parts of a word: divided between characters of scripts without spaces, and after a
    dash or an ellipsis."""
    if word.isascii():
        yield word
        return
    part = ""
    for cluster in _clusters(word):
        if part and _may_divide(part[-1], cluster[0]):
            yield part
            part = ""
        part += cluster
    yield part


def _may_divide(before: str, after: str) -> bool:
    if _begins_no_line(after) or _ends_no_line(before):
        return False
    return _is_unspaced(before) or _is_unspaced(after) or before in "\u2014\u2026"


def _begins_no_line(character: str) -> bool:
    category = unicodedata.category(character)
    closes = category in ("Pe", "Pf", "Po") and character not in _LEADING
    return closes or character in _FOLLOWING


def _ends_no_line(character: str) -> bool:
    return unicodedata.category(character) in ("Ps", "Pi") or character in _LEADING


def _kind(part: str) -> Break:
    bare = part
    while bare and (bare[-1] in "\"'" or unicodedata.category(bare[-1]) in ("Pe", "Pf", "Pi")):
        bare = bare[:-1]
    if bare.endswith(tuple(SENTENCE_ENDS)):
        letters = bare[:-1]
        is_title = bare[-1] == "." and letters[:1].isupper() and len(letters) <= _LONGEST_TITLE
        return Break.WORD if is_title else Break.SENTENCE
    is_dash = part in ("-", "\u2013", "\u2014")
    return Break.CLAUSE if is_dash or bare.endswith(tuple(CLAUSE_ENDS)) else Break.WORD


def _chunks(part: str, width: int) -> list[str]:
    """Divide a part that is wider than `width`, after a soft mark where one is in its second
    half."""
    if columns(part) <= width:
        return [part]
    chunks, chunk, soft = [], "", 0
    for cluster in _clusters(part):
        if chunk and columns(chunk + cluster) > width:
            cut = soft if columns(chunk[:soft]) * 2 > width else len(chunk)
            chunks.append(chunk[:cut])
            chunk, soft = chunk[cut:], 0
        chunk += cluster
        if cluster in _SOFT_ENDS:
            soft = len(chunk)
    return [*chunks, chunk]
