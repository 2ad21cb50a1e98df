"""Five thousand idle connections on the real node: the memory of each, and an honest client that
still gets its text.

`scripts/dev/bench` measures the latency beside them; this test checks only correctness.
"""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Callable

import psutil
import pytest
import soundfile
from benchmark.idle import CONNECTIONS, SPARE, IdleConnections, raise_descriptor_limit
from node import HANG, JFK, Node, eventually

ALLOWED_EACH = 24 * 1024
"""Bytes of resident memory for each connection. A read buffer for each would exceed it."""

CONNECTIONS_METRIC = "node_whisper_connections "

pytestmark = pytest.mark.slow


def test_five_thousand_idle_connections_cost_little_memory(
    record_property: Callable[[str, object], None],
) -> None:
    if not raise_descriptor_limit(CONNECTIONS + SPARE):
        pytest.skip(f"the system allows this process fewer than {CONNECTIONS + SPARE} descriptors")
    samples, rate = soundfile.read(JFK, frames=int(2.2 * 44_100), dtype="int16")
    with io.BytesIO() as file:
        soundfile.write(file, samples, rate, format="FLAC")
        clip = file.getvalue()
    limits = ("--max-connections", str(CONNECTIONS + SPARE))
    with Node("-m", "tiny.en", "--http-port", "0", *limits) as node:
        expected = node.ask(clip)["text"]
        assert "my fellow american" in expected.lower()
        process = psutil.Process(node.pid)
        eventually(lambda: connections(node) == 1)
        descriptors, resident = process.num_fds(), node.resident_bytes()

        with IdleConnections(("127.0.0.1", node.port), CONNECTIONS) as idle:
            each = (node.resident_bytes() - resident) / CONNECTIONS
            record_property("bytes_per_idle_connection", round(each))
            print(f"an idle connection costs {each / 1024:.1f} KiB")
            assert process.num_fds() > CONNECTIONS
            eventually(lambda: connections(node) == CONNECTIONS + 1)
            assert each < ALLOWED_EACH

            assert node.ask(clip)["text"] == expected
            assert idle.still_open() == CONNECTIONS
            idle.ask_again(every=10)

        eventually(lambda: connections(node) == 1)
        eventually(lambda: process.num_fds() <= descriptors)
        assert node.ask(clip)["text"] == expected
        assert node.stop() == 0


def connections(node: Node) -> int:
    """The number of the node's open connections, including the one that asks."""
    with urllib.request.urlopen(node.listening["http"] + "metrics", timeout=HANG) as answer:
        metrics = answer.read().decode()
    (value,) = (
        line.split()[1] for line in metrics.splitlines() if line.startswith(CONNECTIONS_METRIC)
    )
    return int(float(value))
