"""Tunes how the C library keeps freed memory. Main thread, once, before the model is loaded."""

from __future__ import annotations

import ctypes

LARGE_BYTES = 8 << 20
"""Blocks of this size and larger return to the system when they are freed. glibc raises its own
threshold to the largest freed block (up to 32 MiB) and keeps smaller blocks, so that 50 MiB stayed
unused after a long window. The blocks of a short command are smaller and stay cached."""

_M_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of glibc's malloc.h."""


def give_large_blocks_back() -> None:
    """Set the threshold; a C library without `mallopt` (musl) is left as it is."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
