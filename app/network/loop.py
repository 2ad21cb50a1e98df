"""The selector, timers, the wake-up and signals. Knows nothing of speech.

One thread runs `Loop.run`; callbacks are called on it, one at a time, and must not block. Two calls
may come from elsewhere: `wake` from any thread, which writes one byte to a socket pair so that the
selector returns, and signals, whose handler only writes down the number and wakes the loop.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol as Interface

import structlog

Callback = Callable[[], None]
Ready = Callable[[int], None]
"""Called with the mask of what a socket is ready for."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_log = structlog.get_logger("loop")


class Watched(Interface):
    """A socket, or what stands before one."""

    def fileno(self) -> int: ...


class Timer:
    """A callback that is still to come; `cancel` forgets it."""

    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: float, callback: Callback) -> None:
        self.deadline = deadline
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Runs callbacks when sockets are ready, timers are due or somebody woke it."""

    def __init__(self) -> None:
        self.on_wake: Callback = lambda: None
        """Called after `wake`. Set before `run`, as `on_signal` is."""
        self.on_signal: Callable[[int], None] = lambda _number: None
        """Called with the number of each signal that `handle_signals` takes."""
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._signals: deque[int] = deque()
        self._deferred: list[Callback] = []
        self._running = False
        self._waker, self._sleeper = socket.socketpair()
        for end in (self._waker, self._sleeper):
            end.setblocking(False)
        self._selector.register(self._sleeper, READ, self._woken)

    def watch(self, sock: Watched, interest: int, ready: Ready) -> None:
        """Be called back for `interest` (READ, WRITE, both, or 0 for nothing at all)."""
        known = self._selector.get_map().get(sock)
        if not interest:
            if known is not None:
                self._selector.unregister(sock)
        elif known is None:
            self._selector.register(sock, interest, ready)
        elif known.events != interest:
            self._selector.modify(sock, interest, ready)

    def call_at(self, deadline: float, callback: Callback) -> Timer:
        """Call back once `time.monotonic()` has reached `deadline`."""
        timer = Timer(deadline, callback)
        heapq.heappush(self._timers, (deadline, next(self._order), timer))
        return timer

    def defer(self, callback: Callback) -> None:
        """Call back at the end of this turn."""
        self._deferred.append(callback)

    def wake(self) -> None:
        """Make the loop call `on_wake` soon. From any thread."""
        # A full buffer means that it is being woken already; a closed one that it is over.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def handle_signals(self, *numbers: int) -> None:
        """From now on these signals come as calls of `on_signal`, on the loop. Main thread only."""

        def note(number: int, _frame: object) -> None:
            self._signals.append(number)
            self.wake()

        for number in numbers:
            signal.signal(number, note)

    def run(self) -> None:
        """Turn until `stop` is called."""
        self._running = True
        while self._running:
            for key, mask in self._selector.select(self._timeout()):
                self._guard(lambda key=key, mask=mask: key.data(mask))  # type: ignore[misc]
            self._run_timers()
            deferred, self._deferred = self._deferred, []
            for callback in deferred:
                self._guard(callback)

    def stop(self) -> None:
        """Return from `run` at the end of this turn."""
        self._running = False

    def close(self) -> None:
        self._selector.close()
        self._waker.close()
        self._sleeper.close()

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if self._deferred:
            return 0.0
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        due = []
        # All of them first: one that sets itself anew for the past has its next turn with the rest.
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            if timer.callback is not None:
                self._guard(timer.callback)

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._sleeper.recv(4096):
                pass
        while self._signals:
            self.on_signal(self._signals.popleft())
        self.on_wake()

    def _guard(self, callback: Callback) -> None:
        """One connection's bug is not the end of the others."""
        try:
            callback()
        except Exception:
            _log.exception("a callback failed")
