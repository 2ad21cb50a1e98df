"""The places for files whose child process runs.

A file that needs a place while all are taken gets that of the file that was read longest ago; that
one gets a place again at its next read. Thus a short recording does not wait for the end of a long
one, and the scheduler alone decides which request is next. A file that is being read keeps its
place, so that as many children as threads may run for a moment. Threads of the worker.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol as Interface


class Suspendable(Interface):
    """A file whose child can be stopped between two reads."""

    def suspend(self) -> None: ...


class Slots:
    """At most `count` files run at one time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._files: list[Suspendable] = []
        """The files that run, the one that was read longest ago first."""
        self._in_use: list[Suspendable] = []
        """Those that are being read."""
        self._lock = threading.Lock()

    @contextmanager
    def reading(self, file: Suspendable) -> Iterator[None]:
        """Give `file` a place, and remember that it is read now."""
        with self._lock:
            if file in self._files:
                self._files.remove(file)
            self._in_use.append(file)
            idle = [other for other in self._files if other not in self._in_use]
            for other in idle[: max(0, len(self._files) + 1 - self._count)]:
                self._files.remove(other)
                # With the lock, so that its own thread does not read it meanwhile.
                other.suspend()
            self._files.append(file)
        try:
            yield
        finally:
            with self._lock:
                self._in_use.remove(file)

    def release(self, file: Suspendable) -> None:
        """Take the place of `file` back, if it has one."""
        with self._lock:
            if file in self._files:
                self._files.remove(file)
