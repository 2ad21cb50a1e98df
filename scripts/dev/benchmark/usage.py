"""CPU seconds and memory of a process and everything it started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Memory:
    """Resident set in MiB: now, and the most it ever was (the kernel's own record)."""

    now: float
    peak: float


def cpu_seconds(pid: int) -> float:
    """User and system time so far, children included."""
    total = 0.0
    for process in _family(pid):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def memory(pid: int) -> Memory:
    """Resident memory; of a family, the sum."""
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
