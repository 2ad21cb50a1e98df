"""stdout: one line an outcome, as far as its reader takes them.

`put` takes an outcome and returns at once, from any thread; the disk thread makes the line and
writes it, whenever the kernel says there is room, so that a reader who is slow, or has stopped,
holds up nobody. `backlog` says how many lines are still unwritten, by which the server stops
admitting before they become many. What must not happen before a line is out (a request leaves the
journal) goes along as `then`.
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

from app.messages import Origin, Outcome
from app.storage.disk import Disk

ROOM_SECONDS = 1.0
"""Between two looks at whether a full disk has room again, which nobody tells."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_log = structlog.get_logger("stdout")

Format = Callable[[str | None, Origin, Outcome], str]
_Item = tuple[str | None, Origin, Outcome, Callable[[], None] | None]


class StdoutSink:
    """Writes one line an outcome to `descriptor`, on the thread of `disk`. `on_broken` is called
    there when nobody reads any more; lines are dropped from then on, without their `then`."""

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
        """By `time.monotonic`; 0 while there is room."""
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        disk.serve(self)

    @property
    def backlog(self) -> int:
        """Lines not yet written, the one in progress among them."""
        return len(self._queue)

    def put(
        self,
        request_id: str | None,
        origin: Origin,
        outcome: Outcome,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Queue one line. `then` is called on the disk thread once the kernel has all of it, and
        the medium, where stdout is a file."""
        if not self._broken:
            self._queue.append((request_id, origin, outcome, then))
            self._disk.nudge()

    # What the disk thread calls.

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
            # No locale may keep a transcript from being written.
            self._data = memoryview(text.encode(self._encoding, "replace"))
        try:
            # A pipe that is ready takes this much without waiting.
            self._data = self._data[os.write(self._descriptor, self._data[: select.PIPE_BUF]) :]
            self._full_until = 0.0
            if self._data:
                return
            if then is not None and self._is_file:
                os.fdatasync(self._descriptor)
        except BlockingIOError:
            return
        except OSError as error:
            if self._data and error.errno in _NO_ROOM:
                self._wait_for_room(error)
                return
            _log.error("stdout is gone; stopping", error=str(error))
            self._broken = True
            self._on_broken()
            return
        self._queue.popleft()
        if then is not None:
            self._settle(then)

    def _wait_for_room(self, error: OSError) -> None:
        """As for a reader who has stopped: the line is kept, and those behind it."""
        if not self._full_until:
            _log.error("no room for lines on stdout; waiting for it", error=str(error))
        self._full_until = time.monotonic() + ROOM_SECONDS

    def _settle(self, then: Callable[[], None]) -> None:
        try:
            then()
        except OSError as error:
            _log.error("what should follow a line failed", error=str(error))
