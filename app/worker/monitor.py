"""The lock under which the threads of a worker share its state.

A thread holds it whenever it runs, except while it decodes, reads a file, or sleeps. So everything
that is not the turn of one job happens in one order, as on a single thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Monitor:
    """A lock that its holder can leave for a while. As a context manager it is held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @contextmanager
    def left(self) -> Iterator[None]:
        """Leave the lock; take it again at the end, also after an exception."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
