"""The journal: accepted requests on disk until their outcome has been written to stdout.

The directory is organised like a Maildir:

    lock                      held by the node that uses the journal
    engine                    names of the entries being decoded, see app/storage/crash_marker.py
    tmp/                      incomplete entries and entries being removed; emptied at start
    new/<entry>/body          the audio as it was received; never changed
    new/<entry>/request.json  the rest, see app/storage/record.py
    quarantine/<entry>/       entries that are not tried again, with a note.txt

An entry is made in tmp/, synced, and renamed into new/, so entries in new/ are always complete. An
entry's name begins with the time of receipt, so that names sort by age. It ends with the number of
crashes during its decoding, if there were any: `.1`, `.2`. The count is in the name because a
rename works even on a full disk.

Removal is a rename back to tmp/ and is not synced: after a power cut the entry may exist again,
which "at least once" allows. All methods run on the disk thread, except those that open and close.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.limits import MARK_SEPARATOR
from app.messages import JOURNAL_DAMAGED, QUARANTINED, Failure, Origin, Request
from app.storage import durable, old_entry, record
from app.storage.body import Body, load
from app.storage.crash_marker import CrashMarker
from app.storage.disk import Disk
from app.storage.private_copy import PrivateCopies
from app.storage.record import DamagedError, Record

MAX_CRASHES = 3
"""One crash can have another cause, an operator's kill for example; three are the file's fault."""

_DIGITS = 20
"""Digits of the timestamp (nanoseconds) in an entry's name."""

_NO_LIMIT = 1 << 62

_DIRECTORIES = ("tmp", "new", "quarantine")

_log = structlog.get_logger("journal")


class JournalError(Exception):
    """The directory cannot be used. `str()` is one line with the reason."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry that was read back."""

    entry: str
    request: Request
    origin: Origin
    body: Body


@dataclass(frozen=True, slots=True)
class Unusable:
    """An entry that will not be transcribed, with the failure to report."""

    entry: str
    request_id: str | None
    origin: Origin
    failure: Failure


