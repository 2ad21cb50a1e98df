"""Fixtures of more than one file. They are made of the parts in tests/fakes.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

# The machine is shared: how long an example takes says nothing.
settings.register_profile("node", deadline=None)
settings.load_profile("node")

# scripts/test runs the files side by side, a worker for each processor. Each stays on its own, with
# all nodes that it starts: two engines at two threads each would wait for one another at every
# barrier, ten times longer than they compute.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[int(worker.removeprefix("gw")) % len(processors)]})


@pytest.fixture
def make_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts nodes with a fake engine; afterwards nothing may have come out of their loops."""
    # Imported here so that tests of the scripts alone do not need the node's requirements.
    from fakes import PATIENCE, Node, failed_callbacks
    from structlog.testing import capture_logs

    # A test that is held up for a moment must not lose the end of what it is told.
    monkeypatch.setattr("app.network.deadlines.LINGER_SECONDS", PATIENCE)
    nodes: list[Node] = []

    def make(*arguments: Any, **options: Any) -> Node:
        node = Node(*arguments, **options)
        nodes.append(node)
        node.start()
        return node

    with capture_logs() as entries:
        yield make
        # The last first: each gives back the signal as it found it.
        for node in reversed(nodes):
            node.stop()
    assert failed_callbacks(entries) == []


@pytest.fixture
def node(make_node: Callable[..., Any]) -> Any:
    """One node with the default settings."""
    return make_node()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The loop's clock, and that of all who set it timers."""
    from fakes import Clock

    clock = Clock()
    network = ("network.deadlines", "network.listener", "network.loop")
    requests = ("requests.slow_uploads", "requests.shutdown", "requests.output_watch")
    for module in (*network, *requests):
        monkeypatch.setattr(f"app.{module}.time", clock)
    return clock


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An authority, a node's certificate of it and a client's."""
    from certificates import make

    return make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same of another authority."""
    from certificates import make

    return make(tmp_path_factory.mktemp("strangers"))
