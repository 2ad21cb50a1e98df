"""The tokens of a segment's text, as its text changes.

A segment is divided, or loses markers and repetitions. Its tokens change with its text, so that
their bytes joined remain the text. Places in a text are counted in characters without white space,
because the white space differs. Bytes that are not UTF-8 are U+FFFD in the text, and stay in the
tokens. Pure.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from app.messages import TextToken


def length_of(text: str) -> int:
    """Return the number of characters that are not white space."""
    return len("".join(text.split()))


def fitted(
    tokens: Sequence[TextToken] | None, text: str, kept: Container[int] | None = None
) -> tuple[TextToken, ...] | None:
    """Return `tokens` reduced to `text`; None for None.

    `text` is the characters that remain of the text of the tokens: those at the places `kept`, or
    all for None. White space that `text` has and the tokens have not goes to the token after it. A
    token of which nothing remains is dropped.
    """
    if tokens is None:
        return None
    data = b"".join(token.data for token in tokens)
    owners = [number for number, token in enumerate(tokens) for _ in token.data]
    parts = [bytearray() for _ in tokens]
    gaps = _gaps(text)
    last = 0
    for place, (begin, end) in enumerate(_characters(data)):
        if kept is None or place in kept:
            gap = next(gaps, b"")
            if data[last:begin] == gap:
                begin = last
            else:
                parts[owners[begin]] += gap
            for at in range(begin, end):
                parts[owners[at]].append(data[at])
        last = end
    return tuple(
        TextToken(bytes(part), token.logprob)
        for part, token in zip(parts, tokens, strict=True)
        if part
    )


def divided(
    tokens: Sequence[TextToken] | None, texts: Sequence[str]
) -> list[tuple[TextToken, ...] | None]:
    """Return the tokens of each of the `texts`, which in order are the whole text of `tokens`."""
    parts = []
    begin = 0
    for text in texts:
        end = begin + length_of(text)
        parts.append(fitted(tokens, text, range(begin, end)))
        begin = end
    return parts


def led(tokens: Sequence[TextToken], space: str) -> tuple[TextToken, ...]:
    """Return `tokens` with `space` before the first."""
    if not tokens or not space:
        return tuple(tokens)
    first = TextToken(space.encode() + tokens[0].data, tokens[0].logprob)
    return (first, *tokens[1:])


def _gaps(text: str) -> Iterator[bytes]:
    """Yield the white space before each character of `text`."""
    gap = ""
    for character in text:
        if character.isspace():
            gap += character
        else:
            yield gap.encode()
            gap = ""


def _characters(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the begin and the end of each character that is not white space. Invalid bytes are
    characters as `bytes.decode` replaces them."""
    at = 0
    while at < len(data):
        broken = 0
        try:
            text = data[at:].decode()
        except UnicodeDecodeError as error:
            text = data[at : at + error.start].decode()
            broken = error.end - error.start
        for character in text:
            size = len(character.encode())
            if not character.isspace():
                yield at, at + size
            at += size
        if broken:
            yield at, at + broken
            at += broken
