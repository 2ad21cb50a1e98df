"""A real node for end-to-end tests: a process, a port, the framing, and two output streams.

`Node` starts `python -m app` on a free port and waits for the log line that reports the port.
`Client` implements docs/protocol.md in a few lines without `app`, so that the tests notice a
mistake in the node's framing. Nothing waits forever: HANG ends a test whose node does not answer,
and no test measures time with it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
JFK = ROOT / "tests" / "audio" / "jfk.flac"
SHARED = ROOT.parent / "shared" / "audio"

HANG = 180.0
"""Seconds until a test gives up on a silent node; far longer than the slowest step takes."""

needs_shared_audio = pytest.mark.skipif(
    not (SHARED / "refs.tsv").is_file(), reason=f"the development audio is not at {SHARED}"
)

Fields = dict[str, Any]


class Node:
    """A running node, started with `arguments`. Its output goes to the descriptor `stdout` if that
    is given. `program` replaces the command that starts it."""

    def __init__(
        self,
        *arguments: str,
        output: str = "json",
        stdout: int | None = None,
        environment: dict[str, str] | None = None,
        program: Sequence[str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [*(program or command("--output", output, "--log-format", "json")), *arguments],
            cwd=ROOT,
            env=clean_environment() | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
        )
        self.out = _Lines(self._process.stdout) if self._process.stdout else None
        assert self._process.stderr is not None
        self.log = _Lines(self._process.stderr)
        try:
            line = self.log.wait(lambda line: '"event": "listening"' in line)
        except AssertionError:
            self.close()
            raise
        self.listening: Fields = json.loads(line)
        self.port: int = self.listening["port"]

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the process if it still runs, and close its streams."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(HANG)
        for lines in (self.out, self.log):
            if lines is not None:
                lines.close()

    # Requests.

    def connect(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), HANG))

    def ask(self, body: bytes, **fields: Any) -> Fields:
        """Send one message on a new connection; return the one reply. The node must then close.

        Field names are written with underscores.
        """
        with self.connect() as client:
            client.send(body, **fields)
            reply = client.receive()
            assert reply is not None, "the node closed without a reply"
            assert client.receive() is None, "something came after the last reply"
        return reply

    def ask_file(self, path: Path, **fields: Any) -> Fields:
        return self.ask(path.read_bytes(), **fields)

    # Output.

    def outcomes(self) -> list[Fields]:
        """All lines on stdout so far."""
        assert self.out is not None
        return [json.loads(line) for line in self.out.all()]

    def outcome(self, request_id: str | None) -> Fields:
        """Wait for the line on stdout with this id and return it."""
        assert self.out is not None
        return json.loads(self.out.wait(lambda line: json.loads(line)["id"] == request_id))

    def wait_for_log(self, event: str, **fields: Any) -> Fields:
        """Wait for a log line with this event and these fields; return the first one."""

        def fits(line: str) -> bool:
            entry = json.loads(line)
            wanted = {"event": event, **fields}
            return all(entry.get(name) == value for name, value in wanted.items())

        return json.loads(self.log.wait(fits))

    # The process.

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until the process has ended and all output is read; return the exit status."""
        status = self._process.wait(HANG)
        for lines in (self.out, self.log):
            if lines is not None:
                lines.join()
        return status

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def resident_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    def peak_bytes(self) -> int:
        """The peak of its resident memory (VmHWM)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM in /proc")


class Client:
    """One connection to a node."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._left: bytes = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def peer(self) -> str:
        """The name of this connection on the node's stdout."""
        host, port = self.socket.getsockname()[:2]
        return f"{host}:{port}"

    def send(self, body: bytes, **fields: Any) -> None:
        self.socket.sendall(message(body, **fields))

    def receive(self) -> Fields | None:
        """Return the next reply, or None at the end of the stream. A broken frame is an error."""
        start = self._read(2)
        if not start:
            return None
        (length,) = struct.unpack("!H", start)
        header = json.loads(self._read(length).decode())
        assert header["byteorder"] in ("little", "big")
        assert header["content-type"] == "application/json"
        assert header["content-encoding"] == "utf-8"
        body = self._read(header["content-length"])
        assert len(body) == header["content-length"], "the reply is truncated"
        reply = json.loads(body.decode())
        assert {"id", "status"} <= reply.keys()
        return reply

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _read(self, count: int) -> bytes:
        while len(self._left) < count:
            data = self.socket.recv(65536)
            if not data:
                break
            self._left += data
        data, self._left = self._left[:count], self._left[count:]
        return data


class _Lines:
    """The lines of a stream, read on a separate thread."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._seen: list[str] = []
        self._ended = False
        self._new: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for line in self._stream:
            self._new.put(line.decode(errors="replace").rstrip("\n"))
        self._new.put(None)

    def all(self) -> list[str]:
        while not self._new.empty():
            self._take(1)
        return [line for line in self._seen if line]

    def wait(self, wanted: Callable[[str], bool]) -> str:
        """Wait for a line that is `wanted`; return the first one, which may be there already."""
        for line in self.all():
            if wanted(line):
                return line
        until = time.monotonic() + HANG
        while (line := self._take(until - time.monotonic())) is not None:
            if line and wanted(line):
                return line
        raise AssertionError("the stream ended without that line:\n" + "\n".join(self._seen[-20:]))

    def _take(self, seconds: float) -> str | None:
        if self._ended:
            return None
        try:
            line = self._new.get(timeout=max(0.001, seconds))
        except queue.Empty:
            last = "\n".join(self._seen[-20:])
            raise AssertionError(f"the line did not come within {HANG:.0f} s:\n{last}") from None
        if line is None:
            self._ended = True
            return None
        self._seen.append(line)
        return line

    def join(self) -> None:
        self._thread.join(HANG)

    def close(self) -> None:
        self.join()
        self._stream.close()


def message(body: bytes, **fields: Any) -> bytes:
    """A message in the native framing. Field names have underscores; None omits a default."""
    header: Fields = {
        "byteorder": sys.byteorder,
        "content-type": "binary/flac",
        "content-encoding": "flac",
        "content-length": len(body),
    }
    header |= {name.replace("_", "-"): value for name, value in fields.items()}
    data = json.dumps({name: value for name, value in header.items() if value is not None}).encode()
    return struct.pack("!H", len(data)) + data + body


def command(*arguments: str) -> list[str]:
    """The command that starts a node on a free port in offline mode."""
    return [sys.executable, "-m", "app", "--port", "0", "--offline", *arguments]


def clean_environment() -> dict[str, str]:
    """The environment of this process without the settings of a node."""
    return {name: value for name, value in os.environ.items() if "NODE_WHISPER" not in name}


def run(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run `python -m app` with exactly `arguments`; return its status, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env=clean_environment() | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=HANG,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@contextmanager
def stopped_cleanly(node: Node) -> Iterator[Node]:
    """Keep `node` for the tests of a module. At the end, SIGTERM must end it with status 0."""
    with node:
        yield node
        assert node.stop() == 0


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until `holds` returns True."""
    until = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < until, "timed out waiting for a condition"
        time.sleep(0.02)


def shared_clips(kind: str) -> list[Fields]:
    """The clips of one set of ../shared/audio: each line of refs.tsv as a dictionary."""
    table = SHARED / "refs.tsv"
    if not table.is_file():
        return []
    names, *rows = (line.split("\t") for line in table.read_text().splitlines())
    clips = [dict(zip(names, row, strict=True)) for row in rows]
    return [clip for clip in clips if clip["set"] == kind]
