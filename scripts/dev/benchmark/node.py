"""The node as a peer: its process, and a client of its protocol (docs/protocol.md).

The client implements the document without the node's own modules, so that the measurement notices
a mistake in them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_build.child import reap

from benchmark.environment import ROOT

_LENGTH = struct.Struct("!H")
_START_SECONDS = 120.0


class NodeError(Exception):
    """The node did not start or violated its protocol."""


@dataclass(frozen=True)
class Reply:
    """A reply, and the seconds since the first byte was sent."""

    fields: dict[str, Any]
    seconds: float

    @property
    def text(self) -> str:
        if self.fields.get("status") != "ok":
            raise NodeError(f"the node answered {self.fields}")
        return str(self.fields["text"])


def request(address: tuple[str, int], body: bytes, label: str, **extra: object) -> Reply:
    """Send one message on a new connection and wait for the reply."""
    header = {
        "byteorder": sys.byteorder,
        "content-type": f"audio/{label}",
        "content-encoding": label,
        "content-length": len(body),
        **extra,
    }
    encoded = json.dumps(header).encode()
    began = time.perf_counter()
    with socket.create_connection(address, timeout=600) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(_LENGTH.pack(len(encoded)) + encoded)
        connection.sendall(body)
        with connection.makefile("rb") as stream:
            fields = _read(stream)
    return Reply(fields, time.perf_counter() - began)


def _read(stream: Any) -> dict[str, Any]:
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        raise NodeError("the node closed the connection without a reply: see its log")
    header = json.loads(stream.read(_LENGTH.unpack(length)[0]))
    fields: dict[str, Any] = json.loads(stream.read(header["content-length"]))
    return fields


class NodeProcess:
    """A node of the checkout at `root` on a free port. It is ready when the constructor returns."""

    def __init__(
        self, python: Path, model: str, arguments: Sequence[str] = (), root: Path = ROOT
    ) -> None:
        self._log = tempfile.NamedTemporaryFile(mode="w+b", suffix=".log")  # noqa: SIM115
        # The node runs in `root`, so that no other checkout's `app` is imported.
        file = str(Path(model).absolute()) if model.endswith(".bin") else model
        command = [str(python.absolute()), "-m", "app", "-m", file, "--port", "0", "--offline"]
        command += ["--output", "json", "--log-format", "json", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            env=environment,
            cwd=root,
        )
        try:
            listening = self._wait()
        except NodeError:
            self.close()
            raise
        self.cold_start = time.perf_counter() - began
        self.listening = listening
        self.address = ("127.0.0.1", int(listening["port"]))
        self.pid = self._process.pid

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            reap(self._process, 20)
        self._log.close()

    def _wait(self) -> dict[str, Any]:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            for fields in self._logged():
                if fields.get("event") == "listening":
                    return fields
            if self._process.poll() is not None:
                raise NodeError(f"the node ended at once: {self._tail()}")
            time.sleep(0.002)
        raise NodeError(f"the node did not listen within {_START_SECONDS:.0f} s: {self._tail()}")

    def _logged(self) -> Iterator[dict[str, Any]]:
        for line in Path(self._log.name).read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def _tail(self) -> str:
        return Path(self._log.name).read_text(errors="replace")[-600:]
