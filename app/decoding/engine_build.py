"""The origin of the engine: the package's wheel, or `scripts/build_engine`.

The script writes a note into the extension module's folder, with the module's hash. If the hash
differs, pip has replaced the engine since, and the note is ignored. Read once, at start.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_NOTE = "_pywhispercpp_build.json"


def describe(module: Path) -> str:
    """Return `wheel`, or `built here: ` and the recipe's name, for an extension module."""
    try:
        note = json.loads((module.parent / _NOTE).read_text())
        known = note["engine_sha256"] == hashlib.sha256(module.read_bytes()).hexdigest()
        recipe = str(note["recipe"])
    except (OSError, ValueError, KeyError, TypeError):
        return "wheel"
    return f"built here: {recipe}" if known else "wheel"
