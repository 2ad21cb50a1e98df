"""Runs a command under MemoryDenyWriteExecute=yes: `mdwe.py prctl|seccomp COMMAND...`.

systemd applies that setting in two ways, and this program has both. From version 254, on Linux 6.3
and newer, systemd sets a flag of the process (PR_SET_MDWE). Older versions install a seccomp
filter, which refuses more: every mprotect to executable memory, and every mmap of memory that is
both writable and executable. The exit status is 77 if the kernel does not support the chosen way.
Standard library only; the command inherits the setting.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_SET_MDWE = 38, 22, 65
SECCOMP_MODE_FILTER, PR_MDWE_REFUSE_EXEC_GAIN = 2, 1
PROT_WRITE, PROT_EXEC, EPERM = 2, 4, 1

# AUDIT_ARCH and the numbers of mmap, mprotect and pkey_mprotect, from the kernel's headers.
MACHINES = {
    "x86_64": (0xC000003E, 9, 10, 329),
    "aarch64": (0xC00000B7, 222, 226, 288),
}

# Classic BPF (linux/filter.h): load a word, jump if equal, jump if all these bits are set, return.
LOAD, AND, EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | EPERM
NUMBER, ARCHITECTURE, PROTECTION = 0, 4, 32
"""Offsets in struct seccomp_data: `prot` is the third argument of all three calls."""


def program() -> bytes:
    architecture, mmap, mprotect, pkey_mprotect = MACHINES[platform.machine()]
    both = PROT_WRITE | PROT_EXEC
    code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 0, 11, architecture),
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 2, 0, mmap),
        (EQUAL, 4, 0, mprotect),
        (EQUAL, 3, 7, pkey_mprotect),
        (LOAD, 0, 0, PROTECTION),
        (AND, 0, 0, both),
        (EQUAL, 3, 4, both),
        (LOAD, 0, 0, PROTECTION),
        (AND, 0, 0, PROT_EXEC),
        (EQUAL, 0, 1, PROT_EXEC),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in code)


def deny(how: str) -> bool:
    """Apply the setting to this process; return whether the kernel accepted it."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if how == "prctl":
        return bool(prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0)
    if platform.machine() not in MACHINES:
        return False
    steps = program()
    header = struct.pack("HxxxxxxP", len(steps) // 8, address_of(steps))
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) == 0)


_kept: list[object] = []


def address_of(data: bytes) -> int:
    """The address of a copy that is never freed."""
    buffer = ctypes.create_string_buffer(data, len(data))
    _kept.append(buffer)
    return ctypes.addressof(buffer)


if __name__ == "__main__":
    if not deny(sys.argv[1]):
        print(os.strerror(ctypes.get_errno()), file=sys.stderr)
        sys.exit(77)
    os.execvp(sys.argv[2], sys.argv[2:])
