"""The loop's sign of life, for other threads. Loop thread; any thread may ask `stuck`."""

from __future__ import annotations

import time

from app.network.loop import Loop

_BEAT_SECONDS = 2.0
_STUCK_SECONDS = 20.0
"""No callback of a healthy loop takes so long, not even on a machine that swaps."""


class LoopPulse:
    """Beats while `loop` runs, from the moment it is made."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._beat_at = time.monotonic()
        self._beat()

    def stuck(self) -> str | None:
        """Return why the loop is unhealthy, or None."""
        late = time.monotonic() - self._beat_at
        return "the loop is stuck" if late > _STUCK_SECONDS else None

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        self._loop.call_at(self._beat_at + _BEAT_SECONDS, self._beat)
