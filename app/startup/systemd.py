"""Notifies systemd (sd_notify) of readiness and shutdown, and feeds its watchdog.

Each message is one datagram to the socket named in NOTIFY_SOCKET; without that variable nothing is
sent. A datagram that would block is dropped. Loop thread only.

A timer of the loop feeds the watchdog, so a stuck loop does not. It also requires a healthy worker
(`app/worker/health.py`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

import structlog

from app.network.loop import Loop
from app.worker.health import Health, Pulse

_log = structlog.get_logger("notify")


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


class Watchdog:
    """Feeds systemd's watchdog while loop and the worker's threads are healthy. Starts at once."""

    def __init__(self, loop: Loop, notifier: Notifier, *threads: Pulse) -> None:
        self._loop = loop
        self._notifier = notifier
        self._health = Health(*threads)
        self._complained = False
        if notifier.watchdog_seconds is not None:
            self._feed()

    def _feed(self) -> None:
        seconds = self._notifier.watchdog_seconds
        assert seconds is not None
        fault = self._health.fault()
        if fault is None:
            self._notifier.alive()
            self._complained = False
        elif not self._complained:
            self._complained = True
            _log.critical("stopped feeding the watchdog", reason=fault)
        # Half of the interval, as sd_watchdog_enabled(3) advises: one late feeding is harmless.
        self._loop.call_at(time.monotonic() + seconds / 2, self._feed)


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
