"""Extracts: private files with parts of a body, for a decoder that reads only whole files.

Pure but for the files; worker thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

Parts = Iterable[tuple[int, int]]
"""Position and length of each part, in bytes."""

Extractor = Callable[[Parts, int], int]
"""A function that copies parts of a body into a new file without a name, and returns its
descriptor for the caller to close. The number is the most bytes that the parts can have. Raises
`OSError` without space."""


def in_memory(descriptor: int, parts: Parts) -> int:
    """Copy parts of a file into a new one in memory; return its descriptor. Raises `OSError`."""
    target = os.memfd_create("node-whisper-extract", os.MFD_CLOEXEC)
    return copy_parts(descriptor, target, parts)


def copy_parts(source: int, target: int, parts: Parts) -> int:
    """Append parts of `source` to `target`, within the kernel, and return `target`; it is closed if
    that fails. Raises `OSError`."""
    try:
        for position, length in parts:
            _append(source, target, position, length)
    except BaseException:
        os.close(target)
        raise
    return target


def _append(source: int, target: int, position: int, length: int) -> None:
    while length > 0:
        count = os.sendfile(target, source, position, length)
        if count == 0:
            return
        position, length = position + count, length - count
