"""whisper.cpp's log, which is one for the process: each line goes to the context it is about.

whisper.cpp does not say which context a line concerns, but writes it on the thread that uses the
context. Lines of its helper threads go to all contexts. Any thread.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

TakeLine = Callable[[int, str], None]
"""Takes the level of ggml.h and the text of a line. Called from within whisper.cpp, which no
exception may cross."""

Install = Callable[[TakeLine | None], None]
"""whisper.cpp's `whisper_log_set`; None removes the function that was set."""

_open: list[TakeLine] = []
_of_thread = threading.local()


def attach(take: TakeLine, install: Install) -> None:
    """Pass lines to `take` from now on."""
    if not _open:
        # A Python callback that is still installed aborts the process at its end (status 134),
        # also after an exception.
        atexit.register(install, None)
        install(_take)
    _open.append(take)


def detach(take: TakeLine, install: Install) -> None:
    """Pass no further lines to `take`."""
    if take in _open:
        _open.remove(take)
    if not _open:
        install(None)


def enter(take: TakeLine) -> None:
    """State that the calling thread now uses the context of `take`."""
    _of_thread.take = take


def _take(level: int, text: str) -> None:
    take: TakeLine | None = getattr(_of_thread, "take", None)
    for one in tuple(_open) if take is None else (take,):
        one(level, text)
