"""What a prompt may be: the text that Whisper takes for what was said before.

One rule for prompts from requests and from the command line. Pure.
"""

from __future__ import annotations

MAX_PROMPT_BYTES = 16_384
"""In UTF-8. Whisper reads at most the last 223 tokens (half its 448-token text context, less one);
this is room for a long vocabulary, of which the node reads the end (`app/decoding/prompt.py`)."""


def is_text(prompt: str) -> bool:
    """Whether it can be encoded and shown: no NUL, no half of a surrogate pair."""
    return "\0" not in prompt and not any("\ud800" <= mark <= "\udfff" for mark in prompt)


def prompt_fault(prompt: str) -> str | None:
    """What is wrong with it, to be put behind its name ("has ..."), or None."""
    if not is_text(prompt):
        return "holds a character that is not text"
    size = len(prompt.encode())
    if size > MAX_PROMPT_BYTES:
        return f"has {size} bytes in UTF-8; the limit is {MAX_PROMPT_BYTES}"
    return None
