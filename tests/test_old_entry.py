"""Entries by an earlier version, which changed large bodies in place: read as received."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import HANG

from app.messages import Origin, Request
from app.storage.body import MEMORY_BYTES, in_memory
from app.storage.disk import Disk
from app.storage.journal import Journal, Stored
from app.storage.old_entry import restore

BODY = b"0123456789" * 10


def record(position: int, data: bytes) -> bytes:
    """A record of the `undo` file: position, length, and the bytes that were overwritten."""
    return struct.pack(">QI", position, len(data)) + data


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    (tmp_path / "body").write_bytes(BODY)
    return tmp_path


def overwrite(entry: Path, position: int, data: bytes) -> None:
    """Change the body beyond its head, like the earlier version."""
    old = (entry / "body").read_bytes()
    with (entry / "undo").open("ab") as undo:
        undo.write(record(position, old[position : position + len(data)]))
    (entry / "body").write_bytes(old[:position] + data + old[position + len(data) :])


def test_restore_puts_back_bytes_that_were_overwritten_twice(entry: Path) -> None:
    for position, data in ((20, b"first"), (22, b"second"), (90, b"x")):
        overwrite(entry, position, data)
    assert (entry / "body").read_bytes() != BODY
    for _ in range(2):
        restore(entry)
        assert (entry / "body").read_bytes() == BODY


@pytest.mark.parametrize("kept", [0, 1, 11, 12, 14])
def test_restore_ignores_a_record_that_broke_off(entry: Path, kept: int) -> None:
    """The process died while it wrote the record, and so before it changed the body."""
    overwrite(entry, 50, b"patched")
    with (entry / "undo").open("ab") as undo:
        undo.write(record(20, BODY[20:25])[:kept])
    restore(entry)
    assert (entry / "body").read_bytes() == BODY


def test_restore_puts_back_the_head(entry: Path) -> None:
    (entry / "head").write_bytes(BODY[:64])
    (entry / "body").write_bytes(b"RIFF" + BODY[4:])
    restore(entry)
    assert (entry / "body").read_bytes() == BODY


def test_restore_does_not_write_unchanged_bytes(entry: Path) -> None:
    (entry / "head").write_bytes(BODY[:64])
    (entry / "undo").write_bytes(record(70, BODY[70:80]))
    os.utime(entry / "body", (1, 1))
    restore(entry)
    assert (entry / "body").stat().st_mtime == 1


def test_restore_without_records_does_nothing(tmp_path: Path) -> None:
    restore(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(lambda: None)
    yield disk
    disk.start()
    assert disk.close(HANG)


def test_journal_loads_an_entry_whose_body_was_changed(tmp_path: Path, disk: Disk) -> None:
    journal = Journal(tmp_path / "journal", disk)
    data = os.urandom(MEMORY_BYTES + 1)
    body = in_memory(data)
    name = journal.write(Request(id="r", content_length=len(data)), Origin("p", 1000.0), body)
    body.close()
    journal.close(clean=True)
    entry = tmp_path / "journal" / "new" / name
    (entry / "head").write_bytes(data[:65_536])
    overwrite(entry, MEMORY_BYTES - 100, b"behind the head")
    (entry / "body").write_bytes(b"RIFF" + (entry / "body").read_bytes()[4:])

    journal = Journal(tmp_path / "journal", disk)
    found = journal.load(name)
    assert isinstance(found, Stored)
    assert os.pread(found.body.fileno(), found.body.size, 0) == data
    found.body.close()
    journal.close(clean=True)
