"""Streams of bytes for the tests of protocols: cut at random, and with bodies joined again."""

from __future__ import annotations

import itertools
from typing import Any

Seen = list[tuple[Any, ...]]
"""The events of a protocol, in order."""


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces, cut at `cuts`, which are any numbers (taken modulo its length)."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def see_body(seen: Seen, data: bytes | memoryview) -> None:
    """Record a piece of a body; join it to the piece before it."""
    piece = bytes(data)
    assert piece, "a piece of a body must not be empty"
    if seen and seen[-1][0] == "body":
        piece = seen.pop()[1] + piece
    seen.append(("body", piece))
