"""Outcomes and segments of streams as lines on stdout, written as fast as the reader takes them.

`put` takes one of them from any thread and returns at once. The disk thread formats the line and
writes it when the kernel accepts bytes, so that a slow or stalled reader delays nothing else. The
server stops admitting requests while `backlog` is large. An action that must follow the line, such
as removing the request from the journal, is passed to `put` as `then`.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections import deque
from collections.abc import Callable

import structlog

from app.messages import Origin, Outcome, Segment
from app.storage.disk import Disk

FULL_DISK_SECONDS = 1.0
"""Pause between two tries on a full disk, which does not report free space."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = structlog.get_logger("stdout")

Format = Callable[[str | None, Origin, Outcome | Segment], str]
_Item = tuple[str | None, Origin, Outcome | Segment, Callable[[], None] | None]


class StdoutSink:
    """Writes one line an item to `descriptor`, on the thread of `disk`.

    `on_broken` is called there once the reader is gone; lines are dropped from then on, without
    their `then`.
    """

    def __init__(
        self,
        disk: Disk,
        descriptor: int,
        line: Format,
        on_broken: Callable[[], None],
        encoding: str = "utf-8",
    ) -> None:
        self._disk = disk
        self._descriptor = descriptor
        self._line = line
        self._on_broken = on_broken
        self._encoding = encoding
        self._queue: deque[_Item] = deque()
        self._data = memoryview(b"")
        self._broken = False
        self._full_until = 0.0
        """Time of the next try by `time.monotonic`; 0 while the disk has space."""
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        disk.serve(self)

    @property
    def backlog(self) -> int:
        """The number of lines not yet written, including the one in progress."""
        return len(self._queue)

    def put(
        self,
        request_id: str | None,
        origin: Origin,
        outcome: Outcome | Segment,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Queue one line. `then` is called on the disk thread once the kernel has all of the line,
        and the medium has it where stdout is a file."""
        if not self._broken:
            self._queue.append((request_id, origin, outcome, then))
            self._disk.nudge()

    # Called by the disk thread.

    def fileno(self) -> int:
        return self._descriptor

    def wants_write(self) -> bool:
        return bool(self._queue) and not self._broken

    def pause(self) -> float:
        return max(0.0, self._full_until - time.monotonic()) if self._full_until else 0.0

    def write_some(self) -> None:
        request_id, origin, outcome, then = self._queue[0]
        if not self._data:
            text = self._line(request_id, origin, outcome) + "\n"
            # A transcript is written in any locale.
            self._data = memoryview(text.encode(self._encoding, "replace"))
        try:
            # A ready pipe accepts this many bytes without waiting.
            self._data = self._data[os.write(self._descriptor, self._data[: select.PIPE_BUF]) :]
            self._full_until = 0.0
            if self._data:
                return
            if then is not None and self._is_file:
                os.fdatasync(self._descriptor)
        except BlockingIOError:
            return
        except OSError as error:
            if self._data and error.errno in _FULL:
                self._wait_for_space(error)
                return
            _log.error("cannot write to stdout; stopping", error=str(error))
            self._broken = True
            self._on_broken()
            return
        self._queue.popleft()
        if then is not None:
            self._settle(then)

    def _wait_for_space(self, error: OSError) -> None:
        """Keep this line and the later ones, as for a stalled reader."""
        if not self._full_until:
            _log.error("the disk of stdout is full; waiting for space", error=str(error))
        self._full_until = time.monotonic() + FULL_DISK_SECONDS

    def _settle(self, then: Callable[[], None]) -> None:
        try:
            then()
        except OSError as error:
            _log.error("cannot complete an outcome after its line", error=str(error))
