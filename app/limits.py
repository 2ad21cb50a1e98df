"""What may be a prompt: the text that Whisper takes for what was said before.

One rule for prompts from requests and from the command line. Pure.
"""

from __future__ import annotations

MAX_CHARACTERS = 2000
"""Whisper reads at most the last 223 tokens of a prompt (half its 448-token text context, less
one); 2,000 characters are more than that in every language it knows."""


def prompt_fault(prompt: str) -> str | None:
    """What is wrong with it, to be put behind its name ("has ..."), or None."""
    if len(prompt) > MAX_CHARACTERS:
        return f"has {len(prompt)} characters; at most {MAX_CHARACTERS} are read"
    # The engine takes a C string: a NUL would end it, half a surrogate pair cannot be encoded.
    if "\0" in prompt or any("\ud800" <= character <= "\udfff" for character in prompt):
        return "holds a character that is not text"
    return None
