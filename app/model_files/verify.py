"""Compare a model file with the published one, and remember the result.

A file is compared by its size and every hash in its entry. Hashing 3 GB at each start would take
longer than the rest of the start. So a verified file is noted with its size, modification time and
inode, beside the model or in the user's cache. The note is replaced whole, so that several
processes may read and write it; if one loses a note, its file is hashed once more. Standard library
only; reads and blocks on the caller's thread.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.model_files.entry import Entry


def matches(entry: Entry, path: Path) -> bool:
    """Return whether `path` is byte for byte the entry's file: its size, then every known hash.
    Reads all of it; `verified` remembers the result."""
    if entry.size is not None and path.stat().st_size != entry.size:
        return False
    # Imported here because it loads OpenSSL; a node whose model was verified before skips it.
    import hashlib

    hashes = [(hashlib.new(kind), digest) for kind, digest in entry.digests]
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            for state, _ in hashes:
                state.update(chunk)
    return bool(hashes) and all(state.hexdigest() == digest for state, digest in hashes)


def verified(entry: Entry, path: Path) -> bool:
    """Like `matches`, but a file that was verified before and is unchanged since (size,
    modification time, inode) is not read again."""
    if remembered(entry, path):
        return True
    stamp = _stamp(entry, path)
    if not matches(entry, path):
        return False
    # A file that changed while it was read is not noted; the next check hashes it again.
    if stamp == _stamp(entry, path):
        _remember(path, stamp)
    return True


def remembered(entry: Entry, path: Path) -> bool:
    """Return whether `path` was verified before and is unchanged since; reads no model data."""
    stamp = _stamp(entry, path)
    return any(_load(store).get(key) == stamp for store, key in _stores(path))


def _stamp(entry: Entry, path: Path) -> list[Any]:
    status = path.stat()
    # The digests belong to it: a check against an older catalogue must not count.
    return [status.st_size, status.st_mtime_ns, status.st_ino, *(d for _, d in entry.digests)]


def _stores(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files for notes and the key in each, best first: beside the model, or in the
    user's cache if that directory cannot be written."""
    yield path.parent / ".verified.json", path.name
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield Path(cache) / "node-whisper" / "verified.json", str(path.resolve())


def _load(store: Path) -> dict[str, Any]:
    try:
        found = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # missing or damaged: the files are hashed again
    return found if isinstance(found, dict) else {}


def settle(entry: Entry, temporary: Path, path: Path) -> None:
    """Rename a verified file into place, its data synced first: after a power cut the name must
    have the whole file or none."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _remember(path, _stamp(entry, path))


def _remember(path: Path, stamp: list[Any]) -> None:
    # Imported here: a node whose model was verified before writes no note.
    import tempfile

    for store, key in _stores(path):
        temporary: str | None = None
        try:
            store.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=store.parent, prefix=".verified-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(handle, 0o644)  # root fetches, and the service's user reads
                json.dump({**_load(store), key: stamp}, file, indent=1)
            os.replace(temporary, store)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            continue
        return
