"""The process's file descriptors, before anything uses them. Main thread, once, at the start."""

from __future__ import annotations

import os
import resource
import sys


def open_standard() -> None:
    """See that stdin, stdout and stderr are there.

    A process can be started without them. Then the next file or socket would get that number, and
    what is meant for stderr go to a peer.
    """
    for number in range(3):
        if not _is_open(number):
            # The lowest free number, which is this one. Inherited, as the three always are.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def raise_limit() -> None:
    """A connection is a descriptor and so is a body: take what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
