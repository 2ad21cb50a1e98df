"""The tokens of one decode, as read from whisper.cpp. Times are seconds from the window's start."""

from __future__ import annotations

from dataclasses import dataclass

TIMESTAMP_SECONDS = 0.02
"""Seconds from one of Whisper's timestamp tokens to the next."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the decoder wrote it: text, or a timestamp where `at` is not None.

    `logprob` is the natural log of its probability; `moved` is the time at which the decoder's
    attention moved on from it, if words were requested.
    """

    id: int
    text: bytes = b""
    logprob: float = 0.0
    moved: float = 0.0
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decode's text and timestamp tokens, in order. `about` is the most probable timestamp in
    place of the end-of-text token; None if the decoder wrote no such token."""

    tokens: tuple[Token, ...] = ()
    about: float | None = None
