"""The limits of a prompt, the text that Whisper treats as the preceding transcript.

One rule applies to prompts from requests and from the command line. Pure.
"""

from __future__ import annotations

MAX_PROMPT_BYTES = 16_384
"""Most bytes of a prompt in UTF-8: enough for a long list of words. Whisper reads at most the last
223 tokens of it (`app/decoding/prompt.py`)."""


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
