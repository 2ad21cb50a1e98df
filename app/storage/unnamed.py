"""Files without a name: nothing is left behind however the process ends, and no request can choose
a path."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def open_unnamed(directory: Path) -> int:
    """Return the descriptor of a new file in `directory`. Raises `OSError`."""
    # TemporaryFile uses O_TMPFILE where the file system has it, and unlinks at once elsewhere.
    with tempfile.TemporaryFile(dir=directory, prefix="node-whisper-") as file:
        return os.dup(file.fileno())


def open_memory() -> int:
    """Return the descriptor of a new file in memory. Raises `OSError`."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("node-whisper-body", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(prefix="node-whisper-") as file:
        return os.dup(file.fileno())
