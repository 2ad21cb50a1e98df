"""How the C library keeps what was freed. Main thread, once, before the model is loaded."""

from __future__ import annotations

import ctypes

LARGE_BYTES = 8 << 20
"""A block from here on is the system's again once it is freed. glibc raises its own limit to the
largest block it has seen (up to 32 MiB), and keeps what is smaller: after a long window 50 MiB that
nobody used stayed with the node. The blocks of every command are smaller, and are kept."""

_M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""


def give_large_blocks_back() -> None:
    """Does nothing where the C library is none that can be told so."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
