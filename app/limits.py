"""The limits of samples, prompts, engines and subtitle cues, and a separator, which several layers
share. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 384_000
"""Hz, for raw samples and files. Speech needs more, and no microphone exceeds the maximum."""

MAX_CHANNELS, MAX_SPLIT_CHANNELS = 64, 8
"""Most channels of a recording: without and with `split`, which transcribes each by itself."""

MAX_PROMPT_BYTES = 16_384
"""Most bytes of a prompt in UTF-8, the text that Whisper treats as the preceding transcript: enough
for a long list of words. Whisper reads at most the last 223 tokens of it
(`app/decoding/prompt.py`). The limit applies to requests and to the command line."""

MAX_ENGINES = 16
"""Most engines of a node: each has a thread, and a place in the crash marker."""

MARK_SEPARATOR = "/"
"""Separates the names in the crash marker: no name of a directory contains it."""

MAX_LINE_WIDTH, MAX_LINE_COUNT = 1_000, 100
MIN_CUE_SECONDS, MAX_CUE_SECONDS = 0.5, 3_600.0


@dataclass(frozen=True, slots=True)
class CueLayout:
    """The greatest size of a subtitle cue: columns of a line, lines, seconds. A wide character
    takes two columns. The defaults are what subtitle guidelines have in common. With `whole_words`
    a word that is wider than a line is not divided."""

    width: int = 42
    lines: int = 2
    seconds: float = 7.0
    whole_words: bool = False


def is_text(prompt: str) -> bool:
    """Return whether `prompt` can be encoded and shown: no NUL, no unpaired surrogate."""
    return "\0" not in prompt and not any("\ud800" <= mark <= "\udfff" for mark in prompt)


def prompt_fault(prompt: str) -> str | None:
    """Return the fault of `prompt` in words to follow its name; None if it has none."""
    if not is_text(prompt):
        return "holds a character that is not text"
    size = len(prompt.encode())
    if size > MAX_PROMPT_BYTES:
        return f"has {size} bytes in UTF-8; the limit is {MAX_PROMPT_BYTES}"
    return None
