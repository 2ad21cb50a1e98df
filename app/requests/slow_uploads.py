"""Uploads that hardly get on, while others wait for their places.

A slow upload is welcome as long as there is room. When there is none, an upload that brings less
than speech itself would be holds up those behind it, and enough of them, a byte now and then on
each, would hold up everybody for ever. So from the moment somebody waits uploads are measured, and
those too slow are given up. Loop thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from app.network.loop import Loop
from app.requests.in_flight import InFlight

WINDOW_SECONDS = 10.0
"""What is measured over: a hiccup of the network is no reason."""

BYTES_PER_SECOND = 500
"""Below the thriftiest speech there is on networks, Opus at 6 kbit/s: 750 bytes a second."""


class SlowUploads:
    """Watches `uploads`; those that are too slow while `crowded` are given to `too_slow`."""

    def __init__(
        self,
        loop: Loop,
        uploads: Mapping[int, InFlight],
        crowded: Callable[[], bool],
        too_slow: Callable[[InFlight], None],
    ) -> None:
        self._loop = loop
        self._uploads = uploads
        self._crowded = crowded
        self._too_slow = too_slow
        self._sizes: dict[int, int] | None = None
        """By request, when the window began; None outside of one."""

    def watch(self) -> None:
        """Somebody could not be let in: measure, unless that is being done."""
        if self._sizes is None:
            self._sizes = {
                pending.number: pending.body.size
                for pending in self._uploads.values()
                if pending.body is not None
            }
            self._loop.call_at(time.monotonic() + WINDOW_SECONDS, self._judge)

    def _judge(self) -> None:
        sizes, self._sizes = self._sizes or {}, None
        if not self._crowded():
            return
        least = WINDOW_SECONDS * BYTES_PER_SECOND
        for pending in list(self._uploads.values()):
            body = pending.body
            # Where the disk is what is slow, it is we who do not read.
            if body is None or body.unwritten or pending.number not in sizes:
                continue
            if body.size - sizes[pending.number] < least:
                self._too_slow(pending)
        self.watch()
