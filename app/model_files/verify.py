"""Whether a file is byte for byte the one that was published, and the memory of having looked.

A file is known by its size and every hash in its entry. Hashing 3 GB at each start would take
longer than anything else, so what was found right is noted with its size, modification time and
inode, beside the model or in the user's cache. The note is replaced whole, so that several
processes may read and write it; the loser's note is lost and its file hashed once more.
Standard library only; reads and blocks on the caller's thread.
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
    """Whether `path` is byte for byte the entry's file: its size, then every hash known.
    Reads it all, at about 0.5 GB/s on the machine this was written on; `verified` remembers."""
    if entry.size is not None and path.stat().st_size != entry.size:
        return False
    # Imported here, as it brings OpenSSL: a node whose model was verified before has no use for it.
    import hashlib

    hashes = [(hashlib.new(kind), digest) for kind, digest in entry.digests]
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            for state, _ in hashes:
                state.update(chunk)
    return bool(hashes) and all(state.hexdigest() == digest for state, digest in hashes)


def verified(entry: Entry, path: Path) -> bool:
    """Like `matches`, but a file found right before and unchanged since (size, modification
    time, inode) is not read again."""
    if remembered(entry, path):
        return True
    stamp = _stamp(entry, path)
    if not matches(entry, path):
        return False
    # A file that changed while it was read is not remembered; the next look hashes it again.
    if stamp == _stamp(entry, path):
        _remember(path, stamp)
    return True


def remembered(entry: Entry, path: Path) -> bool:
    """Whether `path` was verified before and is unchanged since; reads no model data."""
    stamp = _stamp(entry, path)
    return any(_load(store).get(key) == stamp for store, key in _stores(path))


def _stamp(entry: Entry, path: Path) -> list[Any]:
    status = path.stat()
    # The digests too: a corrected catalogue must not be satisfied by an older check.
    return [status.st_size, status.st_mtime_ns, status.st_ino, *(d for _, d in entry.digests)]


def _stores(path: Path) -> Iterator[tuple[Path, str]]:
    """Where a check may be noted, best first, and under which key: beside the model, or in
    the user's cache when that directory cannot be written."""
    yield path.parent / ".verified.json", path.name
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield Path(cache) / "node-whisper" / "verified.json", str(path.resolve())


def _load(store: Path) -> dict[str, Any]:
    try:
        found = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # missing or damaged: the files are hashed again, no more than that
    return found if isinstance(found, dict) else {}


def settle(entry: Entry, temporary: Path, path: Path) -> None:
    """Rename a verified file into place, its bytes on the disk first: after a power cut
    there must be the whole file under this name or none."""
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
                os.fchmod(handle, 0o644)  # root fetches, the service's user reads
                json.dump({**_load(store), key: stamp}, file, indent=1)
            os.replace(temporary, store)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            continue
        return
