"""CPU seconds and memory of a process and all its children."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Memory:
    """Resident set in MiB: the current value, and the peak that the kernel records."""

    now: float
    peak: float


def cpu_seconds(pid: int) -> float:
    """User and system time so far, including children."""
    total = 0.0
    for process in _family(pid):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def memory(pid: int) -> Memory:
    """Resident memory, summed over the process and its children."""
    now = peak = 0.0
    for process in _family(pid):
        resident = process.memory_info().rss / 2**20
        now += resident
        peak += max(resident, _high_water(process.pid))
    return Memory(now, peak)


def _high_water(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
