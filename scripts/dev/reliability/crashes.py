"""Kills a node with a journal repeatedly while clients send, and keeps account of all replies.

`Crashes` starts the node, lets clients send, kills it with SIGKILL at a random moment, starts it
again on the same journal, and so on. An id whose client saw `accepted` (or `ok`) must appear on
stdout at least once, with the text that the same audio gives without any kill, or as `quarantined`.
The lines of all processes form one account, as for a consumer behind a pipe; incomplete lines do
not count.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.environment import ROOT

HANG_SECONDS = 180.0
"""Seconds until a node that does not listen or answer counts as hanging."""

MOST_OWED = 40
"""Clients wait while this many accepted requests are open. Otherwise a node that lives for a second
at a time would have hours of work in its journal at the end."""

TakeLine = Callable[[str], None]


@dataclass(frozen=True)
class Clip:
    """One recording, and its header fields in addition to those of every request."""

    name: str
    body: bytes
    fields: Mapping[str, Any]


@dataclass
class Account:
    """The replies to clients and the lines on stdout, by request id."""

    sent: dict[str, str] = field(default_factory=dict)
    """The clip of each request."""
    promised: set[str] = field(default_factory=set)
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    replies: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    starts: list[float] = field(default_factory=list)
    """Seconds from each start until the node listened."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def missing(self) -> set[str]:
        """Return the promised ids that are not on stdout yet."""
        with self.lock:
            return self.promised - self.lines.keys()

    @property
    def outcomes(self) -> Counter[str]:
        """Return the ending of the first line of each id: `ok`, or its error code."""
        return Counter(ended(lines[0]) for lines in self.lines.values())

    @property
    def repeats(self) -> int:
        """The number of lines after the first of their id."""
        return sum(len(lines) - 1 for lines in self.lines.values())

    @property
    def recovered(self) -> int:
        return sum(line.get("recovered", False) for lines in self.lines.values() for line in lines)

    def altered(self, texts: Mapping[str, str]) -> list[str]:
        """Return the lines on stdout that differ from the expected text of their clip."""
        wrong = []
        for request_id, lines in self.lines.items():
            expected = texts[self.sent[request_id]]
            for line in lines:
                if line["status"] == "ok" and line["text"] != expected:
                    wrong.append(f"{request_id}: {line['text']!r} instead of {expected!r}")
                elif line["status"] != "ok" and ended(line) not in _HARMLESS:
                    wrong.append(f"{request_id}: {line['error']}")
        return wrong


_HARMLESS = {"quarantined", "incomplete", "cancelled", "shutting_down"}
"""The last three are for requests that were not accepted; see `Crashes.broken` for the others."""


def ended(line: Mapping[str, Any]) -> str:
    """Return the ending of a reply or a line in one word."""
    return str(line["error"]["code"] if line["status"] == "error" else line["status"])


