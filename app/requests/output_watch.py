"""Polls whether stdout is being read again, since no event reports it. Loop thread only."""

from __future__ import annotations

import time

from app.network.loop import Callback, Loop

PAUSE_SECONDS = 0.1


class OutputWatch:
    """Calls `look` after a pause."""

    def __init__(self, loop: Loop, look: Callback) -> None:
        self._loop = loop
        self._look = look
        self._scheduled = False

    def schedule(self) -> None:
        """Call `look` soon, unless that is scheduled already."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_at(time.monotonic() + PAUSE_SECONDS, self._run)

    def _run(self) -> None:
        self._scheduled = False
        self._look()
