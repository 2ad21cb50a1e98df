"""Which engine this is: the package's wheel, or one that `scripts/build_engine` made for this CPU.

The script leaves a note beside the extension module, with the module's hash: where the two do not
match, pip has replaced the engine since and the note means nothing. Read once, at start.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_NOTE = "_pywhispercpp_build.json"


def describe(module: Path) -> str:
    """`wheel`, or `built here: ` and the recipe's name, for the extension module at `module`."""
    try:
        note = json.loads((module.parent / _NOTE).read_text())
        known = note["engine_sha256"] == hashlib.sha256(module.read_bytes()).hexdigest()
        recipe = str(note["recipe"])
    except (OSError, ValueError, KeyError, TypeError):
        return "wheel"
    return f"built here: {recipe}" if known else "wheel"
