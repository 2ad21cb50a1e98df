"""Shared by the programs of this folder: the node, the recording, and the lines of the result."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

NODE = os.environ["NODE"]
V1 = f"{NODE}/v1"
AUDIO = Path(os.environ["AUDIO"])
WORDS = "ask not what your country can do for you"


def words(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalpha() or c.isspace()).split())


def said(text: Any) -> None:
    """Fail unless the text of the recording is in `text`."""
    if WORDS not in words(str(text)):
        raise AssertionError(f"the text is {str(text)[:100]!r}")


def check(name: str) -> Callable[[Callable[[], Any]], None]:
    """Run the decorated function as the call `name`, and print its result."""

    def run(call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as failed:
            reason = " ".join(f"{type(failed).__name__}: {failed}".split())
            print(f"{name}\tfails: {reason[:150].replace('|', '/')}", flush=True)
        else:
            print(f"{name}\tworks", flush=True)

    return run
