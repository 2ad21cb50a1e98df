"""A node with a worker's rights of deploy/queue/accounts.conf, and the tool with a tenant's."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="requirements-queue.txt is not installed")

from broker import Broker
from fakes import RATE, FakeEngine, Node, eventually, hypothesis_of, pcm
from queue_cluster import Cluster
from queue_tool import cli

from app import build
from app.queue.broker import access
from app.queue.thread import QueueSettings, QueueThread

MakeNode = Callable[..., Node]


@pytest.fixture
def cluster(make_broker: Callable[..., Broker], tmp_path: Path) -> Cluster:
    cluster = Cluster(make_broker, tmp_path)
    assert cli.main(["init", "--tenant", "home", *cluster.options("admin")]) == 0
    return cluster


@pytest.fixture
def make(
    make_node: MakeNode, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Node]:
    """Start nodes with the worker's key."""
    monkeypatch.setattr("app.queue.places.WAIT_SECONDS", 0.2)
    monkeypatch.setattr("app.queue.jetstream._LATE_SECONDS", 0.1)
    reached = access((cluster.url,), cluster.seeds["worker"], None, owner="node", name="n")

    def new_thread(wake: Callable[[], None], fault: Callable[[], str | None]) -> QueueThread:
        wish = QueueSettings(reached, model="tiny.en", places=3, max_body=1 << 28, node="n:1")
        return QueueThread(wish, wake, fault)

    def start(engine: FakeEngine | None = None) -> Node:
        return make_node(engine, queue=build.QueueParts(new_thread, 3))

    return start


def recording(folder: Path, samples: int) -> Path:
    path = folder / f"{samples}.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm(samples))
    return path


def submitted(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    capsys.readouterr()
    cli.main(["submit", "--tenant", "home", "--json", *arguments, *cluster.options("home")])
    fields: dict[str, Any] = json.loads(capsys.readouterr().out)
    return fields


def test_tenant_gets_texts_of_small_and_large_recordings(
    cluster: Cluster, make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = make()
    for samples in (20_000, 400_000):
        fields = submitted(cluster, capsys, str(recording(tmp_path, samples)), "--wait")
        assert (fields["text"], fields["node"]) == (str(samples), "n:1")
    assert node.queue.counts.fetched_bytes > 800_000


def test_tenant_gets_a_large_result(
    cluster: Cluster, make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "word " * 150_000
    make(FakeEngine(lambda samples, _: hypothesis_of(text, len(samples) / RATE)))
    fields = submitted(cluster, capsys, str(recording(tmp_path, 20_000)), "--wait")
    assert fields["text"].strip() == text.strip()


def test_drained_node_hands_over_within_its_rights(
    cluster: Cluster, make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(recording(tmp_path, 400_000))
    assert submitted(cluster, capsys, path, "--id", "weary")["status"] == "accepted"
    for _ in range(6):
        node = make()
        node.engine.hold()
        node.engine.wait_for_calls(1)
        node.server.shutdown.ask()
        node.wait_until_stopped()
        node.stop()
    node = make()
    line = node.lines.wait_for("weary")
    assert (line["text"], line["status"]) == ("400000", "ok")
    eventually(lambda: node.queue.counts.held["long"] == 0, "an acknowledgement")
