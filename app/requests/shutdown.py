"""The end: draining, giving up, and a second signal.

A first signal, or `ask` from any thread, begins the drain: no further request is taken, those
admitted are finished, and the node stops when that is done or the time is up. A second signal stops
at once. Loop thread but for `ask`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from app.network.connection import Connection
from app.network.listener import Listener
from app.network.loop import Loop
from app.requests.commit import Commit
from app.requests.dispatch import Dispatch
from app.requests.failures import shutting_down
from app.requests.uploads import Uploads

LAST_WORDS_SECONDS = 0.8
"""After the drain, for the last replies to leave. With the default drain and what `__main__` waits
for the threads it stays under the 10 s after which Docker kills."""

_log = structlog.get_logger("shutdown")


class Shutdown:
    """Ends what the server has. `listeners` and `connections` are the server's own, as they are
    then; `abort` stops the engine's decode in progress, `on_drain` is called as the end begins."""

    def __init__(
        self,
        *,
        loop: Loop,
        listeners: Sequence[Listener],
        connections: Mapping[int, Connection],
        uploads: Uploads,
        commit: Commit,
        dispatch: Dispatch,
        seconds: float,
        abort: Callable[[], None],
        on_drain: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._connections = connections
        self._uploads = uploads
        self._commit = commit
        self._dispatch = dispatch
        self._seconds = seconds
        self._abort = abort
        self._on_drain = on_drain
        self._asked = False
        self._signalled = False
        self._saying_last_words = False
        self.draining = False
        self.killed_by: int | None = None
        """The signal that ended the node at once, if one did."""

    def ask(self) -> None:
        """Ask for a drain. From any thread."""
        self._asked = True
        self._loop.wake()

    def on_signal(self, number: int) -> None:
        """The first drains, the second kills. A drain that was asked for is not a signal: Ctrl-C
        ends stdout's reader as well, and that may be heard before it."""
        if self._signalled:
            self.killed_by = number
            self._loop.stop()
            return
        self._signalled = True
        if not self.draining:
            self._drain()

    def check(self) -> None:
        """After anything ended: begin if it was asked for, stop if there is nothing left."""
        if self._asked and not self.draining:
            self._drain()
        if not self.draining or self._uploads.unfinished:
            return
        if not self._saying_last_words:
            for connection in list(self._connections.values()):
                connection.finish()
            self._say_last_words()
        if not self._connections:
            self._loop.stop()

    def _drain(self) -> None:
        self.draining = True
        _log.info("draining", unfinished=self._uploads.unfinished, seconds=self._seconds)
        for listener in self._listeners:
            listener.close()
        self._on_drain()
        self._uploads.close()
        for connection in list(self._connections.values()):
            if connection.state.idle:
                connection.finish()
        self._loop.call_at(time.monotonic() + self._seconds, self._give_up)
        self.check()

    def _give_up(self) -> None:
        """The drain's time is up: what is not done now fails."""
        if self._saying_last_words:
            return
        _log.warning("not everything was done in time", unfinished=self._uploads.unfinished)
        self._uploads.give_up()
        self._commit.give_up()
        # At once, also for the one in progress: the engine may take longer to come back from its
        # encoder pass than there is time for last words.
        self._dispatch.give_up(shutting_down())
        self._abort()
        self._dispatch.worker.stop()
        self._say_last_words()

    def _say_last_words(self) -> None:
        self._saying_last_words = True
        self._loop.call_at(time.monotonic() + LAST_WORDS_SECONDS, self._loop.stop)
