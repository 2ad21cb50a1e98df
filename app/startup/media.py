"""The decoder of recordings of phones and browsers, as `--media` chooses it.

Main thread; the returned function is called on the worker thread.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from app.audio.source import OpenMedia, Source
from app.settings.settings import Settings

if TYPE_CHECKING:
    from app.audio.media.opener import MediaOpener


def opener(settings: Settings) -> OpenMedia | None:
    """Return the function that opens such files; None if they are to be rejected."""
    return None if settings.media == "off" else _open


def _open(descriptor: int, name: str, found: str, max_seconds: float) -> Source:
    return _opener().open(descriptor, name, found, max_seconds)


@functools.cache
def _opener() -> MediaOpener:
    # Imported with the first such file: most nodes never receive one.
    from app.audio.media.opener import MediaOpener

    return MediaOpener()
