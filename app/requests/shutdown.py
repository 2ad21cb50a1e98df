"""The end of the node: drain, give up, and the second signal.

The first signal, or `ask` from any thread, begins the drain: no further request is taken, those
admitted are finished, and the node stops when they are done or the time is up. A second signal
stops it at once. Loop thread, except `ask`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from app.network.connection import Connection
from app.network.listener import Listener
from app.network.loop import Loop
from app.requests.pipeline import Pipeline

LAST_REPLIES_SECONDS = 0.8
"""Time for the last replies after the drain. With the default drain and the time that `__main__`
gives the threads it stays below the 10 s after which Docker kills."""

_log = structlog.get_logger("shutdown")


class Shutdown:
    """Ends the server whose `listeners` and `connections` these are. `seconds` is the time to
    finish accepted requests (`--drain-seconds`). `abort` stops the decode in progress; `on_drain`
    is called when the drain begins."""

    def __init__(
        self,
        *,
        loop: Loop,
        listeners: Sequence[Listener],
        connections: Mapping[int, Connection],
        pipeline: Pipeline,
        seconds: float,
        abort: Callable[[], None],
        on_drain: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._connections = connections
        self._pipeline = pipeline
        self._seconds = seconds
        self._abort = abort
        self._on_drain = on_drain
        self._asked = False
        self._sending_last_replies = False
        self.signalled = False
        """True after the first signal."""
        self.draining = False
        self.killed_by: int | None = None
        """The signal that stopped the node at once, if one did."""

    def ask(self) -> None:
        """Ask for a drain. From any thread."""
        self._asked = True
        self._loop.wake()

    def on_signal(self, number: int) -> None:
        """Drain on the first signal, stop on the second. A drain that was asked for does not count
        as a signal: Ctrl-C also ends the reader of stdout, and that can be noticed first."""
        if self.signalled:
            self.killed_by = number
            self._loop.stop()
            return
        self.signalled = True
        if not self.draining:
            self._drain()

    def check(self) -> None:
        """After any end: begin a drain that was asked for, stop once nothing is left."""
        if self._asked and not self.draining:
            self._drain()
        if not self.draining or self._pipeline.unfinished:
            return
        if not self._sending_last_replies:
            for connection in list(self._connections.values()):
                connection.finish()
            self._send_last_replies()
        if not self._connections:
            self._loop.stop()

    def _drain(self) -> None:
        self.draining = True
        _log.info("draining", unfinished=self._pipeline.unfinished, seconds=self._seconds)
        for listener in self._listeners:
            listener.close()
        self._on_drain()
        self._pipeline.close()
        for connection in list(self._connections.values()):
            if connection.state.idle:
                connection.finish()
        self._loop.call_at(time.monotonic() + self._seconds, self._give_up)
        self.check()

    def _give_up(self) -> None:
        """Fail what is unfinished: the time of the drain is up."""
        if self._sending_last_replies:
            return
        _log.warning("drain timed out", unfinished=self._pipeline.unfinished)
        self._pipeline.give_up()
        self._abort()
        self._send_last_replies()

    def _send_last_replies(self) -> None:
        self._sending_last_replies = True
        self._loop.call_at(time.monotonic() + LAST_REPLIES_SECONDS, self._loop.stop)
