"""The journal on a real directory: entries are complete or absent, sorted by age, and never tried a
fourth time."""

from __future__ import annotations

import json
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import HANG, Node, eventually, frame, pcm, text_or_code
from structlog.testing import capture_logs

from app.audio.stream import AudioError, AudioStream
from app.messages import QUARANTINED, Failure, Origin, Request
from app.output.lines import json_line
from app.storage import private_copy
from app.storage.body import MEMORY_BYTES, Body, in_memory
from app.storage.disk import Disk
from app.storage.journal import (
    MAX_CRASHES,
    Journal,
    JournalError,
    Stored,
    Unusable,
    received_at,
    stem,
)
from app.storage.spool import Spool

OPEN = Callable[[], Journal]


def request(number: int = 0) -> Request:
    return Request(id=f"r{number}", content_length=5, prompt="p", token="t")


def origin(seconds: float = 1_700_000_000.5) -> Origin:
    return Origin("127.0.0.1:1", seconds, "wyoming")


@pytest.fixture
def disk() -> Iterator[Disk]:
    # The thread is not started: everything runs on the thread of the test.
    disk = Disk(lambda: None)
    yield disk
    disk.start()
    assert disk.close(HANG)


@pytest.fixture
def again(tmp_path: Path, disk: Disk) -> Iterator[OPEN]:
    """Open the journal like a new process after a crash of the last one."""
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
        return journal.write(request(number), origin(seconds), body)
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


def test_kept_entry_survives_a_crash(again: OPEN, tmp_path: Path) -> None:
    entry = keep(again())
    journal = again()
    assert journal.entries_at_start == [entry]
    found = stored(journal, entry)
    assert found.request == Request(id="r0", content_length=5, prompt="p")
    assert found.origin == Origin("127.0.0.1:1", 1_700_000_000.5, "wyoming", recovered=True)
    assert content(found.body) == b"audio"
    found.body.close()
    assert names(tmp_path, "tmp") == []


def test_removed_entry_is_deleted(again: OPEN, tmp_path: Path) -> None:
    journal = again()
    entry = keep(journal)
    journal.remove(entry)
    assert [names(tmp_path, part) for part in ("tmp", "new", "quarantine")] == [[], [], []]
    assert again().entries_at_start == []


def test_entries_are_sorted_by_age(again: OPEN) -> None:
    journal = again()
    times = [1_700_000_100.0, 5.0, 1_700_000_000.0, 0.0, 1_699_999_999.999]
    entries = {seconds: keep(journal, seconds=seconds) for seconds in times}
    assert again().entries_at_start == [entries[seconds] for seconds in sorted(times)]
    assert [round(received_at(entry), 3) for entry in again().entries_at_start] == sorted(times)


def test_entries_of_the_same_moment_have_different_names(again: OPEN) -> None:
    journal = again()
    assert len({keep(journal, number) for number in range(20)}) == 20
    assert len(again().entries_at_start) == 20