class Crashes:
    """`command` starts a node that writes JSON lines and a JSON log. Clients send the `clips`."""

    def __init__(
        self, command: Sequence[str], journal: Path, clips: Sequence[Clip], seed: int
    ) -> None:
        # A fixed port, so that clients can reconnect after a kill.
        self._address = ("127.0.0.1", _free_port())
        self._command = [*command, "--port", str(self._address[1]), "--journal", str(journal)]
        self._clips = clips
        self._random = random.Random(seed)
        self._node: NodeProcess | None = None
        self._stopping = threading.Event()
        self.account = Account()
        self.texts: dict[str, str] = {}
        """Return the text of each clip without any kill."""

    def run(self, kills: int, clients: int, longest: float) -> None:
        """Kill the node `kills` times, each time within `longest` seconds after it listens. Then
        let it finish and stop it with SIGTERM. Raises `AssertionError` if it does not stop."""
        self._start()
        self.texts = {clip.name: self._reference(clip) for clip in self._clips}
        seeds = [self._random.random() for _ in range(clients)]
        threads = [threading.Thread(target=self._send, args=(seed,), daemon=True) for seed in seeds]
        for thread in threads:
            thread.start()
        for _ in range(kills):
            # Some kills come before it listens.
            if self._random.random() < 0.9:
                self._await_listening()
            time.sleep(self._random.uniform(0.0, longest))
            self._kill()
            self._start()
        self._await_listening()
        self._stopping.set()
        for thread in threads:
            thread.join(HANG_SECONDS)
            assert not thread.is_alive(), "a client thread hangs"
        self._await_the_rest()
        assert self._node is not None
        assert self._node.end(signal.SIGTERM) == 0, "SIGTERM did not end the node with status 0"

    @property
    def broken(self) -> list[str]:
        """Describe every accepted request without its outcome, and every altered text."""
        account = self.account
        wrong = [f"{request_id}: accepted but never written" for request_id in account.missing]
        for request_id in account.promised & account.lines.keys():
            ends = {ended(line) for line in account.lines[request_id]}
            if not ends & {"ok", "quarantined"}:
                wrong.append(f"{request_id}: accepted, but its outcome is {ends}")
        return wrong + account.altered(self.texts)

    def close(self) -> None:
        self._stopping.set()
        if self._node is not None:
            self._node.end(signal.SIGKILL)

    def _start(self) -> None:
        self._node = NodeProcess(self._command, self._take)

    def _await_listening(self) -> None:
        assert self._node is not None
        self.account.starts.append(self._node.await_listening())

    def _kill(self) -> None:
        assert self._node is not None
        self._node.end(signal.SIGKILL)
        self.account.kills += 1

    def _take(self, line: str) -> None:
        """Take one line of a node's stdout."""
        fields = json.loads(line)
        if fields["id"] not in self.account.sent:
            return  # a reference, or a request whose header did not arrive
        with self.account.lock:
            self.account.lines.setdefault(fields["id"], []).append(fields)

    def _await_the_rest(self) -> None:
        """Wait until every accepted request is written, as long as there is progress."""
        before, since = -1, time.monotonic()
        while missing := len(self.account.missing):
            if missing != before:
                before, since = missing, time.monotonic()
            if time.monotonic() - since > HANG_SECONDS:
                return  # `broken` reports them
            time.sleep(0.05)

    def _reference(self, clip: Clip) -> str:
        self._await_listening()
        reply = _ask(self._address, clip, f"reference-{clip.name}", "transcript")
        assert reply is not None, f"no reply to {clip.name}"
        assert reply["status"] == "ok", reply
        return str(reply["text"])

    def _send(self, seed: float) -> None:
        """Run one client: one request after another, also while the node is down."""
        rng = random.Random(seed)
        number = 0
        while not self._stopping.is_set():
            if len(self.account.missing) >= MOST_OWED:
                time.sleep(0.05)
                continue
            number += 1
            clip = rng.choice(self._clips)
            request_id = f"{seed:.6f}-{number}"
            self.account.sent[request_id] = clip.name
            mode = rng.choice(("accepted", "accepted", "accepted", "transcript"))
            try:
                reply = _ask(self._address, clip, request_id, mode)
            except OSError:
                reply = None
            if reply is None:
                # The node was killed.
                time.sleep(0.2)
                continue
            with self.account.lock:
                self.account.replies[ended(reply)] += 1
                if ended(reply) in ("accepted", "ok"):
                    self.account.promised.add(request_id)
            if rng.random() < 0.2:
                time.sleep(rng.uniform(0.0, 0.2))


class NodeProcess:
    """One node. Every complete line of its stdout goes to `take`."""

    def __init__(self, command: Sequence[str], take: TakeLine) -> None:
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._take = take
        self._listening = threading.Event()
        self._took = 0.0
        self._log: list[bytes] = []
        self._readers = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def await_listening(self) -> float:
        """Wait until it listens; return the seconds since its start. Raises `AssertionError`."""
        until = time.monotonic() + HANG_SECONDS
        while not self._listening.wait(0.05):
            tail = b"".join(self._log[-20:]).decode(errors="replace")
            assert self._process.poll() is None, f"the node ended by itself:\n{tail}"
            assert time.monotonic() < until, f"the node does not listen:\n{tail}"
        return self._took

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, number: int) -> int:
        """Send a signal and wait for its end and the rest of its output; return its status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
        status = self._process.wait(HANG_SECONDS)
        for reader in self._readers:
            reader.join(HANG_SECONDS)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        return status

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):
                self._take(line.decode())

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log = [*self._log[-40:], line]
            if b'"event": "listening"' in line:
                self._took = time.monotonic() - self._began
                self._listening.set()


def _ask(address: tuple[str, int], clip: Clip, request_id: str, mode: str) -> dict[str, Any] | None:
    """Send one request on a new connection; return the reply, or None if there was none."""
    header = {
        "byteorder": "little",
        "content-length": len(clip.body),
        **clip.fields,
        "id": request_id,
        "reply": mode,
    }
    data = json.dumps(header).encode()
    with socket.create_connection(address, HANG_SECONDS) as connection:
        connection.sendall(struct.pack("!H", len(data)) + data + clip.body)
        with connection.makefile("rb") as stream:
            start = stream.read(2)
            if len(start) < 2:
                return None
            head = stream.read(struct.unpack("!H", start)[0])
            try:
                body = stream.read(json.loads(head)["content-length"])
                reply: dict[str, Any] = json.loads(body)
            except ValueError:
                return None  # incomplete line
            return reply


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
