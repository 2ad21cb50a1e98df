"""The limits of the child process that decodes, set by the child itself before it reads the body.

The limits hold for a compromised decoder too. A system call filter allows only memory, reading and
writing of open files, and clocks: no new files, sockets, processes or executable memory. Other
calls fail with EPERM, so that a library's optional call ends nothing. Standard library only; child
process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct

DESCRIPTORS = 16
ADDRESS_SPACE = 512 << 20
"""Bytes. The interpreter with PyAV takes 120 MiB of them."""

IGNORED_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""Signals that systemd and terminals send to all processes. The node ends its children itself,
after the requests that it still finishes."""

_SET_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES, _SET_SECCOMP = 1, 38, 22
_FILTER = 2
"""SECCOMP_MODE_FILTER. The number stands in linux/seccomp.h, those above in linux/prctl.h."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH of linux/audit.h."""

CALLS = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "close": (3, 57),
    "fstat": (5, 80),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
"""The allowed system calls, with their numbers on the two architectures (asm/unistd.h)."""

MAPPING_CALLS = {"mmap": (9, 222), "mprotect": (10, 226)}
"""Calls that may not ask for executable memory."""

# Classic BPF (linux/filter.h): load a word, jump if equal, jump if a bit is set, return.
_LOAD, _EQUAL, _HAS_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1
_NUMBER, _ARCHITECTURE, _PROTECTION = 0, 4, 32
"""Offsets in struct seccomp_data; `prot` is the third argument of both mapping calls."""
_EXECUTABLE = 4


def bind_to_parent(parent: int) -> None:
    """End this process with the thread that started it, and by nothing else; `parent` is that
    thread's process."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def limit(cpu_seconds: int) -> None:
    """Limit memory, descriptors and processor time, forbid writing of files and gaining
    privileges; of all processes this is the first to go where memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")
    for what, most in (
        (resource.RLIMIT_AS, ADDRESS_SPACE),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    _prctl(_SET_NO_NEW_PRIVILEGES, 1)


def seal() -> None:
    """Allow no further files, sockets, processes, threads or executable memory.

    Call it after the last import. The kernel may lack filters; the limit of processes then remains.
    """
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return
    steps = _program(machine)
    code = ctypes.create_string_buffer(steps, len(steps))
    program = struct.pack("HxxxxxxP", len(steps) // 8, ctypes.addressof(code))
    _prctl(_SET_SECCOMP, _FILTER, program)


def _program(machine: str) -> bytes:
    column = list(_ARCHITECTURES).index(machine)
    allowed = [numbers[column] for numbers in CALLS.values()]
    mapping = [numbers[column] for numbers in MAPPING_CALLS.values()]
    # A jump counts the steps that it passes over. The last four steps are: load the protection,
    # refuse if it is executable, allow, refuse.
    total = 3 + len(mapping) + len(allowed) + 1
    refuse_at, protection_at = total + 3, total
    allow_at = total + 2
    code = [(_LOAD, 0, 0, _ARCHITECTURE)]
    code.append((_EQUAL, 0, refuse_at - 2, _ARCHITECTURES[machine]))
    code.append((_LOAD, 0, 0, _NUMBER))
    for number in mapping:
        code.append((_EQUAL, protection_at - len(code) - 1, 0, number))
    for number in allowed:
        code.append((_EQUAL, allow_at - len(code) - 1, 0, number))
    code.append((_RETURN, 0, 0, _REFUSE))
    code.append((_LOAD, 0, 0, _PROTECTION))
    code.append((_HAS_BIT, 1, 0, _EXECUTABLE))
    code.append((_RETURN, 0, 0, _ALLOW))
    code.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("=HBBI", *step) for step in code)


def _prctl(what: int, value: int, program: bytes | None = None) -> None:
    third = ctypes.c_ulong(0) if program is None else program
    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(ctypes.c_int(what), ctypes.c_ulong(value), third, zero, zero)
