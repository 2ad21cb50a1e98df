"""The time until the next job begins after the broker's return, and until another node begins a
job that a node gives back at its end."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from broker import Broker

from queue_figures.cluster import NodeProcess, QueueClient, audio, make_broker, wait_for_nodes

_DRAIN = 0.2
_WINDOW = 30.0
"""Longer than the start of a node."""


def measure(folder: Path, rounds: int) -> list[str]:
    rows = ["| event | seconds until the next job begins: median, most |", "|---|--:|"]
    broker = make_broker(folder)
    try:
        returns = [_after_return(broker) for _ in range(rounds)]
        rows.append(f"| the broker is back after 1 s, the node was idle | {_shown(returns)} |")
        drains = [asyncio.run(_after_drain(broker)) for _ in range(rounds)]
        rows.append(f"| SIGTERM to the node, after its --drain-seconds | {_shown(drains)} |")
        return rows
    finally:
        broker.kill()


def _shown(values: list[float]) -> str:
    return f"{max(0.0, statistics.median(values)):.2f}, {max(0.0, *values):.2f}"


def _after_return(broker: Broker) -> float:
    node = NodeProcess(broker.url, 0.0)
    try:
        wait_for_nodes(broker, 1)
        return asyncio.run(_restart(broker))
    finally:
        node.kill()


async def _restart(broker: Broker) -> float:
    async with QueueClient.of(broker.url) as client:
        await (await client.submit(audio(96_000)))
        broker.kill()
        await asyncio.sleep(1.0)
        await asyncio.to_thread(broker.start)
        began = time.perf_counter()
        await (await client.submit(audio(96_000)))
        return time.perf_counter() - began


async def _after_drain(broker: Broker) -> float:
    """The first node works for _WINDOW seconds on the job; the second would take no time."""
    first = NodeProcess(broker.url, _WINDOW, "--queue-places", "1", "--drain-seconds", str(_DRAIN))
    second: NodeProcess | None = None
    try:
        await asyncio.to_thread(wait_for_nodes, broker, 1, 1)
        async with QueueClient.of(broker.url) as client:
            future = await client.submit(audio(96_000))
            second = NodeProcess(broker.url, 0.0)
            await asyncio.to_thread(wait_for_nodes, broker, 1)
            began = time.perf_counter()
            first.terminate()
            await future
            return time.perf_counter() - began - _DRAIN
    finally:
        for node in (first, second):
            if node is not None:
                node.kill()
