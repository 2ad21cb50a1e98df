"""The tokens of one decode, as read from whisper.cpp. Times are seconds from the window's start."""

from __future__ import annotations

from dataclasses import dataclass

TIMESTAMP_SECONDS = 0.02
"""One step of Whisper's timestamp tokens."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the decoder wrote it: text, or a timestamp where `at` is not None.

    `logprob` is the natural log of its probability; `moved` is when the decoder's attention moved
    on from it, where words were asked for.
    """

    id: int
    text: bytes = b""
    logprob: float = 0.0
    moved: float = 0.0
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decode's text and timestamp tokens, in order. `about` is the most probable timestamp where
    the decoder wrote its end of text; None where it wrote none."""

    tokens: tuple[Token, ...] = ()
    about: float | None = None