def test_entry_is_synced_before_it_is_renamed(
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


def test_journal_counts_its_entries(again: OPEN) -> None:
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


def test_files_are_private_to_their_owner(again: OPEN, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        keep(again())
    finally:
        os.umask(old)
    for path in (tmp_path / "journal").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_journal_rejects_a_second_node(again: OPEN, tmp_path: Path, disk: Disk) -> None:
    again()
    with pytest.raises(JournalError, match="another node"):
        Journal(tmp_path / "journal", disk)


@pytest.mark.parametrize("what", ["a file", "no parent"])
def test_journal_rejects_an_unusable_directory(tmp_path: Path, disk: Disk, what: str) -> None:
    path = tmp_path / "x"
    if what == "a file":
        path.write_text("")
    else:
        path = path / "y"
    with pytest.raises(JournalError, match="cannot be used"):
        Journal(path, disk)


def test_incomplete_entries_are_deleted_at_start(again: OPEN, tmp_path: Path) -> None:
    again()
    tmp = tmp_path / "journal" / "tmp"
    (tmp / "00000000000000000001-00000000").mkdir()
    (tmp / "00000000000000000001-00000000" / "body").write_bytes(b"x")
    (tmp / "body-abc").write_bytes(b"x")
    again()
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize("step", ["fdatasync", "fsync", "rename", "mkdir"])
def test_keep_leaves_nothing_after_a_disk_error(
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


def test_keep_leaves_nothing_after_an_error_of_the_last_sync(
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
def test_damaged_entry_has_an_outcome_and_goes_to_quarantine(
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
    assert again().entries_at_start == []


@pytest.mark.parametrize("name", ["lost+found", "x.9", "", "00000000000000000001-00000000.x"])
def test_foreign_file_is_reported_as_damaged(again: OPEN, tmp_path: Path, name: str) -> None:
    again()
    name = name or "a file"
    path = tmp_path / "journal" / "new" / name
    path.write_text("x") if name == "a file" else path.mkdir()
    found = unusable(again(), name)
    assert (found.failure.code, found.request_id) == ("journal_damaged", None)


def test_load_raises_oserror_if_a_later_try_may_succeed(
    again: OPEN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = again()
    entry = keep(journal)

    def refuse(self: Path) -> bytes:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        journal.load(entry)


# Crashes.


def test_entry_is_quarantined_after_three_crashes_with_it_in_the_engine(
    again: OPEN, tmp_path: Path
) -> None:
    journal = again()
    entry, other = keep(journal, 1), keep(journal, 2)
    for crashes in range(MAX_CRASHES):
        assert stored(journal, entry).request.id == "r1"
        journal.crash_marker.set(stem(entry))
        with capture_logs() as log:
            journal = again()
        entry = next(name for name in journal.entries_at_start if stem(name) == stem(entry))
        assert entry == f"{stem(entry)}.{crashes + 1}"
        assert [line["crashes"] for line in log] == [crashes + 1]
    found = unusable(journal, entry)
    assert (found.request_id, found.failure.code) == ("r1", "quarantined")
    assert found.origin.recovered
    journal.quarantine(found)
    note = json.dumps((tmp_path / "journal" / "quarantine" / entry / "note.txt").read_text())
    assert f"crashes: {MAX_CRASHES}" in note
    assert "id: r1" in note
    assert again().entries_at_start == [other]
    assert stored(again(), other).request.id == "r2"


def test_crash_with_an_idle_engine_is_not_counted(again: OPEN) -> None:
    journal = again()
    entry = keep(journal)
    for _ in range(5):
        journal = again()
    journal.crash_marker.set(stem(entry))
    journal.crash_marker.set("")
    assert again().entries_at_start == [entry]


def test_crash_is_counted_once(again: OPEN) -> None:
    journal = again()
    entry = keep(journal)
    journal.crash_marker.set(entry)
    for _ in range(3):
        assert again().entries_at_start == [f"{entry}.1"]


def test_crash_after_an_entry_was_removed_is_not_counted(again: OPEN) -> None:
    journal = again()
    entry, other = keep(journal), keep(journal)
    journal.crash_marker.set(entry)
    journal.remove(entry)
    assert again().entries_at_start == [other]


def test_clean_end_is_not_counted_as_a_crash(again: OPEN, tmp_path: Path, disk: Disk) -> None:
    journal = Journal(tmp_path / "journal", disk)
    entry = keep(journal)
    journal.crash_marker.set(entry)
    journal.close(clean=True)
    assert again().entries_at_start == [entry]


def test_journal_starts_if_a_crash_cannot_be_counted(
    again: OPEN, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = again()
    entry = keep(journal)
    journal.crash_marker.set(entry)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", refuse)
    with capture_logs() as log:
        assert again().entries_at_start == [entry]
    assert "cannot count the crash" in [line["event"] for line in log]


def test_crash_marker_logs_a_write_error_once(again: OPEN, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = again()

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "pwrite", refuse)
    with capture_logs() as log:
        for name in ("a", "b", ""):
            journal.crash_marker.set(name)
    assert len(log) == 1


def kept_large(journal: Journal, disk: Disk, data: bytes) -> tuple[Body, str]:
    """A large body and its entry. Starts the disk thread and ends it."""
    body = Spool(journal.scratch, disk, journal.copies).create(None)
    body.write(data)
    kept: list[str] = []
    disk.submit(lambda: kept.append(journal.write(request(), origin(), body)))
    disk.start()
    assert disk.close(HANG)
    return body, kept[0]


def test_large_body_is_kept_without_a_copy(tmp_path: Path) -> None:
    disk = Disk(lambda: None)
    journal = Journal(tmp_path / "journal", disk)
    data = os.urandom(MEMORY_BYTES + 1)
    body, entry = kept_large(journal, disk, data)
    at = tmp_path / "journal" / "new" / entry
    assert names(tmp_path, "tmp") == []
    assert sorted(os.listdir(at)) == ["body", "request.json"]
    found = stored(journal, entry).body
    assert os.path.samestat(os.fstat(found.fileno()), (at / "body").stat())
    assert os.path.samestat(os.fstat(body.fileno()), (at / "body").stat())
    assert content(found) == data
    os.close(found.fileno())
    os.close(body.fileno())
    journal.close(clean=True)


def streamed_wav(samples: bytes, before: int = 0) -> bytes:
    """A WAV by a recorder that states no length, with a chunk of `before` bytes in front."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    junk = b"junk" + struct.pack("<I", before) + bytes(before) if before else b""
    return b"RIFF\0\0\0\0WAVE" + form + junk + b"data\0\0\0\0" + samples


@pytest.mark.parametrize("before", [0, 100_000])
def test_decoder_never_changes_a_journalled_body(tmp_path: Path, before: int) -> None:
    """The process that recovers the entry finds the bytes that were accepted."""
    disk = Disk(lambda: None)
    journal = Journal(tmp_path / "journal", disk)
    samples = pcm(MEMORY_BYTES // 2)
    data = streamed_wav(samples, before)
    body, entry = kept_large(journal, disk, data)
    at = tmp_path / "journal" / "new" / entry / "body"
    for _ in range(2):
        stream = AudioStream(body.fileno(), body.size, None, 3600.0, body.patch)
        assert stream.declared_seconds == len(samples) / 32_000
        block = stream.read()
        assert block is not None
        assert np.sqrt(np.mean(block**2)) > 0.3
        stream.close()
        assert at.read_bytes() == data
        body.close()
        body = stored(journal, entry).body
        assert content(body) == data
    body.close()
    journal.close(clean=True)


def test_stream_fails_with_no_space_without_space_for_a_copy(tmp_path: Path) -> None:
    disk = Disk(lambda: None)
    journal = Journal(tmp_path / "journal", disk, max_copied_bytes=MEMORY_BYTES)
    body, _ = kept_large(journal, disk, streamed_wav(bytes(MEMORY_BYTES)))
    with pytest.raises(AudioError) as caught:
        AudioStream(body.fileno(), body.size, None, 3600.0, body.patch)
    assert caught.value.failure.code == "no_space"
    assert caught.value.failure.retry_after_seconds == 60.0
    assert "max-buffered-bytes" in caught.value.failure.message
    body.close()
    journal.close(clean=True)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"9" * 30, b"20261123-old", "märz".encode()])
def test_foreign_directory_has_an_outcome_and_goes_to_quarantine(
    again: OPEN, tmp_path: Path, name: bytes
) -> None:
    """Under any name: it must not stop the disk thread."""
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
def test_crash_is_counted_under_any_name(again: OPEN, tmp_path: Path, name: bytes) -> None:
    journal = again()
    entry = os.fsdecode(name)
    kept = keep(journal)
    (tmp_path / "journal" / "new" / kept).rename(tmp_path / "journal" / "new" / entry)
    journal.crash_marker.set(stem(entry))
    assert again().entries_at_start == [f"{entry}.1"]


# In a node.

NO_LENGTH = streamed_wav(pcm(MEMORY_BYTES // 2 + 1000))


def send(node: Node, body: bytes) -> list[str | None]:
    """The replies to a file."""
    header = {
        "byteorder": "little",
        "content-type": "binary/wav",
        "content-encoding": "wav",
        "content-length": len(body),
        "id": "a",
    }
    with node.connect() as client:
        client.send(frame(header, body))
        return [text_or_code(reply) for reply in client.replies()]


def test_node_transcribes_a_repaired_copy_and_keeps_the_body(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    node = make_node(journal=tmp_path / "journal")
    node.lines.flowing.clear()
    [text] = send(node, NO_LENGTH)
    assert text is not None
    assert sum(int(part) for part in text.split()) == MEMORY_BYTES // 2 + 1000
    [entry] = names(tmp_path, "new")
    assert (tmp_path / "journal" / "new" / entry / "body").read_bytes() == NO_LENGTH
    assert names(tmp_path, "tmp") == []
    node.lines.flowing.set()
    node.disk.nudge()
    assert node.lines.wait_for("a")["status"] == "ok"


def test_node_replies_no_space_if_the_disk_is_full_for_a_copy(
    make_node: Callable[..., Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(private_copy, "_clone", lambda _source, _target: False)
    monkeypatch.setattr(os, "posix_fallocate", full)
    node = make_node(journal=tmp_path / "journal")
    assert send(node, NO_LENGTH) == ["no_space"]
    line = node.lines.wait_for("a")
    assert line["error"]["retry_after_seconds"] == 60.0
    assert "No space left on device" in line["error"]["message"]
    eventually(lambda: names(tmp_path, "new") == [])
    # A file that libsndfile reads as it is needs no copy.
    [text] = send(node, NO_LENGTH.replace(b"data\0\0\0\0", b"data\xff\xff\xff\xff", 1))
    assert text is not None
    assert sum(int(part) for part in text.split()) == MEMORY_BYTES // 2 + 1000
