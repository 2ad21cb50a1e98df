"""Recovery of the journal's entries: oldest first, as far as the quota admits them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import HANG, eventually
from structlog.testing import capture_logs

from app.messages import Failure, Origin, Request
from app.requests.in_flight import InFlight
from app.requests.quota import Quota
from app.sources.journal import JournalSource
from app.storage.body import Body, in_memory
from app.storage.disk import Disk
from app.storage.journal import Journal


class Rest:
    """Dispatch and outcomes in one: records the entries that recovery hands over."""

    def __init__(self) -> None:
        self.taken: list[InFlight] = []
        self.failures: list[tuple[str | None, str]] = []
        self.behind = False
        self.freed = 0

    def submit(self, in_flight: InFlight, body: Body) -> None:
        self.taken.append(in_flight)
        body.close()

    def record(
        self, request_id: str | None, origin: Origin, failure: Failure, written: Callable[[], None]
    ) -> None:
        self.failures.append((request_id, failure.code))
        written()

    def on_free(self) -> None:
        self.freed += 1


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(lambda: None)
    disk.start()
    yield disk
    assert disk.close(HANG)


@pytest.fixture
def journal(tmp_path: Path, disk: Disk) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal", disk)
    for number in range(10):
        body = in_memory(b"audio")
        journal.write(Request(id=str(number), content_length=5), Origin("p", 1000.0 + number), body)
        body.close()
    journal.close(clean=True)
    journal = Journal(tmp_path / "journal", disk)
    yield journal
    journal.close(clean=True)


@pytest.fixture
def rest() -> Rest:
    return Rest()


@pytest.fixture
def quota() -> Quota:
    return Quota(6, 1 << 20)


@pytest.fixture
def recovery(journal: Journal, disk: Disk, rest: Rest, quota: Quota) -> JournalSource:
    fakes: Any = rest
    return JournalSource(
        journal,
        disk,
        quota=quota,
        dispatch=fakes,
        outcomes=fakes,
        numbers=itertools.count(1),
        on_free=rest.on_free,
    )


def finish(disk: Disk) -> None:
    """Wait until every recovered entry is done."""
    done: list[None] = []
    disk.submit(lambda: None, lambda _: done.append(None))

    def all_done() -> bool:
        for completion in disk.take_completions():
            completion()
        return bool(done)

    eventually(all_done)


def test_entries_are_admitted_oldest_first_and_take_half_of_the_places(
    recovery: JournalSource, rest: Rest, quota: Quota, disk: Disk
) -> None:
    for round_ in range(4):
        recovery.take()
        recovery.take()
        finish(disk)
        taken = rest.taken[3 * round_ :]
        assert [in_flight.request.id for in_flight in taken] == [
            str(number) for number in range(3 * round_, min(3 * round_ + 3, 10))
        ]
        assert all(
            in_flight.client.durable and not in_flight.client.cancellable for in_flight in taken
        )
        assert (quota.admitted, len(recovery)) == (len(taken), max(0, 7 - 3 * round_))
        for in_flight in taken:
            quota.release(in_flight.number)
    assert quota.admitted == 0


def test_no_entry_is_admitted_without_a_place_or_with_a_stdout_backlog(
    recovery: JournalSource, rest: Rest, quota: Quota
) -> None:
    rest.behind = True
    recovery.take()
    assert len(recovery) == 10
    rest.behind = False
    for number in range(100, 105):
        quota.enqueue(number, f"client-{number}", 10)
        assert quota.admit_next() == number
    recovery.take()
    assert (len(recovery), quota.admitted) == (9, 6)


def test_no_entry_is_open_before_it_is_admitted(
    journal: Journal, recovery: JournalSource, disk: Disk
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    assert len(recovery) == 10
    recovery.take()
    finish(disk)
    assert set(os.listdir("/proc/self/fd")) == before


def test_unusable_entry_gives_up_its_place(
    journal: Journal,
    recovery: JournalSource,
    rest: Rest,
    quota: Quota,
    disk: Disk,
    tmp_path: Path,
) -> None:
    (tmp_path / "journal" / "new" / journal.entries_at_start[0] / "request.json").write_bytes(b"")
    unreadable = tmp_path / "journal" / "new" / journal.entries_at_start[2] / "body"
    unreadable.unlink()
    unreadable.mkdir()
    with capture_logs() as log:
        recovery.take()
        finish(disk)
    assert [in_flight.request.id for in_flight in rest.taken] == ["1"]
    assert rest.failures == [(None, "journal_damaged")]
    assert (tmp_path / "journal" / "quarantine" / journal.entries_at_start[0]).is_dir()
    assert [(line["event"], line["entry"]) for line in log] == [
        ("cannot read; kept for the next start", journal.entries_at_start[2])
    ]
    assert (quota.admitted, rest.freed) == (1, 2)
