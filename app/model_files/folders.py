"""The folder that models are kept in: the clone's, or the user's cache for an installed package.

Standard library only in a clone, because `scripts/download_model.py` runs before anything is
installed. Any thread.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the package `app`: the clone, the image's `/app`, or site-packages."""


def is_installed(root: Path = ROOT) -> bool:
    """Tell whether `app` was installed as a package: pip then leaves its metadata beside it.

    An editable install counts as the clone.
    """
    return any(root.glob("node_whisper-*.dist-info"))


def models_folder(root: Path = ROOT) -> Path:
    """Return `models/` beside `app` or, for an installed package, the user's cache directory.

    The cache directory is that of the XDG Base Directory Specification 0.8.
    """
    if not is_installed(root):
        return root / "models"
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a relative path.
    folder = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    return folder / "node-whisper" / "models"
