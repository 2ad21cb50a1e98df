"""Kills the nodes of a cluster and its broker repeatedly while jobs are submitted.

`QueueCrashes` starts a real broker and real nodes with a fake engine that answers with a checksum.
A job whose submitter saw the broker's acknowledgement is promised. In the end every promised job
must have a stored result with the right text, and a line with it on the stdout of some node.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from broker import Broker
from cluster import MODEL, Admin
from nats.errors import Error as NatsError

from app.queue import names
from reliability.crashes import HANG_SECONDS, NodeProcess, ended

RATE = 16_000
MOST_OWED = 60
"""The submitter waits while so many promised jobs have no line on stdout yet."""

FAKE = (
    sys.executable,
    "tests/helpers/fake_node.py",
    *("--offline", "--output", "json", "--log-format", "json", "--vad-threshold", "0"),
    *("--port", "off"),
)


@dataclass
class QueueAccount:
    """Jobs by id: the expected text, those promised, and the lines of all nodes."""

    texts: dict[str, str] = field(default_factory=dict)
    promised: set[str] = field(default_factory=set)
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    node_kills: int = 0
    broker_kills: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, line: str) -> None:
        """Take one line of a node's stdout."""
        fields = json.loads(line)
        with self.lock:
            self.lines.setdefault(fields["id"], []).append(fields)

    @property
    def owed(self) -> set[str]:
        """Return the promised jobs without a line."""
        with self.lock:
            return self.promised - self.lines.keys()

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(ended(result) for result in self.results.values())

    @property
    def repeats(self) -> int:
        """The number of lines after the first of their job."""
        return sum(len(lines) - 1 for lines in self.lines.values())

    @property
    def broken(self) -> list[str]:
        """Describe every promised job without its line or result, and every altered text."""
        wrong = [f"{job}: no line on stdout" for job in self.promised - self.lines.keys()]
        wrong += [f"{job}: no result" for job in self.promised - self.results.keys()]
        every = [*self.results.items()]
        every += [(job, line) for job, lines in self.lines.items() for line in lines]
        for job, record in every:
            if record["status"] == "ok" and record["text"] != self.texts[job]:
                wrong.append(f"{job}: {record['text']!r} instead of {self.texts[job]!r}")
            elif record["status"] != "ok" and ended(record) != "quarantined":
                wrong.append(f"{job}: {record['error']}")
        return wrong


class QueueCrashes:
    """`nodes` nodes on a broker in `folder`. `ack_wait` of the consumers is in seconds."""

    def __init__(self, folder: Path, nodes: int, seed: int, ack_wait: float) -> None:
        self._random = random.Random(seed)
        self.broker = Broker(folder)
        self.admin = Admin(self.broker.url, ack_wait, timeout=3.0)
        self.admin.init(models=(MODEL,))
        self.account = QueueAccount()
        self._command = [*FAKE, "--queue", self.broker.url]
        self._nodes = [self._start() for _ in range(nodes)]
        self._stopping = threading.Event()

    def run(self, node_kills: int, broker_kills: int, longest: float) -> None:
        """Kill so often, at most `longest` seconds apart, nodes and broker in random order. Then
        let the nodes finish, and stop them with SIGTERM. Raises `AssertionError`."""
        submitter = threading.Thread(target=self._submit, daemon=True)
        submitter.start()
        kills = ["node"] * node_kills + ["broker"] * broker_kills
        self._random.shuffle(kills)
        for kind in kills:
            time.sleep(self._random.uniform(0.0, longest))
            if kind == "node":
                self._kill_node()
            else:
                self._kill_broker()
        self._stopping.set()
        submitter.join(HANG_SECONDS)
        assert not submitter.is_alive(), "the submitter hangs"
        self._finish()
        for node in self._nodes:
            node.await_listening()
            assert node.end(signal.SIGTERM) == 0, "SIGTERM did not end a node with status 0"

    def close(self) -> None:
        self._stopping.set()
        for node in self._nodes:
            node.end(signal.SIGKILL)
        self.admin.close()
        self.broker.kill()

    def _start(self) -> NodeProcess:
        return NodeProcess(self._command, self.account.take)

    def _kill_node(self) -> None:
        at = self._random.randrange(len(self._nodes))
        self._nodes[at].await_listening()
        time.sleep(self._random.uniform(0.0, 0.2))
        self._nodes[at].end(signal.SIGKILL)
        self._nodes[at] = self._start()
        self.account.node_kills += 1

    def _kill_broker(self) -> None:
        self.broker.kill()
        time.sleep(self._random.uniform(0.0, 1.0))
        self.broker.start()
        self.account.broker_kills += 1

    def _submit(self) -> None:
        """Submit jobs, each until the broker has it, also while the broker is down."""
        number = 0
        rng = random.Random(self._random.random())
        while not self._stopping.is_set():
            if len(self.account.owed) >= MOST_OWED:
                time.sleep(0.02)
                continue
            number += 1
            self._submit_one(f"j{number}", rng)
            time.sleep(rng.uniform(0.0, 0.02))

    def _submit_one(self, job: str, rng: random.Random) -> None:
        # One in ten is an object; one window each, so that the text is known. Whole seconds, since
        # the node takes the mean of a few samples at the end for an offset.
        seconds = 25 if rng.random() < 0.1 else rng.randint(1, 3)
        samples = np.random.default_rng(zlib.crc32(job.encode()))
        body = samples.integers(-9000, 9000, seconds * RATE).astype("<i2").tobytes()
        heard = np.frombuffer(body, "<i2").astype(np.float32) / 32768
        self.account.texts[job] = f"{zlib.crc32(heard.tobytes()):08x}"
        kind = {
            "model": rng.choice(("any", MODEL)),
            "job_class": "long" if seconds > 9 else "short",
        }
        while True:
            try:
                self.admin.submit(job, body, **kind)  # type: ignore[arg-type]
            except (NatsError, OSError):
                if self._stopping.is_set():
                    return
                time.sleep(0.1)
                continue
            with self.account.lock:
                self.account.promised.add(job)
            return

    def _finish(self) -> None:
        """Wait for an empty queue, as long as there is progress, and read all results."""
        before, since = -1, time.monotonic()
        while (left := self._count()) or self.account.owed:
            if left != before:
                before, since = left, time.monotonic()
            if time.monotonic() - since > HANG_SECONDS:
                break  # `broken` reports them
            time.sleep(0.1)
        for job in self.account.promised:
            result = self.admin.result(job)
            if result is not None:
                self.account.results[job] = result

    def _count(self) -> int:
        try:
            return self.admin.count(names.JOBS)
        except (NatsError, OSError):
            return -1
