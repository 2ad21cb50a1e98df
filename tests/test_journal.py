"""The journal on a real directory: whole or not at all, oldest first, never a fourth try."""

from __future__ import annotations

import json
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import PATIENCE, pcm
from structlog.testing import capture_logs

from app.audio.stream import AudioStream
from app.messages import QUARANTINED, Failure, Origin, Request
from app.output.lines import json_line
from app.storage.body import MEMORY_BYTES, Body, Spool, in_memory
from app.storage.disk import Disk
from app.storage.journal import (
    MAX_DEATHS,
    Journal,
    JournalError,
    Stored,
    Unusable,
    received_at,
    stem,
)

OPEN = Callable[[], Journal]


def request(number: int = 0) -> Request:
    return Request(id=f"r{number}", content_length=5, prompt="p", token="t")


def origin(seconds: float = 1_700_000_000.5) -> Origin:
    return Origin("127.0.0.1:1", seconds, "wyoming")


@pytest.fixture
def disk() -> Iterator[Disk]:
    # It is not started: everything happens on this thread.
    disk = Disk(lambda: None)
    yield disk
    disk.start()
    assert disk.close(PATIENCE)


@pytest.fixture
def again(tmp_path: Path, disk: Disk) -> Iterator[OPEN]:
    """Opens the journal, each time as a new process would find it after the last one's death."""
    opened: list[Journal] = []

    def reopen() -> Journal:
        if opened:
            opened[-1].close(clean=False)
        opened.append(Journal(tmp_path / "journal", disk))
        return opened[-1]

    yield reopen
    if opened:
        opened[-1].close(clean=True)


def keep(journal: Journal, number: int = 0, seconds: float = 1_700_000_000.5) -> str:
    body = in_memory(b"audio")
    try:
        return journal.keep(request(number), origin(seconds), body)
    finally:
        body.close()


def content(body: Body) -> bytes:
    return os.pread(body.fileno(), body.size, 0)


def names(tmp_path: Path, part: str) -> list[str]:
    return sorted(os.listdir(tmp_path / "journal" / part))


def stored(journal: Journal, entry: str) -> Stored:
    loaded = journal.load(entry)
    assert isinstance(loaded, Stored)
    return loaded


def unusable(journal: Journal, entry: str) -> Unusable:
    loaded = journal.load(entry)
    assert isinstance(loaded, Unusable)
    return loaded


def test_what_was_kept_is_there_after_the_process_died(again: OPEN, tmp_path: Path) -> None:
    entry = keep(again())
    journal = again()
    assert journal.left == [entry]
    found = stored(journal, entry)
    assert found.request == Request(id="r0", content_length=5, prompt="p")
    assert found.origin == Origin("127.0.0.1:1", 1_700_000_000.5, "wyoming", recovered=True)
    assert content(found.body) == b"audio"
    found.body.close()
    assert names(tmp_path, "tmp") == []


def test_an_entry_that_is_removed_is_gone(again: OPEN, tmp_path: Path) -> None:
    journal = again()
    entry = keep(journal)
    journal.remove(entry)
    assert [names(tmp_path, part) for part in ("tmp", "new", "quarantine")] == [[], [], []]
    assert again().left == []


def test_oldest_first_whatever_the_order_of_arrival(again: OPEN) -> None:
    journal = again()
    times = [1_700_000_100.0, 5.0, 1_700_000_000.0, 0.0, 1_699_999_999.999]
    entries = {seconds: keep(journal, seconds=seconds) for seconds in times}
    assert again().left == [entries[seconds] for seconds in sorted(times)]
    assert [round(received_at(entry), 3) for entry in again().left] == sorted(times)


def test_two_of_the_same_moment_are_two(again: OPEN) -> None:
    journal = again()
    assert len({keep(journal, number) for number in range(20)}) == 20
    assert len(again().left) == 20