class Journal:
    """The journal in `directory`, created if missing.

    Copies of bodies for the decoder are made in `directory`, or in `spool_dir` if the journal's
    file system has no space; together they take at most `max_copied_bytes`. Raises `JournalError`.
    """

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        spool_dir: Path | None = None,
        max_copied_bytes: int = _NO_LIMIT,
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._new = directory / "new"
        self.scratch = directory / "tmp"
        """The directory in which bodies are received."""
        self.copies = PrivateCopies(self.scratch, spool_dir, max_copied_bytes)
        try:
            self._lock = _locked(directory)
            self._clean()
            self.crash_marker = CrashMarker(directory / "engine")
            self._count_crash()
            self.entries_at_start = sorted(os.listdir(self._new))
            """The entries at start, oldest first."""
            self.entries = len(self.entries_at_start)
            """The number of entries now. Any thread may read it and `quarantined`."""
            self.quarantined = len(os.listdir(directory / "quarantine"))
            """The number of entries in quarantine now."""
        except BlockingIOError:
            reason = f"another node uses the journal {directory}; give each node its own"
            raise JournalError(reason) from None
        except OSError as error:
            reason = (
                f"the journal {directory} cannot be used ({error.strerror}): "
                "check --journal and the permissions"
            )
            raise JournalError(reason) from None

    def write(self, request: Request, origin: Origin, body: Body) -> str:
        """Write the request durably and return the entry's name.

        Raises `OSError`, in which case no files are left.
        """
        # The random part keeps names unique if the clock was set back.
        name = f"{max(0, int(origin.received_at * 1e9)):0{_DIGITS}d}-{secrets.token_hex(4)}"
        at = self.scratch / name
        at.mkdir(0o700)
        try:
            checksum = body.save(at / "body")
            data = record.encode(Record(request, origin, body.size, checksum))
            durable.write(at / "request.json", data)
            durable.sync(at)
            os.rename(at, self._new / name)
            self.entries += 1
        except BaseException:
            shutil.rmtree(at, ignore_errors=True)
            raise
        try:
            durable.sync(self._new)
        except OSError:
            # The rename may or may not have reached the disk. The client receives an error, so the
            # request must not run after a restart.
            self.remove(name)
            raise
        return name

    def load(self, entry: str) -> Stored | Unusable:
        """Read an entry back. Raises `OSError` if a retry may succeed.

        An unusable entry stays in new/ until its outcome is written; `quarantine` follows.
        """
        try:
            return self._load(entry)
        except DamagedError as error:
            origin = Origin("", received_at(entry), recovered=True)
            message = f"the journal entry {entry} is damaged: {error}; it is now in quarantine"
            return Unusable(entry, error.request_id, origin, Failure(JOURNAL_DAMAGED, message))

    def remove(self, entry: str) -> None:
        """Remove an entry whose outcome has been written. Raises `OSError`, in which case the
        request runs again after the next start."""
        os.rename(self._new / entry, self.scratch / entry)
        self.entries -= 1
        # Files that cannot be deleted now are deleted at the next start.
        shutil.rmtree(self.scratch / entry, ignore_errors=True)

    def quarantine(self, unusable: Unusable) -> None:
        """Move an entry whose outcome has been written to quarantine/. Raises `OSError`."""
        entry = unusable.entry
        os.rename(self._new / entry, self._directory / "quarantine" / entry)
        self.entries -= 1
        self.quarantined += 1
        note = (
            f"id: {unusable.request_id}\n"
            f"received: {_iso(unusable.origin.received_at)}\n"
            f"quarantined: {_iso(time.time())}\n"
            f"crashes: {crashes(entry)}\n"
            f"reason: {unusable.failure.code}: {unusable.failure.message}\n"
        )
        # The entry may have been placed there by hand, so its name may not be valid UTF-8.
        data = note.encode(errors="backslashreplace")
        durable.write(self._directory / "quarantine" / entry / "note.txt", data)

    def _load(self, entry: str) -> Stored | Unusable:
        at = self._new / entry
        try:
            stored = record.decode((at / "request.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedError("the file request.json is missing") from None
        if (count := crashes(entry)) >= MAX_CRASHES:
            message = (
                f"the node crashed {count} times while it worked on this request; "
                "it is now in quarantine"
            )
            failure = Failure(QUARANTINED, message)
            return Unusable(entry, stored.request.id, stored.origin, failure)
        try:
            old_entry.restore(at)
            body, checksum = load(at / "body", self._disk, self.copies)
        except FileNotFoundError:
            raise DamagedError("the file body is missing", stored.request.id) from None
        if (body.size, checksum) != (stored.size, stored.checksum):
            body.close()
            raise DamagedError("the body does not match its checksum", stored.request.id)
        return Stored(entry, stored.request, stored.origin, body)

    def close(self, clean: bool) -> None:
        """Release the journal. `clean` is True if the entry being decoded must not be blamed for a
        crash."""
        if clean:
            self.crash_marker.set("")
        self.crash_marker.close()
        os.close(self._lock)

    def _clean(self) -> None:
        for name in os.listdir(self.scratch):
            path = self.scratch / name
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            except OSError as error:
                _log.warning("cannot delete", file=str(path), error=error.strerror)

    def _count_crash(self) -> None:
        """Count a crash of the last process against the entries that it was decoding. Each of
        several is a suspect, and is decoded alone from now on, so the innocent ones are counted
        once."""
        marked = self.crash_marker.read().split(MARK_SEPARATOR)
        self.crash_marker.set("")
        for entry in os.listdir(self._new) if any(marked) else ():
            name = stem(entry)
            if name not in marked:
                continue
            count = crashes(entry) + 1
            _log.warning("the node crashed while it worked on this", entry=entry, crashes=count)
            try:
                os.rename(self._new / entry, self._new / f"{name}.{count}")
                durable.sync(self._new)
            except OSError as error:
                _log.error("cannot count the crash", entry=entry, error=error.strerror)


def stem(entry: str) -> str:
    """Return an entry's name without its crashes, as in the crash marker."""
    return entry.partition(".")[0]


def received_at(entry: str) -> float:
    """Return the time of receipt in seconds since the epoch; 0 if the name has none."""
    digits = entry.partition("-")[0]
    # The node never writes more digits; a longer number is not a valid time.
    return int(digits) / 1e9 if digits.isdecimal() and len(digits) <= _DIGITS else 0.0


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def crashes(entry: str) -> int:
    """Return how often the node crashed while it decoded an entry, by the entry's name."""
    count = entry.partition(".")[2]
    return int(count) if count.isdecimal() else 0


def _locked(directory: Path) -> int:
    """Make the directories that are missing, and return the descriptor that holds the lock."""
    for path in (directory, *(directory / name for name in _DIRECTORIES)):
        if not path.is_dir():
            path.mkdir(0o700)
            durable.sync(path.parent)
    path = directory / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # On a read-only file system accepted requests can still be transcribed.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
