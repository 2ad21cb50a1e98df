"""Taking in what the journal held: oldest first, only as far as there is room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import PATIENCE, eventually
from structlog.testing import capture_logs

from app.disk import Disk
from app.journal import Journal, Stored, Unusable
from app.messages import Origin, Request
from app.recovery import Recovery
from app.spool import in_memory


class Taker:
    def __init__(self) -> None:
        self.taken: list[str | None] = []
        self.unusable: list[Unusable] = []

    def on_recovered(self, stored: Stored) -> None:
        self.taken.append(stored.request.id)
        stored.body.close()

    def on_unusable(self, unusable: Unusable) -> None:
        self.unusable.append(unusable)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(lambda: None)
    disk.start()
    yield disk
    assert disk.close(PATIENCE)


@pytest.fixture
def journal(tmp_path: Path, disk: Disk) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal", disk)
    for number in range(10):
        body = in_memory(b"audio")
        journal.keep(Request(id=str(number), content_length=5), Origin("p", 1000.0 + number), body)
        body.close()
    journal.close(clean=True)
    journal = Journal(tmp_path / "journal", disk)
    yield journal
    journal.close(clean=True)


def finish(recovery: Recovery, disk: Disk) -> None:
    def nothing_loading() -> bool:
        for completion in disk.take_completions():
            completion()
        return recovery.loading == 0

    eventually(nothing_loading)


def test_oldest_first_and_no_more_than_there_is_room(journal: Journal, disk: Disk) -> None:
    taker = Taker()
    recovery = Recovery(journal, disk, taker)
    recovery.take(0)
    assert (len(recovery), recovery.loading) == (10, 0)
    recovery.take(3)
    assert (len(recovery), recovery.loading) == (7, 3)
    finish(recovery, disk)
    assert taker.taken == ["0", "1", "2"]
    recovery.take(100)
    finish(recovery, disk)
    assert taker.taken == [str(number) for number in range(10)]
    assert len(recovery) == 0


def test_nothing_is_open_before_its_turn(journal: Journal, disk: Disk) -> None:
    before = set(os.listdir("/proc/self/fd"))
    recovery = Recovery(journal, disk, Taker())
    assert set(os.listdir("/proc/self/fd")) == before
    recovery.take(2)
    finish(recovery, disk)
    assert set(os.listdir("/proc/self/fd")) == before


def test_one_that_is_damaged_or_cannot_be_read_does_not_hold_up_the_others(
    journal: Journal, disk: Disk, tmp_path: Path
) -> None:
    (tmp_path / "journal" / "new" / journal.left[1] / "request.json").write_bytes(b"")
    unreadable = tmp_path / "journal" / "new" / journal.left[3] / "body"
    unreadable.unlink()
    unreadable.mkdir()
    taker = Taker()
    recovery = Recovery(journal, disk, taker)
    with capture_logs() as log:
        recovery.take(5)
        finish(recovery, disk)
    assert taker.taken == ["0", "2", "4"]
    assert [found.entry for found in taker.unusable] == [journal.left[1]]
    assert [(line["event"], line["entry"]) for line in log] == [
        ("left for the next start", journal.left[3])
    ]
