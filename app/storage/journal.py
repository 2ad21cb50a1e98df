"""Requests on disk from the moment they are accepted until their outcome has been written out.

A directory in the manner of Maildir:

    lock                      held by the node that uses it
    engine                    which entry is in the engine, see app/storage/crash_marker.py
    tmp/                      what is not complete, or on its way out; emptied at start
    new/<entry>/body          the audio as it came
    new/<entry>/request.json  the rest, see app/storage/record.py
    new/<entry>/head          the body's first bytes, where the engine reads the body itself
    new/<entry>/undo          what the decoder has mended behind those, as it was
    quarantine/<entry>/       what is not tried again, with a note.txt

An entry is made in tmp/, synced, and renamed into new/: there it is complete or not at all. Its
name begins with the time it was received, so that names sort by age, and ends, once the process has
died over it, in how often: `.1`, `.2`. A rename needs no room on a full disk.

Leaving is a rename back to tmp/ and is not synced: after a power cut an entry may be there again,
which "at least once" allows. All methods are the disk thread's, but those that open and close.
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
from app.storage import durable, record
from app.storage.body import Body, load
from app.storage.crash_marker import CrashMarker
from app.storage.disk import Disk
from app.storage.record import DamagedError, Record

MAX_DEATHS = 3
"""Once may be chance, a power cut of the supply or an operator's kill; three times is the file."""

_DIGITS = 20
"""Of the nanoseconds in an entry's name."""

_DIRECTORIES = ("tmp", "new", "quarantine")

_log = structlog.get_logger("journal")


class JournalError(Exception):
    """The directory cannot be used. `str()` is one line that says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry that was read back."""

    entry: str
    request: Request
    origin: Origin
    body: Body


@dataclass(frozen=True, slots=True)
class Unusable:
    """An entry that is not worked on (any more), with its outcome."""

    entry: str
    request_id: str | None
    origin: Origin
    failure: Failure


