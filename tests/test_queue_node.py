"""Nodes that take jobs from a real broker, with fake engines in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("nats", reason="requirements-queue.txt is not installed")

from broker import Broker
from cluster import Admin, queue_parts
from fakes import FakeEngine, Node, eventually, pcm

from app.queue import names

MakeNode = Callable[..., Node]


@pytest.fixture
def admin(broker: Broker) -> Iterator[Admin]:
    admin = Admin(broker.url)
    admin.init()
    yield admin
    admin.close()


@pytest.fixture
def make(make_node: MakeNode, broker: Broker) -> Callable[..., Node]:
    """Start nodes that take jobs."""

    def start(engine: FakeEngine | None = None, places: int = 3, **more: Any) -> Node:
        queue = queue_parts(broker.url, places, **more.pop("thread", {}))
        return make_node(engine, queue=queue, **more)

    return start


def all_done(admin: Admin) -> Callable[[], bool]:
    return lambda: admin.count(names.JOBS) == 0


def test_job_has_a_line_then_a_result_and_leaves_the_queue(admin: Admin, make: Any) -> None:
    node = make()
    admin.submit_samples("a", 3000, word_timestamps=False)
    result = admin.wait_for("a")
    assert (result["text"], result["status"]) == ("3000", "ok")
    assert (result["node"], result["delivered"]) == ("test:1", 1)
    line = node.lines.wait_for("a")
    assert (line["text"], line["peer"], line["delivered"]) == ("3000", "queue/t1", 1)
    eventually(all_done(admin), "an empty queue")
    eventually(lambda: node.server.load.admitted == 0, "a free place")


def test_jobs_are_shared_by_three_nodes_and_done_once(admin: Admin, make: Any) -> None:
    nodes = [make() for _ in range(3)]
    sizes = {f"j{number}": 2000 + number for number in range(200)}
    for request_id, size in sizes.items():
        admin.submit_samples(request_id, size, model="any" if size % 2 else "fake.en")
    texts = {request_id: admin.wait_for(request_id)["text"] for request_id in sizes}
    assert texts == {request_id: str(size) for request_id, size in sizes.items()}
    eventually(all_done(admin), "an empty queue")
    lines = [line for node in nodes for line in node.lines.written]
    assert sorted(line["id"] for line in lines) == sorted(sizes)
    assert all(node.lines.written for node in nodes)


def test_large_audio_comes_in_chunks_and_is_deleted(admin: Admin, make: Any) -> None:
    node = make()
    body = pcm(3_000_000)  # 6 MB, so that it goes to a file
    admin.submit("big", body, job_class="long")
    assert admin.wait_for("big")["text"]
    eventually(lambda: admin.audio() == [], "deleted audio")
    assert admin.audio_bytes() < 2000
    assert node.queue.counts.fetched_bytes == len(body)
