"""Runs a command under the system call filter of the systemd unit: `unit_filter.py COMMAND...`.

systemd-analyze lists the calls of each group, and libseccomp, which systemd needs, installs the
filter. The exit status is 77 if either is absent. Standard library only; the command inherits the
filter.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "node-whisper.service"
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
"""SCMP_ACT_ALLOW and SCMP_ACT_ERRNO of libseccomp's seccomp.h."""


def calls_of(group: str) -> set[str]:
    """The system calls of a group such as @system-service, with those of the groups inside it."""
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", group],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: set[str] = set()
    for line in done.stdout.splitlines()[1:]:
        name = line.partition("#")[0].strip()
        if name.startswith("@"):
            found |= calls_of(name)
        elif name:
            found.add(name)
    return found


def allowed() -> set[str]:
    """The calls that the unit allows: its lists in order; @default always is allowed."""
    found = calls_of("@default")
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        groups = line.lstrip("~").split()
        calls = set().union(*(calls_of(group) for group in groups))
        found = found - calls if line.startswith("~") else found | calls
    return found


def main() -> None:
    path = ctypes.util.find_library("seccomp")
    if path is None or shutil.which("systemd-analyze") is None:
        sys.exit(77)
    library = ctypes.CDLL(path)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(REFUSE)))
    for name in allowed():
        number = library.seccomp_syscall_resolve_name(name.encode())
        # Negative: this processor has no such call.
        if number >= 0:
            library.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), ctypes.c_int(number), 0)
    if library.seccomp_load(context) != 0:
        sys.exit(77)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