def test_everything_is_synced_before_it_has_its_name(
    again: OPEN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = again()
    steps: list[str] = []

    def spy(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object) -> object:
            at = arguments[0]
            path = os.readlink(f"/proc/self/fd/{at}") if isinstance(at, int) else str(at)
            steps.append(f"{name} {re.sub('[0-9]{20}-[0-9a-f]+', 'ENTRY', Path(path).name)}")
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "fdatasync", "rename"):
        spy(name)
    keep(journal)
    assert steps == [
        "fdatasync body",
        "fsync request.json",
        "fsync ENTRY",
        "rename ENTRY",
        "fsync new",
    ]


def test_it_knows_how_many_there_are(again: OPEN) -> None:
    def count(journal: Journal) -> tuple[int, int]:
        return journal.entries, journal.quarantined

    journal = again()
    assert count(journal) == (0, 0)
    first, second = keep(journal, 1), keep(journal, 2)
    assert count(journal) == (2, 0)
    journal = again()
    assert count(journal) == (2, 0)
    journal.remove(first)
    failure = Failure(QUARANTINED, "for the test")
    journal.quarantine(Unusable(second, "r2", origin(), failure))
    assert count(journal) == (0, 1)
    keep(journal, 3)
    assert count(again()) == (1, 1)


def test_it_is_private(again: OPEN, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        keep(again())
    finally:
        os.umask(old)
    for path in (tmp_path / "journal").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_two_nodes_cannot_share_it(again: OPEN, tmp_path: Path, disk: Disk) -> None:
    again()
    with pytest.raises(JournalError, match="another node"):
        Journal(tmp_path / "journal", disk)


@pytest.mark.parametrize("what", ["a file", "no parent"])
def test_a_directory_that_cannot_be_used(tmp_path: Path, disk: Disk, what: str) -> None:
    path = tmp_path / "x"
    if what == "a file":
        path.write_text("")
    else:
        path = path / "y"
    with pytest.raises(JournalError, match="cannot be used"):
        Journal(path, disk)


def test_what_was_not_complete_is_swept(again: OPEN, tmp_path: Path) -> None:
    again()
    tmp = tmp_path / "journal" / "tmp"
    (tmp / "00000000000000000001-00000000").mkdir()
    (tmp / "00000000000000000001-00000000" / "body").write_bytes(b"x")
    (tmp / "body-abc").write_bytes(b"x")
    again()
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize("step", ["fdatasync", "fsync", "rename", "mkdir"])
def test_where_the_disk_refuses_nothing_is_left(
    again: OPEN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    journal = again()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(OSError, match="No space left"):
        keep(journal)
    monkeypatch.undo()
    assert [names(tmp_path, part) for part in ("tmp", "new")] == [[], []]
    assert journal.entries == 0
    assert keep(journal)


def test_a_sync_that_fails_at_the_very_end_leaves_nothing_either(
    again: OPEN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = again()
    real = os.fsync

    def refuse_new(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/new"):
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_new)
    with pytest.raises(OSError, match="Input/output"):
        keep(journal)
    assert [names(tmp_path, part) for part in ("tmp", "new")] == [[], []]
    assert journal.entries == 0


# Damage.


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [cut, empty, flip, Path.unlink])
@pytest.mark.parametrize("file", ["body", "request.json"])
def test_what_is_damaged_has_an_outcome_and_goes_to_quarantine(
    again: OPEN, tmp_path: Path, file: str, harm: Callable[[Path], None]
) -> None:
    entry = keep(again())
    harm(tmp_path / "journal" / "new" / entry / file)
    journal = again()
    found = unusable(journal, entry)
    assert found.failure.code == "journal_damaged"
    assert entry in found.failure.message
    lost = file == "request.json" and harm in (empty, Path.unlink)
    assert found.request_id == (None if lost else "r0")
    assert found.origin.recovered
    assert round(found.origin.received_at, 3) == 1_700_000_000.5
    # Not before its outcome is written.
    assert names(tmp_path, "new") == [entry]
    journal.quarantine(found)
    assert names(tmp_path, "new") == []
    note = (tmp_path / "journal" / "quarantine" / entry / "note.txt").read_text()
    assert f"id: {found.request_id}\n" in note
    assert "received: 2023-11-14T22:13:20Z\n" in note
    assert "journal_damaged" in note
    assert again().left == []


@pytest.mark.parametrize("name", ["lost+found", "x.9", "", "00000000000000000001-00000000.x"])
def test_what_else_lies_there_is_damaged(again: OPEN, tmp_path: Path, name: str) -> None:
    again()
    name = name or "a file"
    path = tmp_path / "journal" / "new" / name
    path.write_text("x") if name == "a file" else path.mkdir()
    found = unusable(again(), name)
    assert (found.failure.code, found.request_id) == ("journal_damaged", None)


def test_the_mood_of_a_medium_is_not_damage(
    again: OPEN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = again()
    entry = keep(journal)

    def refuse(self: Path) -> bytes:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        journal.load(entry)


# Deaths.


def test_three_deaths_with_it_in_the_engine_and_it_is_not_tried_again(
    again: OPEN, tmp_path: Path
) -> None:
    journal = again()
    entry, other = keep(journal, 1), keep(journal, 2)
    for deaths in range(MAX_DEATHS):
        assert stored(journal, entry).request.id == "r1"
        journal.mark.set(stem(entry))
        with capture_logs() as log:
            journal = again()
        entry = next(name for name in journal.left if stem(name) == stem(entry))
        assert entry == f"{stem(entry)}.{deaths + 1}"
        assert [line["deaths"] for line in log] == [deaths + 1]
    found = unusable(journal, entry)
    assert (found.request_id, found.failure.code) == ("r1", "quarantined")
    assert found.origin.recovered
    journal.quarantine(found)
    note = json.dumps((tmp_path / "journal" / "quarantine" / entry / "note.txt").read_text())
    assert f"deaths: {MAX_DEATHS}" in note
    assert "id: r1" in note
    assert again().left == [other]
    assert stored(again(), other).request.id == "r2"


def test_a_death_with_nothing_in_the_engine_counts_for_nobody(again: OPEN) -> None:
    journal = again()
    entry = keep(journal)
    for _ in range(5):
        journal = again()
    journal.mark.set(stem(entry))
    journal.mark.set("")
    assert again().left == [entry]


def test_a_death_counts_once(again: OPEN) -> None:
    journal = again()
    entry = keep(journal)
    journal.mark.set(entry)
    for _ in range(3):
        assert again().left == [f"{entry}.1"]


def test_a_mark_of_what_is_done_counts_for_nobody(again: OPEN) -> None:
    journal = again()
    entry, other = keep(journal), keep(journal)
    journal.mark.set(entry)
    journal.remove(entry)
    assert again().left == [other]


def test_a_clean_end_is_no_death(again: OPEN, tmp_path: Path, disk: Disk) -> None:
    journal = Journal(tmp_path / "journal", disk)
    entry = keep(journal)
    journal.mark.set(entry)
    journal.close(clean=True)
    assert again().left == [entry]


def test_a_death_that_cannot_be_counted_does_not_keep_it_from_starting(
    again: OPEN, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = again()
    entry = keep(journal)
    journal.mark.set(entry)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", refuse)
    with capture_logs() as log:
        assert again().left == [entry]
    assert "the death cannot be counted" in [line["event"] for line in log]


def test_a_mark_that_cannot_be_written_is_told_once(
    again: OPEN, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = again()

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "pwrite", refuse)
    with capture_logs() as log:
        for name in ("a", "b", ""):
            journal.mark.set(name)
    assert len(log) == 1


def test_a_large_body_is_kept_and_read_where_it_lies(tmp_path: Path) -> None:
    disk = Disk(lambda: None)
    journal = Journal(tmp_path / "journal", disk)
    body = Spool(journal.scratch, disk, named=True).create(None)
    data = os.urandom(MEMORY_BYTES + 1)
    body.write(data)
    kept: list[object] = []
    disk.submit(lambda: kept.append(journal.keep(request(), origin(), body)))
    # What mends a header does it in the journal's own file.
    disk.submit(lambda: os.pwrite(body.fileno(), b"mended", 4))
    disk.start()
    assert disk.close(PATIENCE)
    [entry] = kept
    at = tmp_path / "journal" / "new" / str(entry) / "body"
    assert names(tmp_path, "tmp") == []
    assert at.stat().st_size == len(data)
    found = stored(journal, str(entry)).body
    assert os.path.samestat(os.fstat(found.fileno()), at.stat())
    assert content(found) == data
    os.close(found.fileno())
    os.close(body.fileno())
    journal.close(clean=True)


def test_a_header_mended_far_behind_the_beginning_is_read_back_as_it_came(tmp_path: Path) -> None:
    """Or the accepted audio would be damaged for the process that takes it up."""
    disk = Disk(lambda: None)
    journal = Journal(tmp_path / "journal", disk)
    body = Spool(journal.scratch, disk, named=True).create(None)
    # As a recorder leaves it that cannot seek back, behind a chunk that is longer than the head.
    samples = pcm(MEMORY_BYTES // 2)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    junk = b"junk" + struct.pack("<I", 100_000) + bytes(100_000)
    open_end = b"data" + struct.pack("<I", 0xFFFFFFFF)
    data = b"RIFF\xff\xff\xff\xffWAVE" + form + junk + open_end + samples
    body.write(data)
    kept: list[str] = []
    disk.submit(lambda: kept.append(journal.keep(request(), origin(), body)))
    disk.start()
    assert disk.close(PATIENCE)
    at = tmp_path / "journal" / "new" / kept[0] / "body"
    for _ in range(2):
        AudioStream(body.fileno(), body.size, None, 3600.0, body.mend).close()
        assert at.read_bytes()[100_000:] != data[100_000:]
        os.close(body.fileno())
        body = stored(journal, kept[0]).body
        assert content(body) == data
    os.close(body.fileno())
    journal.close(clean=True)


def test_where_that_cannot_be_noted_the_audio_is_done_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(lambda: None)
    journal = Journal(tmp_path / "journal", disk)
    body = Spool(journal.scratch, disk, named=True).create(None)
    body.write(bytes(MEMORY_BYTES + 1))
    disk.submit(lambda: journal.keep(request(), origin(), body))
    disk.start()
    assert disk.close(PATIENCE)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.storage.undo.note", refuse)
    with capture_logs() as log:
        for _ in range(2):
            body.mend(body.fileno(), b"mended", MEMORY_BYTES - 10)
    assert len(log) == 1
    assert os.pread(body.fileno(), 6, MEMORY_BYTES - 10) == b"mended"
    os.close(body.fileno())
    journal.close(clean=True)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"9" * 30, b"20261123-old", "märz".encode()])
def test_what_somebody_else_put_there_has_a_line_and_is_put_aside(
    again: OPEN, tmp_path: Path, name: bytes
) -> None:
    """Whatever it is called: the disk thread must not end over it."""
    journal = again()
    entry = os.fsdecode(name)
    (tmp_path / "journal" / "new" / entry).mkdir()
    found = journal.load(entry)
    assert isinstance(found, Unusable)
    assert json.loads(json_line(None, found.origin, found.failure))["recovered"] is True
    journal.quarantine(found)
    assert names(tmp_path, "new") == []
    assert (tmp_path / "journal" / "quarantine" / entry / "note.txt").is_file()


@pytest.mark.parametrize("name", [b"\xff\xfe", "märz".encode()])
def test_an_entry_may_have_been_given_any_name(again: OPEN, tmp_path: Path, name: bytes) -> None:
    journal = again()
    entry = os.fsdecode(name)
    kept = keep(journal)
    (tmp_path / "journal" / "new" / kept).rename(tmp_path / "journal" / "new" / entry)
    journal.mark.set(stem(entry))
    assert again().left == [f"{entry}.1"]
