"""Throughput of nodes whose engine takes 0.3 s for each job.

The ideal time is the jobs of one node times 0.3 s. Efficiency is the ideal time divided by the time
from the first submission to the last result. A node of three places takes two short jobs: the
second hides the way to the broker and back, but at the end it may wait although another node is
free.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from queue_figures.cluster import NodeProcess, QueueClient, audio, make_broker, wait_for_nodes

WINDOW = 0.3
_IN_FLIGHT = 16
"""Submissions at once."""


def measure(folder: Path, counts: tuple[int, ...], jobs_per_node: int, own: int) -> list[str]:
    """`counts` are the numbers of nodes, and `own` is the --queue-places of each."""
    rows = ["| nodes | jobs of 96 kB | ideal, s | taken, s | efficiency |", "|--:|--:|--:|--:|--:|"]
    broker = make_broker(folder)
    nodes: list[NodeProcess] = []
    try:
        for count in counts:
            while len(nodes) < count:
                nodes.append(NodeProcess(broker.url, WINDOW, "--queue-places", str(own)))
                # All at once would only slow each other's start.
                if len(nodes) % 8 == 0:
                    wait_for_nodes(broker, len(nodes), own)
            wait_for_nodes(broker, count, own)
            jobs = count * jobs_per_node
            taken = asyncio.run(_run(broker.url, jobs))
            ideal = jobs_per_node * WINDOW
            rows.append(f"| {count} | {jobs} | {ideal:.1f} | {taken:.2f} | {ideal / taken:.2f} |")
        return rows
    finally:
        for node in nodes:
            node.kill()
        broker.kill()


async def _run(url: str, jobs: int) -> float:
    sounds = [audio(96_000) for _ in range(8)]
    slots = asyncio.Semaphore(_IN_FLIGHT)
    async with QueueClient.of(url) as client:

        async def submit(number: int) -> asyncio.Future[dict[str, object]]:
            async with slots:
                future: asyncio.Future[dict[str, object]] = await client.submit(sounds[number % 8])
                return future

        began = time.perf_counter()
        results = await asyncio.gather(*(submit(number) for number in range(jobs)))
        await asyncio.gather(*results)
        return time.perf_counter() - began
