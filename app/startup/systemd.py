"""What the node tells systemd (sd_notify): that it is ready, that it stops, that it lives.

One datagram each to the socket named in NOTIFY_SOCKET; without that variable nothing is sent.
Nobody's audio waits for systemd: a datagram that cannot be sent at once is not sent. Loop thread
only, but for what it asks the worker (`Pulse`), which may be asked from anywhere.

The watchdog is fed by a timer of the loop, so only if the loop turns, and only if the worker is
well. A worker in the middle of a window says nothing for as long as the window takes, on a small
board with a large model for minutes, so silence alone is no fault. It is taken for hanging if it
used no processor time at all between two feedings with the same window in hand (it waits for what
does not come), or if one window took longer than any can (it spins).
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
"""For one window, which is 30 s of audio at most: a node 120 times slower than speech is no use."""

LEAST_CPU_SECONDS = 0.001
"""What a thread that computes gets in any interval, however busy the machine is."""

_log = structlog.get_logger("notify")


class Pulse(Interface):
    """What the watchdog asks of the worker."""

    @property
    def alive(self) -> bool:
        """False once its thread has ended."""

    @property
    def turn(self) -> tuple[int, float] | None:
        """The number of the turn it is in and when that began (`time.monotonic()`); None while it
        waits for work."""

    def cpu_seconds(self) -> float:
        """Processor time its thread has used."""


class Notifier:
    """Talks to systemd, as `environment` says; to nobody where it says nothing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog_seconds(environment) if self._address else None
        """How long systemd waits between two signs of life; None if it does not."""
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def ready(self, status: str) -> None:
        """Requests are taken from now on."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """No further ones are; what is begun is finished."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        """A sign of life."""
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
            _log.warning("systemd was not told", what=message.split("\n")[0], error=str(error))


@dataclass(slots=True)
class _Seen:
    turn: int
    cpu_seconds: float


class Watchdog:
    """Feeds systemd's watchdog as long as loop and worker are well. Starts at once."""

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
            _log.critical("the watchdog is not fed", reason=fault)
        # At half of it, as sd_watchdog_enabled(3) advises: one late feeding is no death.
        self._loop.call_at(time.monotonic() + seconds / 2, self._feed)

    def fault(self) -> str | None:
        """Why the worker is not well, or None. Compares with what it found the last time."""
        before, self._seen = self._seen, None
        if not self._worker.alive:
            return "the worker has ended"
        turn = self._worker.turn
        if turn is None:
            return None
        number, began = turn
        if time.monotonic() - began > LONGEST_TURN_SECONDS:
            return "one window takes too long"
        self._seen = _Seen(number, self._worker.cpu_seconds())
        if before is None or before.turn != number:
            return None
        if self._seen.cpu_seconds - before.cpu_seconds < LEAST_CPU_SECONDS:
            # Measured from the same point again: it is well as soon as it moves.
            self._seen = before
            return "the worker waits in the middle of a window"
        return None


def _address(name: str) -> str:
    # A path, or @ for the abstract namespace; systemd's other kinds are for virtual machines.
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    # WATCHDOG_PID tells a child apart that inherited the variables.
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        seconds = int(environment.get("WATCHDOG_USEC", "")) / 1e6
        return seconds if seconds > 0 else None
    return None
