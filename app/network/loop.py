"""The event loop: a selector, timers, wake-ups from other threads, and signals.

One thread runs `Loop.run`, which calls callbacks one at a time; they must not block. Only `wake`
may be called from other threads: it writes one byte to a socket pair, so that the selector returns.
A signal handler only stores the number and wakes the loop.
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
"""Called with the mask of READ and WRITE that a socket is ready for."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_log = structlog.get_logger("loop")


class Watched(Interface):
    """A socket or a transport."""

    def fileno(self) -> int: ...


class Timer:
    """A scheduled callback; `cancel` drops it."""

    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: float, callback: Callback) -> None:
        self.deadline = deadline
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Runs callbacks when sockets are ready, timers are due or another thread woke it."""

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
        """Call `ready` when `sock` is ready for `interest`: READ, WRITE, both, or 0 for nothing."""
        known = self._selector.get_map().get(sock)
        if not interest:
            if known is not None:
                self._selector.unregister(sock)
        elif known is None:
            self._selector.register(sock, interest, ready)
        elif known.events != interest:
            self._selector.modify(sock, interest, ready)

    def call_at(self, deadline: float, callback: Callback) -> Timer:
        """Call `callback` once `time.monotonic()` has reached `deadline`."""
        timer = Timer(deadline, callback)
        heapq.heappush(self._timers, (deadline, next(self._order), timer))
        return timer

    def defer(self, callback: Callback) -> None:
        """Call `callback` at the end of this turn."""
        self._deferred.append(callback)

    def wake(self) -> None:
        """Make the loop call `on_wake` soon. From any thread."""
        # A full buffer means that the loop is being woken already; a closed one that it has ended.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def handle_signals(self, *numbers: int) -> None:
        """Deliver these signals as calls of `on_signal` on the loop. Main thread only."""

        def note(number: int, _frame: object) -> None:
            self._signals.append(number)
            self.wake()

        for number in numbers:
            signal.signal(number, note)

    def run(self) -> None:
        """Run until `stop` is called."""
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
        # Collected first: a timer that sets itself again for the past waits for the next turn.
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
        """Log an exception and continue: a bug in one callback does not stop the others."""
        try:
            callback()
        except Exception:
            _log.exception("a callback failed")
