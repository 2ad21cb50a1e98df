"""The places for files whose child process runs.

A file that needs a place while all are taken gets that of the file that was read longest ago; that
one gets a place again at its next read. Thus a short recording does not wait for the end of a long
one, and the scheduler alone decides which request is next. Worker thread.
"""

from __future__ import annotations

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

    def claim(self, file: Suspendable) -> None:
        """Give `file` a place, and remember that it is read now."""
        if file in self._files:
            self._files.remove(file)
        while len(self._files) >= self._count:
            self._files.pop(0).suspend()
        self._files.append(file)

    def release(self, file: Suspendable) -> None:
        """Take the place of `file` back, if it has one."""
        if file in self._files:
            self._files.remove(file)
