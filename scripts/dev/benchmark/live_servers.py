"""The servers of the live benchmark: the node, and wyoming-faster-whisper on the same weights."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from engine_build.child import reap

from benchmark import usage
from benchmark.corpus import RATE
from benchmark.engines import EngineError
from benchmark.live_wire import WyomingReader, wyoming_event
from benchmark.node import NodeProcess, Reply, request

_START_SECONDS = 180.0
_COUNTER = re.compile(r'^node_whisper_(\w+?)(?:_total)?(?:\{result="(\w+)"\})? (\S+)$')


class Server(Protocol):
    """A Wyoming server under measurement."""

    name: str
    pid: int
    address: tuple[str, int]

    def counts(self) -> dict[str, float]: ...

    def close(self) -> None: ...


class LiveNode:
    """The node, with its Wyoming port and its metrics."""

    def __init__(self, python: Path, model: str, arguments: Sequence[str]) -> None:
        self.name = "node"
        options = ["--wyoming-port", "0", "--http-port", "0", *arguments]
        self._process = NodeProcess(python, model, options)
        self.pid = self._process.pid
        self.native = self._process.address
        listening = self._process.listening
        self.address = ("127.0.0.1", int(listening["wyoming_port"]))
        self._http = str(listening["http"]).rstrip("/")

    def counts(self) -> dict[str, float]:
        """What the node counted since its start: used, wasted and finals."""
        with urllib.request.urlopen(f"{self._http}/metrics", timeout=30) as reply:
            return counts_in(reply.read().decode())

    def as_file(self, samples: np.ndarray) -> Reply:
        """Transcribe the samples from a body at full speed."""
        fields = {"content-type": "audio/pcm", "sample-rate": RATE, "channels": 1}
        return request(self.native, samples.tobytes(), "s16", **fields)

    def close(self) -> None:
        self._process.close()


class WyomingPeer:
    """wyoming-faster-whisper with faster-whisper in int8, beam 1."""

    def __init__(self, weights: Path, threads: int, language: str) -> None:
        self.name = "wyoming-faster-whisper"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = ("127.0.0.1", int(probe.getsockname()[1]))
        self._data = tempfile.TemporaryDirectory(prefix="live-peer-")
        command = [sys.executable, "-m", "wyoming_faster_whisper"]
        command += ["--uri", f"tcp://127.0.0.1:{self.address[1]}", "--model", str(weights)]
        command += ["--stt-library", "faster-whisper", "--local-files-only", "--device", "cpu"]
        command += ["--compute-type", "int8", "--beam-size", "1", "--cpu-threads", str(threads)]
        command += ["--language", language, "--data-dir", self._data.name]
        self._log = tempfile.NamedTemporaryFile(mode="w+b", suffix=".log")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        self.pid = self._process.pid
        try:
            self._wait()
        except EngineError:
            self.close()
            raise

    def counts(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._process.terminate()
        reap(self._process, 10)
        self._log.close()
        self._data.cleanup()

    def _wait(self) -> None:
        """Wait until the server describes itself."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                log = Path(self._log.name).read_text(errors="replace")[-600:]
                raise EngineError(f"{self.name} ended with {self._process.returncode}: {log}")
            with contextlib.suppress(OSError), socket.create_connection(self.address, 5) as line:
                line.sendall(wyoming_event("describe"))
                reader = WyomingReader()
                while data := line.recv(1 << 16):
                    if any(message["type"] == "info" for message in reader.feed(data)):
                        return
            time.sleep(0.1)
        raise EngineError(f"{self.name} did not answer within {_START_SECONDS:.0f} s")


class Usage:
    """Processor seconds of a server, and what it counted, between two moments."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._cpu = usage.cpu_seconds(server.pid)
        self._counts = server.counts()

    def cpu(self) -> float:
        return usage.cpu_seconds(self._server.pid) - self._cpu

    def counts(self) -> dict[str, float]:
        now = self._server.counts()
        return {name: value - self._counts.get(name, 0.0) for name, value in now.items()}


def counts_in(metrics: str) -> dict[str, float]:
    """Return the counters of live audio in Prometheus' text format."""
    found = {}
    for line in metrics.splitlines():
        match = _COUNTER.match(line)
        if match is None:
            continue
        name, result, value = match.groups()
        if name == "speculations" and result:
            found[result] = float(value)
        elif name == "live_finals":
            found["finals"] = float(value)
        elif name == "windows_given_up":
            found["given up"] = float(value)
    return found
