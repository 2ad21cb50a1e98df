"""The folder where tests keep downloads that are too large to repeat for every run."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(
    os.environ.get("NODE_WHISPER_TEST_CACHE") or Path.home() / ".cache" / "node-whisper-tests"
)
