"""A common interface to all measured engines: start, transcribe a file, name the process.

An engine without concurrency serves several callers in order of arrival, like a program that uses
it would have to. The measured latency includes the waiting time.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine_build.child import Child, reap

from benchmark.node import NodeProcess, Reply, request

_START_SECONDS = 180.0
_BOUNDARY = "benchmark-7f2c1e"


class EngineError(Exception):
    """An engine did not start or did not answer."""


class Engine(Protocol):
    """An engine under measurement. Its CPU seconds are those of process `pid` and its children."""

    name: str
    pid: int
    cold_start: float

    def transcribe(self, path: Path) -> str: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Maker:
    """The name of an engine, and a function that starts it."""

    name: str
    start: Callable[[], Engine]


class Node:
    """The node over its socket, with a connection for each request."""

    def __init__(self, name: str, python: Path, model: str, arguments: Sequence[str]) -> None:
        self.name = name
        self._made_of = (python, model, arguments)
        self.process = NodeProcess(python, model, arguments)
        self.cold_start = self.process.cold_start
        self.pid = self.process.pid

    def again(self, options: Sequence[str]) -> Node:
        """Start another node like this one with further options."""
        python, model, arguments = self._made_of
        return Node(self.name, python, model, [*arguments, *options])

    def ask(self, path: Path) -> Reply:
        return request(self.process.address, path.read_bytes(), "wav")

    def transcribe(self, path: Path) -> str:
        return self.ask(path).text

    def close(self) -> None:
        self.process.close()


class PythonPeer:
    """A peer in Python: benchmark.peer_process with `arguments`."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        self._lock = threading.Lock()
        began = time.perf_counter()
        self._child = Child([sys.executable, "-m", "benchmark.peer_process", *arguments])
        self.pid = self._child.pid
        self._child.answer()
        self.cold_start = time.perf_counter() - began

    def transcribe(self, path: Path) -> str:
        with self._lock:
            return str(self._child.ask(str(path))["text"])

    def close(self) -> None:
        self._child.close()


class WhisperServer:
    """whisper.cpp's own HTTP server with its defaults, except for threads and language."""

    def __init__(self, name: str, program: Path, model: Path, threads: int, language: str) -> None:
        self.name = name
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        command = [str(program), "-m", str(model), "-t", str(threads), "-l", language]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        self._wait()
        self.cold_start = time.perf_counter() - began

    def transcribe(self, path: Path) -> str:
        body = b"".join(
            (
                f"--{_BOUNDARY}\r\n".encode(),
                b'Content-Disposition: form-data; name="response_format"\r\n\r\njson\r\n',
                f"--{_BOUNDARY}\r\n".encode(),
                b'Content-Disposition: form-data; name="file"; filename="clip.wav"\r\n',
                b"Content-Type: audio/wav\r\n\r\n",
                path.read_bytes(),
                f"\r\n--{_BOUNDARY}--\r\n".encode(),
            )
        )
        kind = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        try:
            connection.request("POST", "/inference", body, kind)
            reply = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "text" not in reply:
            raise EngineError(f"{self.name} answered {reply}")
        return str(reply["text"])

    def close(self) -> None:
        self._process.terminate()
        reap(self._process, 10)

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise EngineError(f"{self.name} ended with {self._process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                time.sleep(0.002)
        raise EngineError(f"{self.name} did not listen within {_START_SECONDS:.0f} s")
