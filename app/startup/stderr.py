"""Writes log lines to a descriptor without waiting long for the reader.

The loop thread logs too, and a pipe whose reader has stopped would block it and every connection.
A line that does not fit is therefore dropped and counted; the next line that fits reports the
count. Any thread may write.
"""

from __future__ import annotations

import os
import select
import threading

WAIT_SECONDS = 0.05
"""The longest wait for space after a line that was written; a live reader takes less. After a lost
line there is no wait."""


class Stderr:
    """Writes lines to `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self.lost = 0
        """Lines lost in a row."""

    def write(self, line: str) -> None:
        """Write `line` and a line feed, or drop it and count it in `lost`."""
        data = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
        with self._lock:
            self.lost = 0 if self._send(data) else self.lost + 1

    def _send(self, data: memoryview) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        wait_ms = 0 if self.lost else int(1000 * WAIT_SECONDS)
        try:
            while data:
                if not poll.poll(wait_ms):
                    return False
                # A pipe that is ready takes this many bytes without blocking.
                data = data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]
        except OSError:
            # The reader has gone or the disk is full; requests must be served all the same.
            return False
        return True
