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
    second = _groups(mount, _own_path(own_groups, ""))
    first = _groups(mount / "memory", _own_path(own_groups, "memory"))
    known = [
        _available(meminfo),
        *(_left(group / "memory.max", group / "memory.current") for group in second),
        *(
            _left(group / "memory.limit_in_bytes", group / "memory.usage_in_bytes")
            for group in first
        ),
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


def _groups(mount: Path, path: Path) -> set[Path]:
    """Return the directories of the group at `path`, of those above it, and of the mount."""
    return {mount, mount / path, *(mount / part for part in path.parents)}


def _own_path(own_groups: Path, controller: str) -> Path:
    """Return the path of the process's group, without its leading slash: with a `controller` that
    of version 1, else that of version 2 (cgroups(7), "/proc/pid/cgroup")."""
    try:
        lines = [line.split(":", 2) for line in own_groups.read_text().splitlines()]
    except OSError:
        return Path()
    paths = [parts[2] for parts in lines if len(parts) == 3 and controller in parts[1].split(",")]
    # From outside of a container's namespace a path begins with "/..".
    return Path() if not paths or ".." in paths[0] else Path(paths[0].strip("/"))


def _left(limit: Path, current: Path) -> int | None:
    """Return the limit less the present use, None if there is no limit."""
    try:
        return max(0, int(limit.read_text()) - int(current.read_text()))
    except (OSError, ValueError):
        return None
