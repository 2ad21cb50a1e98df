"""The C library's allocator: the sizes at which freed memory returns to the system.

glibc keeps freed blocks below a threshold for later allocations. Each of its settings holds for the
whole process. A C library without these functions (musl) is left as it is. Measured in
docs/lab-book.md ("Memory, part by part").
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

LARGE_BYTES = 8 << 20
"""Blocks of this size and larger return to the system when they are freed. glibc raises its own
threshold to the largest freed block (up to 32 MiB) and keeps smaller blocks, so that 50 MiB stayed
unused after a long window. The blocks of a short command are smaller and stay cached."""

LASTING_BYTES = 256 << 10
"""The threshold for blocks that live as long as a loaded model. whisper.cpp asks for zeros and uses
few of them. In memory that the process has used before, they take up 10 MiB; in new memory, 2."""

_M_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of glibc's malloc.h."""

_LIBRARY = ctypes.CDLL(None)


def give_large_blocks_back() -> None:
    """Set the threshold for the whole process. Main thread, once, before the model is loaded."""
    _set_threshold(LARGE_BYTES)


@contextmanager
def lasting_blocks() -> Iterator[None]:
    """Allocate blocks of `LASTING_BYTES` and more in new memory, which is returned when they are
    freed. Any thread."""
    _set_threshold(LASTING_BYTES)
    try:
        yield
    finally:
        _set_threshold(LARGE_BYTES)


def trim() -> None:
    """Return free memory to the system, which takes 1 to 20 ms. Any thread."""
    if malloc_trim := getattr(_LIBRARY, "malloc_trim", None):
        malloc_trim(0)


def _set_threshold(size: int) -> None:
    if mallopt := getattr(_LIBRARY, "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, size)
