"""Memory of the broker, and of a node with and without the queue."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
from broker import Broker

from queue_figures.cluster import NodeProcess, QueueClient, audio, make_broker, wait_for_nodes

LARGE = 60_000_000


def measure(folder: Path, jobs: int, large: int = LARGE) -> list[str]:
    """`large` is the size of an object in bytes."""
    rows = ["| process and state | MiB |", "|---|--:|"]
    broker = make_broker(folder)
    alone, node = NodeProcess(None, 0.0, port=0), NodeProcess(broker.url, 0.0)
    try:
        wait_for_nodes(broker, 1)
        time.sleep(2)
        rows.append(f"| node without the queue, own memory | {alone.resident():.0f} |")
        rows.append(f"| node with the queue, own memory | {node.resident():.0f} |")
        rows.append(f"| broker, queue set up, resident | {_resident(broker):.0f} |")
        asyncio.run(_jobs(broker.url, jobs, 96_000))
        rows.append(f"| broker after {jobs} jobs of 96 kB | {_resident(broker):.0f} |")
        rows.append(f"| node after them, own memory | {node.resident():.0f} |")
        asyncio.run(_jobs(broker.url, 3, large))
        rows.append(
            f"| broker after three objects of {large / 1e6:.0f} MB | {_resident(broker):.0f} |"
        )
        rows.append(f"| node after them, own memory | {node.resident():.0f} |")
        return rows
    finally:
        alone.kill()
        node.kill()
        broker.kill()


def _resident(broker: Broker) -> float:
    return float(psutil.Process(broker.pid).memory_info().rss) / 2**20


async def _jobs(url: str, count: int, size: int) -> None:
    async with QueueClient.of(url) as client:
        for begin in range(0, count, 16):
            some = range(begin, min(count, begin + 16))
            futures = [await client.submit(audio(size)) for _ in some]
            await asyncio.gather(*futures)
