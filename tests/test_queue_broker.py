"""Nodes whose broker is absent, restarts, or forgets, with fake engines in this process."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="requirements-queue.txt is not installed")

from broker import Broker
from certificates import Certificates
from cluster import Admin, queue_parts
from fakes import FakeEngine, Node, eventually, pcm, text_or_code
from node import ROOT, clean_environment, run

from app import build
from app.queue import names
from app.queue.broker import Access, access
from app.queue.thread import QueueSettings, QueueThread

MakeNode = Callable[..., Node]
NAMES = {"owner": "node", "name": "test"}


def parts_of(reached: Access) -> build.QueueParts:
    """The queue of a node that never gets a job."""

    def new_thread(wake: Callable[[], None], fault: Callable[[], str | None]) -> QueueThread:
        wish = QueueSettings(reached, model="m", places=1, max_body=1000, node="n")
        return QueueThread(wish, wake, fault)

    return build.QueueParts(new_thread, 1)


@pytest.fixture
def admin(broker: Broker) -> Iterator[Admin]:
    admin = Admin(broker.url)
    admin.init()
    yield admin
    admin.close()


@pytest.fixture
def make(
    make_node: MakeNode, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Node]:
    """Start nodes that take jobs."""
    # A node that ends waits for its last requests.
    monkeypatch.setattr("app.queue.places.WAIT_SECONDS", 0.3)
    monkeypatch.setattr("app.queue.jetstream._LATE_SECONDS", 0.1)

    def start(engine: FakeEngine | None = None, **more: Any) -> Node:
        return make_node(engine, queue=queue_parts(broker.url), **more)

    return start


def connected(node: Node) -> Callable[[], bool]:
    return lambda: node.queue.counts.connected


def test_node_begins_without_its_broker(admin: Admin, broker: Broker, make: Any) -> None:
    admin.submit_samples("early", 3000)
    broker.kill()
    node = make()
    with node.connect() as client:
        client.request(pcm(2000), id="own")
        assert text_or_code(client.reply()) == "2000"
    assert not node.queue.counts.connected
    assert node.server.load.ready
    broker.start()
    eventually(connected(node), "a connection")
    assert admin.wait_for("early")["text"] == "3000"


def test_idle_node_takes_the_first_job_after_a_restart(
    admin: Admin, broker: Broker, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker forgets open requests for jobs (nats.py#504), which here would last longer than
    the test waits."""
    monkeypatch.setattr("app.queue.places.WAIT_SECONDS", 600.0)
    monkeypatch.setattr("app.queue.jetstream.JetStream.close_pulls", lambda _self: asyncio.sleep(0))
    node = make()
    eventually(lambda: node.queue.counts.answered_at > 0, "an answer")
    for number in range(3):
        broker.kill()
        eventually(lambda: not node.queue.counts.connected, "a lost connection")
        broker.start()
        admin.submit_samples(f"job{number}", 3000)
        assert admin.wait_for(f"job{number}")["text"] == "3000"


def test_result_waits_for_the_broker(admin: Admin, broker: Broker, make: Any) -> None:
    node = make()
    node.engine.hold()
    admin.submit_samples("held", 3000)
    node.engine.wait_for_calls(1)
    broker.kill()
    node.engine.release()
    assert node.lines.wait_for("held")["text"] == "3000"
    with node.connect() as client:
        client.request(pcm(2000), id="own")
        assert text_or_code(client.reply()) == "2000"
    broker.start()
    assert admin.wait_for("held")["delivered"] >= 1
    eventually(lambda: admin.count(names.JOBS) == 0, "an empty queue")
    assert len(node.lines.of("held")) == 1
    assert len(node.engine.calls) == 2


