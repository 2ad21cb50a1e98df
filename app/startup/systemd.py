"""Notifies systemd (sd_notify) of readiness and shutdown, and feeds its watchdog.

Each message is one datagram to the socket named in NOTIFY_SOCKET; without that variable nothing is
sent. A datagram that would block is dropped. Loop thread only; the worker's `Pulse` may be read
from any thread.

A timer of the loop feeds the watchdog, so a stuck loop does not. It also requires a healthy worker.
A worker may spend minutes on one window on a small board, so silence alone is no fault. The worker
counts as stuck if it used no processor time between two feedings within the same window (a
deadlock), or if one window exceeds `LONGEST_TURN_SECONDS` (an endless loop).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol as Interface

import structlog

from app.network.loop import Loop

LONGEST_TURN_SECONDS = 3_600.0
"""The limit for one window of at most 30 s of audio: 120 times slower than speech."""

LEAST_CPU_SECONDS = 0.001
"""The least processor time that a computing thread gets in any interval on a busy machine."""

_log = structlog.get_logger("notify")


class Pulse(Interface):
    """The worker's signs of life that the watchdog reads."""

    @property
    def alive(self) -> bool:
        """False once the worker's thread has ended."""

    @property
    def turn(self) -> tuple[int, float] | None:
        """The number of the current turn and its start (`time.monotonic()`, seconds); None while
        the worker waits for work."""

    def cpu_seconds(self) -> float:
        """Processor time used by the worker's thread, in seconds."""


class Notifier:
    """Sends notifications to the socket that `environment` names; without one it does nothing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog_seconds(environment) if self._address else None
        """Seconds that systemd waits between two signs of life; None without a watchdog."""
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def ready(self, status: str) -> None:
        """Report that the node accepts requests."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """Report that the node accepts no further requests and finishes the accepted ones."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            _log.warning("cannot notify systemd", message=message.split("\n")[0], error=str(error))


@dataclass(slots=True)
class _Seen:
    turn: int
    cpu_seconds: float


class Watchdog:
    """Feeds systemd's watchdog while loop and worker are healthy. Starts at once."""

    def __init__(self, loop: Loop, notifier: Notifier, worker: Pulse) -> None:
        self._loop = loop
        self._notifier = notifier
        self._worker = worker
        self._seen: _Seen | None = None
        self._complained = False
        if notifier.watchdog_seconds is not None:
            self._feed()

    def _feed(self) -> None:
        seconds = self._notifier.watchdog_seconds
        assert seconds is not None
        fault = self.fault()
        if fault is None:
            self._notifier.alive()
            self._complained = False
        elif not self._complained:
            self._complained = True
            _log.critical("stopped feeding the watchdog", reason=fault)
        # Half of the interval, as sd_watchdog_enabled(3) advises: one late feeding is harmless.
        self._loop.call_at(time.monotonic() + seconds / 2, self._feed)

    def fault(self) -> str | None:
        """Return why the worker is unhealthy, or None. Compares with the previous call."""
        before, self._seen = self._seen, None
        if not self._worker.alive:
            return "the worker thread has ended"
        turn = self._worker.turn
        if turn is None:
            return None
        number, began = turn
        if time.monotonic() - began > LONGEST_TURN_SECONDS:
            return "one window exceeds the time limit"
        self._seen = _Seen(number, self._worker.cpu_seconds())
        if before is None or before.turn != number:
            return None
        if self._seen.cpu_seconds - before.cpu_seconds < LEAST_CPU_SECONDS:
            # Keep the older point: the worker is healthy as soon as it uses processor time.
            self._seen = before
            return "the worker is stuck in a window"
        return None


def _address(name: str) -> str:
    # A path, or @ for the abstract namespace; systemd's other address kinds are for VMs.
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    # WATCHDOG_PID excludes a child process that inherited the variables.
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        seconds = int(environment.get("WATCHDOG_USEC", "")) / 1e6
        return seconds if seconds > 0 else None
    return None
