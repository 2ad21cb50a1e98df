"""Finds uploads that are too slow while others wait for their places.

A slow upload is welcome while there are places. When there are none, an upload slower than speech
delays those behind it, and enough of them could block the node with a byte now and then. From the
moment a request waits, uploads are measured, and those too slow are ended. Loop thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from app.network.loop import Loop
from app.requests.upload import Upload

WINDOW_SECONDS = 10.0
"""The time over which an upload is measured, so that a short stall does not count."""

BYTES_PER_SECOND = 500
"""Below the lowest rate of speech on networks, Opus at 6 kbit/s: 750 bytes a second."""


class SlowUploads:
    """Measures `uploads`, and calls `too_slow` with those that are too slow while `crowded`."""

    def __init__(
        self,
        loop: Loop,
        uploads: Mapping[int, Upload],
        crowded: Callable[[], bool],
        too_slow: Callable[[Upload], None],
    ) -> None:
        self._loop = loop
        self._uploads = uploads
        self._crowded = crowded
        self._too_slow = too_slow
        self.sizes: dict[int, int] | None = None
        """Bytes received by each request when the window began; None outside of a window."""

    def watch(self) -> None:
        """Begin a window, unless one has begun: a request has to wait."""
        if self.sizes is None:
            self.sizes = {upload.number: upload.received for upload in self._uploads.values()}
            self._loop.call_at(time.monotonic() + WINDOW_SECONDS, self._judge)

    def _judge(self) -> None:
        sizes, self.sizes = self.sizes or {}, None
        if not self._crowded():
            return
        least = WINDOW_SECONDS * BYTES_PER_SECOND
        for upload in list(self._uploads.values()):
            # Reading pauses while the disk or the worker is slow; the client is not to blame.
            if upload.held_up or upload.number not in sizes:
                continue
            if upload.received - sizes[upload.number] < least:
                self._too_slow(upload)
        self.watch()