def test_every_job_is_answered_over_restarts_of_the_broker(
    broker: Broker, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery that the dying broker had begun waits for the end of its lease."""
    monkeypatch.setattr("app.queue.heartbeat.SECONDS", 0.3)
    admin = Admin(broker.url, ack_wait=2.0)
    admin.init()
    nodes = [make() for _ in range(2)]
    sizes = {f"j{number}": 2000 + number for number in range(60)}
    for number, (request_id, size) in enumerate(sizes.items()):
        if number % 20 == 10:
            broker.kill()
            broker.start()
        admin.submit_samples(request_id, size)
    texts = {request_id: admin.wait_for(request_id)["text"] for request_id in sizes}
    assert texts == {request_id: str(size) for request_id, size in sizes.items()}
    eventually(lambda: admin.count(names.JOBS) == 0, "an empty queue")
    lines = {line["id"] for node in nodes for line in node.lines.written}
    assert lines == sizes.keys()
    admin.close()


def test_large_audio_is_read_over_a_restart_of_the_broker(
    admin: Admin, broker: Broker, make: Any
) -> None:
    body = pcm(2_500_000)
    admin.submit("big", body, job_class="long")
    node = make()
    while node.queue.counts.fetched_bytes == 0:
        time.sleep(0.0005)
    broker.kill()
    broker.start()
    text = admin.wait_for("big")["text"]
    assert sum(map(int, text.split())) >= 2_500_000
    assert len(node.lines.of("big")) == 1


def test_missing_streams_cost_nothing_once_they_are_made(broker: Broker, make: Any) -> None:
    node = make()
    eventually(connected(node), "a connection")
    time.sleep(0.3)
    admin = Admin(broker.url)
    try:
        admin.init()
        admin.submit_samples("late", 3000)
        assert admin.wait_for("late")["text"] == "3000"
    finally:
        admin.close()


def test_drain_does_not_wait_forever_for_an_absent_broker(
    admin: Admin, broker: Broker, make: Any
) -> None:
    node = make(drain_seconds=0.2)
    node.engine.hold()
    admin.submit_samples("kept", 3000)
    node.engine.wait_for_calls(1)
    broker.kill()
    node.engine.release()
    node.lines.wait_for("kept")
    node.server.shutdown.ask()
    node.wait_until_stopped()
    broker.start()


def test_node_of_the_queue_alone_is_not_ready_without_its_broker(
    admin: Admin, broker: Broker, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.server._AWAY_SECONDS", 0.1)
    alone, other = make(only_queue=True), make()
    eventually(connected(alone), "a connection")
    assert alone.server.load.ready
    broker.kill()
    eventually(lambda: not alone.server.load.ready, "a node that is not ready")
    assert alone.server.load.cut_off
    assert other.server.load.ready
    broker.start()
    eventually(lambda: alone.server.load.ready, "a ready node")


def test_node_reaches_its_broker_by_tls(
    make_node: MakeNode, make_broker: Any, certificates: Certificates, tmp_path: Path
) -> None:
    certificate, key = certificates.node
    broker = make_broker(
        f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}\n'
        'authorization { users = [ {user: "n", password: "p"} ] }'
    )
    credentials = tmp_path / "credentials"
    credentials.write_text("n:p")
    url = broker.url.replace("nats://127.0.0.1", "tls://localhost")
    reached = access((url,), credentials, certificates.ca, **NAMES)
    node = make_node(queue=parts_of(reached))
    eventually(connected(node), "a connection")


def test_node_subscribes_again_if_nothing_is_delivered(
    broker: Broker, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that hands out nothing although jobs wait (nats-server#7680)."""
    monkeypatch.setattr("app.queue.places._STALLED_SECONDS", 0.4)
    admin = Admin(broker.url, ack_wait=1.0)
    admin.init()
    node = make()
    eventually(lambda: node.queue.counts.answered_at > 0, "an answer")
    admin.submit_samples("before", 2000)
    admin.wait_for("before")
    asyncio.run_coroutine_threadsafe(node.queue._link._stream.end(), node.queue._loop).result(60)
    admin.submit_samples("after", 3000)
    assert admin.wait_for("after")["text"] == "3000"
    admin.close()


# nats-py leaves the sockets of refused attempts to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_node_returns_once_its_rights_are_restored(
    make_node: MakeNode, make_broker: Any, tmp_path: Path
) -> None:
    users = 'authorization { users = [ {user: "n", password: "%s"} ] }'
    broker = make_broker(users % "p")
    credentials = tmp_path / "credentials"
    credentials.write_text("n:p")
    node = make_node(queue=parts_of(access((broker.url,), credentials, None, **NAMES)))
    eventually(connected(node), "a connection")
    broker.kill()
    broker.configure(users % "other")
    broker.start()
    eventually(lambda: "authentication error" in broker.log(), "a refusal")
    time.sleep(1.5)  # several attempts: nats-py gives up after some
    assert not node.queue.counts.connected
    broker.kill()
    broker.configure(users % "p")
    broker.start()
    eventually(connected(node), "a connection")
    gc.collect()


# The start of a node.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--queue", "nats://u:secret@b"], "--queue-credentials"),
        (["--queue", "nats://b", "--queue-credentials", "/no/such"], "cannot read /no/such"),
        (["--queue", "nats://b", "--queue-ca", "/no/such"], "cannot read /no/such"),
        (["--queue", "tls://b", "--queue-ca", __file__], "not a PEM file"),
        (["--port", "off"], "--queue"),
    ],
)
def test_wrong_options_of_the_queue_end_the_node(arguments: list[str], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert "secret" not in err


def test_node_without_the_client_names_the_command() -> None:
    code = (
        "import sys, importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'nats' else f(name, *rest)\n"
        "sys.argv = ['node', '--queue', 'nats://b']\n"
        "from app.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "requirements-queue.txt" in done.stderr
