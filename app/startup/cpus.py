"""The number of processors that this process may use.

`os.cpu_count()` counts the whole machine. In a container or under `taskset` that is too many, and
OpenMP with more threads than processors is slower than with one. Main thread, once, at start.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def available_cpus() -> int:
    """Count processors by affinity, capped by the cgroup's quota; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = cgroup_quota(_CGROUP_V2, _CGROUP_V1)
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def cgroup_quota(v2: Path, v1: Path) -> float | None:
    """Return the quota in processors, or None if there is none.

    cgroup v2 writes "quota period" or "max period" in one file; v1 has two files and -1 for none
    (kernel documentation, admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst). In a container
    both are mounted at the paths given here.
    """
    try:
        if v2.exists():
            quota, period = v2.read_text().split()
        else:
            quota = (v1 / "cpu.cfs_quota_us").read_text().strip()
            period = (v1 / "cpu.cfs_period_us").read_text().strip()
        if quota in ("max", "-1"):
            return None
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
