"""Requests on disk from the moment they are accepted until their outcome has been written out.

A directory in the manner of Maildir:

    lock                      held by the node that uses the journal
    engine                    which entry is in the engine, see app/storage/crash_marker.py
    tmp/                      incomplete entries and entries being removed; emptied at start
    new/<entry>/body          the audio as it was received; never changed
    new/<entry>/request.json  the rest, see app/storage/record.py
    quarantine/<entry>/       entries that are not tried again, with a note.txt

An entry is made in tmp/, synced, and renamed into new/, so there it is always complete. Its name
begins with the time of receipt, so that names sort by age, and ends with the number of crashes with
it in the engine, if there were any: `.1`, `.2`. A rename needs no space on a full disk.

Removal is a rename back to tmp/ and is not synced: after a power cut an entry may be there again,
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
"""The nanoseconds in an entry's name have so many."""

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
    """An entry that is not transcribed (any more), with its outcome."""

    entry: str
    request_id: str | None
    origin: Origin
    failure: Failure


class Journal:
    """The journal in `directory`, which is made if it is missing.

    Copies of bodies for the decoder are made in `directory`, or in `spool_dir` where that has no
    space; together they take at most `max_copied_bytes`. Raises `JournalError`.
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
        """Bodies are received here."""
        self.copies = PrivateCopies(self.scratch, spool_dir, max_copied_bytes)
        try:
            self._lock = _locked(directory)
            self._clean()
            self.crash_marker = CrashMarker(directory / "engine")
            self._count_crash()
            self.left = sorted(os.listdir(self._new))
            """The entries at start, oldest first."""
            self.entries = len(self.left)
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

    def keep(self, request: Request, origin: Origin, body: Body) -> str:
        """Write the request to disk, safe from a power cut; the entry's name.

        Raises `OSError`, and then nothing of it is left.
        """
        # The random part keeps names apart where the clock was set back.
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
            # It may be on the medium or not. The client receives an error, so it must not be done.
            self.remove(name)
            raise
        return name

    def load(self, entry: str) -> Stored | Unusable:
        """Read an entry back. Raises `OSError` where a later try may succeed.

        An unusable entry stays where it is until its outcome is written; `quarantine` follows.
        """
        try:
            return self._load(entry)
        except DamagedError as error:
            origin = Origin("", received_at(entry), recovered=True)
            message = f"the journal entry {entry} is damaged: {error}; it is now in quarantine"
            return Unusable(entry, error.request_id, origin, Failure(JOURNAL_DAMAGED, message))

    def remove(self, entry: str) -> None:
        """Remove an entry, its outcome having been written. Raises `OSError`, and then the request
        is done again after the next start."""
        os.rename(self._new / entry, self.scratch / entry)
        self.entries -= 1
        # Files that cannot be deleted now are deleted at the next start.
        shutil.rmtree(self.scratch / entry, ignore_errors=True)

    def quarantine(self, unusable: Unusable) -> None:
        """Move an entry, its outcome having been written, out of the way. Raises `OSError`."""
        entry = unusable.entry
        os.rename(self._new / entry, self._directory / "quarantine" / entry)
        self.entries -= 1
        self.quarantined += 1
        note = (
            f"id: {unusable.request_id}\n"
            f"received: {_iso(unusable.origin.received_at)}\n"
            f"quarantined: {_iso(time.time())}\n"
            f"crashes: {_crashes(entry)}\n"
            f"reason: {unusable.failure.code}: {unusable.failure.message}\n"
        )
        # A person may have put the entry there, under any name.
        data = note.encode(errors="backslashreplace")
        durable.write(self._directory / "quarantine" / entry / "note.txt", data)

    def _load(self, entry: str) -> Stored | Unusable:
        at = self._new / entry
        try:
            kept = record.decode((at / "request.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedError("the file request.json is missing") from None
        if (crashes := _crashes(entry)) >= MAX_CRASHES:
            message = (
                f"the node crashed {crashes} times while it worked on this request; "
                "it is now in quarantine"
            )
            failure = Failure(QUARANTINED, message)
            return Unusable(entry, kept.request.id, kept.origin, failure)
        try:
            old_entry.restore(at)
            body, checksum = load(at / "body", self._disk, self.copies)
        except FileNotFoundError:
            raise DamagedError("the file body is missing", kept.request.id) from None
        if (body.size, checksum) != (kept.size, kept.checksum):
            body.close()
            raise DamagedError("the body does not match its checksum", kept.request.id)
        return Stored(entry, kept.request, kept.origin, body)

    def close(self, clean: bool) -> None:
        """Release the journal. `clean` if no crash is to be counted against the entry in the
        engine."""
        if clean:
            self.crash_marker.set("")
        self.crash_marker.close()
        os.close(self._lock)

    def _clean(self) -> None:
        for left in os.listdir(self.scratch):
            path = self.scratch / left
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            except OSError as error:
                _log.warning("cannot delete", file=str(path), error=error.strerror)

    def _count_crash(self) -> None:
        """Count a crash of the last process against the entry in its engine."""
        marked = self.crash_marker.read()
        self.crash_marker.set("")
        for entry in os.listdir(self._new) if marked else ():
            if stem(entry) != marked:
                continue
            crashes = _crashes(entry) + 1
            _log.warning("the node crashed while it worked on this", entry=entry, crashes=crashes)
            try:
                os.rename(self._new / entry, self._new / f"{marked}.{crashes}")
                durable.sync(self._new)
            except OSError as error:
                _log.error("cannot count the crash", entry=entry, error=error.strerror)


def stem(entry: str) -> str:
    """Return an entry's name without its crashes, as in the crash marker."""
    return entry.partition(".")[0]


def received_at(entry: str) -> float:
    """Return the time of receipt in seconds since the epoch; 0 if the name has none."""
    digits = entry.partition("-")[0]
    # The node writes no more; a larger number is no valid time.
    return int(digits) / 1e9 if digits.isdecimal() and len(digits) <= _DIGITS else 0.0


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _crashes(entry: str) -> int:
    count = entry.partition(".")[2]
    return int(count) if count.isdecimal() else 0


def _locked(directory: Path) -> int:
    """Make the directories that are missing; the descriptor that holds the lock."""
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
