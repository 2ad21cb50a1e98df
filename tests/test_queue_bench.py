"""scripts/dev/queue_bench in its shortest form: each part runs and fills its table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="nats-py is not installed (requirements-queue.txt)")

from broker import needs_broker
from queue_figures import latency, memory, recovery, scaling

pytestmark = [pytest.mark.slow, needs_broker]


def numbers(row: str) -> list[float]:
    return [float(found) for found in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", row)]


def test_latency_compares_both_ways(tmp_path: Path) -> None:
    rows = latency.measure(tmp_path / "broker", 2)
    assert len(rows) == 2 + len(latency.SIZES)
    for row in rows[2:]:
        native, queue = numbers(row.split("|", 2)[2])[:2]
        assert native > 0
        assert queue > 0


def test_scaling_counts_every_job(tmp_path: Path) -> None:
    rows = scaling.measure(tmp_path / "broker", (1, 2), 2, 3)
    nodes, jobs, ideal, taken, efficiency = numbers(rows[-1])
    assert (nodes, jobs, ideal) == (2, 4, 0.6)
    # No node can be faster than its engine.
    assert taken >= ideal
    assert 0 < efficiency <= 1


def test_memory_and_recovery_are_measured(tmp_path: Path) -> None:
    assert len(memory.measure(tmp_path / "memory", 4, 2_000_000)) == 9
    assert len(recovery.measure(tmp_path / "recovery", 1)) == 4