class Journal:
    """The journal in `directory`, which is made if it is missing. Raises `JournalError`."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self._new = directory / "new"
        self.scratch = directory / "tmp"
        """For bodies that are being received."""
        try:
            self._lock = _locked(directory)
            self._clean()
            self.mark = CrashMarker(directory / "engine")
            self._blame()
            self.left = sorted(os.listdir(self._new))
            """What was there at start, oldest first."""
            self.entries = len(self.left)
            """How many there are now. To be looked at from any thread, as is `quarantined`."""
            self.quarantined = len(os.listdir(directory / "quarantine"))
            """How many lay in quarantine at start, and were put there since."""
        except BlockingIOError:
            raise JournalError(f"another node uses the journal {directory}") from None
        except OSError as error:
            reason = f"the journal {directory} cannot be used: {error.strerror}"
            raise JournalError(reason) from None

    def keep(self, request: Request, origin: Origin, body: Body) -> str:
        """Have the request on disk, safe from a power cut; the entry's name. Raises `OSError`, and
        then nothing of it is there."""
        # Never twice, also where the clock has been set back.
        name = f"{max(0, int(origin.received_at * 1e9)):0{_DIGITS}d}-{secrets.token_hex(4)}"
        at = self.scratch / name
        at.mkdir(0o700)
        try:
            checksum = body.save(at / "body")
            if head := body.head:
                durable.write(at / "head", head)
            data = record.encode(Record(request, origin, body.size, checksum))
            durable.write(at / "request.json", data)
            durable.sync(at)
            os.rename(at, self._new / name)
            body.lies_in(self._new / name)
            self.entries += 1
        except BaseException:
            shutil.rmtree(at, ignore_errors=True)
            raise
        try:
            durable.sync(self._new)
        except OSError:
            # It may be there or not; who is told that it is not must not find it done.
            self.remove(name)
            raise
        return name

    def load(self, entry: str) -> Stored | Unusable:
        """Read an entry back. Raises `OSError` where that may be the medium's mood of the moment.

        What is unusable stays where it is until its outcome is written; then it is quarantined.
        """
        try:
            return self._load(entry)
        except DamagedError as error:
            origin = Origin("", received_at(entry), recovered=True)
            message = f"the journal's entry {entry} is damaged: {error}; see its quarantine"
            return Unusable(entry, error.request_id, origin, Failure(JOURNAL_DAMAGED, message))

    def remove(self, entry: str) -> None:
        """The entry's outcome is written. Raises `OSError`, and then it is done again after the
        next start."""
        os.rename(self._new / entry, self.scratch / entry)
        self.entries -= 1
        # What is left of it there is swept at the next start.
        shutil.rmtree(self.scratch / entry, ignore_errors=True)

    def quarantine(self, unusable: Unusable) -> None:
        """The entry's outcome is written: put it where it is not tried again. Raises `OSError`."""
        entry = unusable.entry
        os.rename(self._new / entry, self._directory / "quarantine" / entry)
        self.entries -= 1
        self.quarantined += 1
        note = (
            f"id: {unusable.request_id}\n"
            f"received: {_iso(unusable.origin.received_at)}\n"
            f"quarantined: {_iso(time.time())}\n"
            f"deaths: {_deaths(entry)}\n"
            f"reason: {unusable.failure.code}: {unusable.failure.message}\n"
        )
        # Whoever put it there may have called it anything.
        data = note.encode(errors="backslashreplace")
        durable.write(self._directory / "quarantine" / entry / "note.txt", data)

    def _load(self, entry: str) -> Stored | Unusable:
        at = self._new / entry
        try:
            kept = record.decode((at / "request.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedError("there is no request") from None
        if (deaths := _deaths(entry)) >= MAX_DEATHS:
            message = f"the node died {deaths} times while it worked on this; see its quarantine"
            failure = Failure(QUARANTINED, message)
            return Unusable(entry, kept.request.id, kept.origin, failure)
        try:
            head = (at / "head").read_bytes() if (at / "head").exists() else b""
            body, checksum = load(at / "body", head, self._disk)
        except FileNotFoundError:
            raise DamagedError("there is no body", kept.request.id) from None
        if (body.size, checksum) != (kept.size, kept.checksum):
            body.close()
            raise DamagedError("the body does not fit its checksum", kept.request.id)
        return Stored(entry, kept.request, kept.origin, body)

    def close(self, clean: bool) -> None:
        """Let another node have it. `clean` if nothing in the engine is to blame."""
        if clean:
            self.mark.set("")
        self.mark.close()
        os.close(self._lock)

    def _clean(self) -> None:
        for left in os.listdir(self.scratch):
            path = self.scratch / left
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            except OSError as error:
                _log.warning("cannot be cleaned up", file=str(path), error=error.strerror)

    def _blame(self) -> None:
        """Count a death of the process for what was in its engine."""
        guilty = self.mark.read()
        self.mark.set("")
        for entry in os.listdir(self._new) if guilty else ():
            if stem(entry) != guilty:
                continue
            deaths = _deaths(entry) + 1
            _log.warning("the node died while it worked on this", entry=entry, deaths=deaths)
            try:
                os.rename(self._new / entry, self._new / f"{guilty}.{deaths}")
                durable.sync(self._new)
            except OSError as error:
                _log.error("the death cannot be counted", error=error.strerror)


def stem(entry: str) -> str:
    """An entry's name without its deaths: what marks it."""
    return entry.partition(".")[0]


def received_at(entry: str) -> float:
    """When the entry was received, in seconds since the epoch; 0 where its name does not say."""
    digits = entry.partition("-")[0]
    # As many as the node writes: with more of them it is no time that there will be.
    return int(digits) / 1e9 if digits.isdecimal() and len(digits) <= _DIGITS else 0.0


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _deaths(entry: str) -> int:
    count = entry.partition(".")[2]
    return int(count) if count.isdecimal() else 0


def _locked(directory: Path) -> int:
    """The directories, made where they are missing; the descriptor that holds the lock."""
    for path in (directory, *(directory / name for name in _DIRECTORIES)):
        if not path.is_dir():
            path.mkdir(0o700)
            durable.sync(path.parent)
    path = directory / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # On a read-only file system what was accepted can still be done.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
