"""Prepares the file descriptors of the process. Main thread, once, at start."""

from __future__ import annotations

import os
import resource
import sys


def open_standard() -> None:
    """Open stdin, stdout and stderr on /dev/null if they are closed.

    Otherwise the next file or socket would get that number, and log lines would go to a client.
    """
    for number in range(3):
        if not _is_open(number):
            # open() takes the lowest free number, which is this one. Children inherit the standard
            # three.
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
    """Raise the soft limit to the hard one: each connection and each body takes a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
