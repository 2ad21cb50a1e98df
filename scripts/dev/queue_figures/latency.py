"""What the queue adds to a request over the native port of the same node, without work.

The two ways alternate, so that other load on the machine meets both.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from broker import free_port

from queue_figures.cluster import (
    Audio,
    NativeClient,
    NodeProcess,
    QueueClient,
    audio,
    make_broker,
    wait_for_nodes,
)

SIZES = ((96_000, 16_000, "96 kB in the message"), (1_000_000, 48_000, "1 MB as an object"))


def measure(folder: Path, rounds: int) -> list[str]:
    broker = make_broker(folder)
    port = free_port()
    node = NodeProcess(broker.url, 0.0, port=port)
    try:
        wait_for_nodes(broker, 1)
        client = NativeClient(port)
        rows = ["| job | native, ms | queue, ms | added, ms: median (95 %) |", "|---|--:|--:|--:|"]
        for size, rate, name in SIZES:
            native, queue = asyncio.run(_alternate(broker.url, client, size, rate, rounds))
            usual = statistics.median(native)
            added = [value - usual for value in queue]
            high = sorted(added)[int(0.95 * len(added))]
            rows.append(
                f"| {name} | {1e3 * usual:.1f} | {1e3 * statistics.median(queue):.1f}"
                f" | {1e3 * statistics.median(added):.1f} ({1e3 * high:.1f}) |"
            )
        client.close()
        return rows
    finally:
        node.kill()
        broker.kill()


async def _alternate(
    url: str, client: NativeClient, size: int, rate: int, rounds: int
) -> tuple[list[float], list[float]]:
    native, queue = [], []
    async with QueueClient.of(url) as submitter:
        for number in range(rounds + 3):
            sound: Audio = audio(size, rate)
            began = time.perf_counter()
            await asyncio.to_thread(client.transcribe, sound)
            middle = time.perf_counter()
            await (await submitter.submit(sound))
            end = time.perf_counter()
            # The first ones load code and grow buffers.
            if number >= 3:
                native.append(middle - began)
                queue.append(end - middle)
    return native, queue
