"""The health of the worker: whether it computes, judged from another thread.

A worker may spend minutes on one window on a small board, so silence alone is no fault. The worker
counts as stuck if it used no processor time between two looks within the same turn (a deadlock), or
if one turn exceeds `LONGEST_TURN_SECONDS` (an endless loop). With several engines each thread is
judged by itself. Each observer has a `Health` of its own, and uses it on one thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol as Interface

LONGEST_TURN_SECONDS = 3_600.0
"""The limit for one window of at most 30 s of audio: 120 times slower than speech."""

LEAST_CPU_SECONDS = 0.001
"""The least processor time that a computing thread gets in any interval on a busy machine."""


class Pulse(Interface):
    """The signs of life of one of the worker's threads."""

    @property
    def alive(self) -> bool:
        """False once the thread has ended."""

    @property
    def turn(self) -> tuple[int, float] | None:
        """The number of the current turn and its start (`time.monotonic()`, seconds); None while
        the thread waits for work."""

    def cpu_seconds(self) -> float:
        """Processor time used by the thread, in seconds."""


@dataclass(slots=True)
class _Seen:
    turn: int
    cpu_seconds: float


class Health:
    """Looks at the worker's `threads`."""

    def __init__(self, *threads: Pulse) -> None:
        self._threads = [_Thread(thread) for thread in threads]

    def fault(self) -> str | None:
        """Return why the worker is unhealthy, or None. Compares with the previous call."""
        faults = [thread.fault() for thread in self._threads]
        return next((fault for fault in faults if fault is not None), None)


class _Thread:
    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self._seen: _Seen | None = None

    def fault(self) -> str | None:
        before, self._seen = self._seen, None
        if not self._pulse.alive:
            return "the worker thread has ended"
        turn = self._pulse.turn
        if turn is None:
            return None
        number, began = turn
        if time.monotonic() - began > LONGEST_TURN_SECONDS:
            return "one window exceeds the time limit"
        self._seen = _Seen(number, self._pulse.cpu_seconds())
        if before is None or before.turn != number:
            return None
        if self._seen.cpu_seconds - before.cpu_seconds < LEAST_CPU_SECONDS:
            # Keep the older point: the worker is healthy as soon as it uses processor time.
            self._seen = before
            return "the worker is stuck in a window"
        return None
