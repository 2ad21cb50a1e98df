"""The memory that this process may still take: that of the machine, or of its control groups.

Main thread, once, at start.
"""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def free_bytes(
    meminfo: Path = _MEMINFO, own_groups: Path = _OWN_GROUPS, mount: Path = _MOUNT
) -> int | None:
    """Return the bytes that are free or can be freed; None if that is not known.

    Of the machine it is MemAvailable (proc_meminfo(5)). Each control group above the process may
    have a lower limit (kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
    A container sees its own group at the mount.
    """
    path = _group_path(own_groups)
    groups = {mount, mount / path, *(mount / part for part in path.parents)}
    first = mount / "memory"
    known = [
        _available(meminfo),
        *(_left(group / "memory.max", group / "memory.current") for group in groups),
        _left(first / "memory.limit_in_bytes", first / "memory.usage_in_bytes"),
    ]
    return min((value for value in known if value is not None), default=None)


def _available(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _group_path(own_groups: Path) -> Path:
    """Return the path of the process's group of version 2, without its leading slash."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        return Path()
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    # Outside of the namespace of a container a path begins with "/..".
    return Path() if ".." in path else Path(path.strip("/"))


def _left(limit: Path, current: Path) -> int | None:
    """Return the limit less the present use, None if there is no limit."""
    try:
        return max(0, int(limit.read_text()) - int(current.read_text()))
    except (OSError, ValueError):
        return None
