"""The log's way out: lines to a descriptor, without ever waiting long for who reads them.

The log is written by the thread that has something to say, and that may be the loop. A pipe whose
reader has stopped would hold it up, and with it every connection; so a line that finds no room is
left out and counted, and the next one that goes tells how many. Any thread may write.
"""

from __future__ import annotations

import os
import select
import threading

PATIENCE_SECONDS = 0.05
"""How long a line waits where the one before had room: a reader that is alive takes less, whatever
else the machine does. Behind a line that was lost none waits."""


class Stderr:
    """Writes lines to `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self.lost = 0
        """Lines in a row for which there was no room."""

    def write(self, line: str) -> None:
        """Write `line` and an end of line, or lose it."""
        data = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
        with self._lock:
            self.lost = 0 if self._send(data) else self.lost + 1

    def _send(self, data: memoryview) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        patience = 0 if self.lost else int(1000 * PATIENCE_SECONDS)
        try:
            while data:
                if not poll.poll(patience):
                    return False
                # So much a pipe that is ready takes without waiting.
                data = data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]
        except OSError:
            # The reader has gone, or a disk is full: requests are served all the same.
            return False
        return True
