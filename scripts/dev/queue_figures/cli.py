"""The program behind scripts/dev/queue_bench: figures of a cluster on a queue, in tables. The
engine is a stand-in that sleeps, so the figures are those of queue, node and broker."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from queue_figures import latency, memory, recovery, scaling


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/dev/queue_bench", description=__doc__)
    choices = ("latency", "scaling", "memory", "recovery")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(choices)} (default: all)"
    )
    parser.add_argument(
        "--rounds", type=int, default=200, help="requests of each size (%(default)s)"
    )
    parser.add_argument(
        "--nodes", type=int, nargs="+", default=(1, 3, 16, 64), help="numbers of nodes"
    )
    parser.add_argument("--queue-places", type=int, default=3, help="of each node (%(default)s)")
    parser.add_argument("--jobs", type=int, default=12, help="jobs for each node (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="restarts and drains (%(default)s)")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(choices):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(choices)}")
    parts: dict[str, Callable[[Path], list[str]]] = {
        "latency": lambda folder: latency.measure(folder, options.rounds),
        "scaling": lambda folder: scaling.measure(
            folder, tuple(options.nodes), options.jobs, options.queue_places
        ),
        "memory": lambda folder: memory.measure(folder, 10 * options.rounds),
        "recovery": lambda folder: recovery.measure(folder, options.repeats),
    }
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="node-whisper-queue-") as temporary:
        for name in options.parts or choices:
            before = os.getloadavg()[0]
            rows = parts[name](Path(temporary) / name)
            where = f"{_processor()}, {os.cpu_count()} processors, load {before:.1f} before"
            print(f"\n{name} ({where}):\n")
            print("\n".join(rows), flush=True)
    return 0


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    wide = any("avx512f" in line for line in lines if line.startswith("flags"))
    return f"{names[0] if names else 'unknown'}{', AVX-512' if wide else ''}"


if __name__ == "__main__":
    sys.exit(main())
