"""Where bodies wait: in memory or in a file without a name, a descriptor either way."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import PATIENCE, eventually

from app.storage.body import HEAD_BYTES, MEMORY_BYTES, Body, Spool, in_memory, load
from app.storage.disk import Disk


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(lambda: None)
    disk.start()
    yield disk
    assert disk.close(PATIENCE)


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def run_completions(disk: Disk) -> None:
    for completion in disk.take_completions():
        completion()


def written(disk: Disk, body: Body) -> Body:
    """`body`, once nothing of it is on its way."""

    def nothing_left() -> bool:
        run_completions(disk)
        return body.unwritten == 0

    eventually(nothing_left)
    return body


def on_disk(disk: Disk, task: Callable[[], object]) -> object:
    """What `task` returns on the disk's thread, or the error it raises there."""
    results: list[object] = []
    disk.submit(task, results.append)

    def came() -> bool:
        run_completions(disk)
        return bool(results)

    eventually(came)
    return results[0]


def fill(body: Body, data: bytes) -> None:
    for at in range(0, len(data), 65_536):
        body.write(memoryview(data)[at : at + 65_536])


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("size", [0, 1, MEMORY_BYTES, MEMORY_BYTES + 1])
def test_what_is_written_is_there(tmp_path: Path, disk: Disk, size: int, declared: bool) -> None:
    body = Spool(tmp_path, disk).create(size if declared else None)
    data = os.urandom(size)
    fill(body, data)
    assert written(disk, body).size == size
    assert content(body.fileno()) == data
    assert body.error is None
    body.close()


def test_a_large_body_lies_in_the_directory_and_leaves_nothing(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path, disk).create(MEMORY_BYTES + 1)
    body.write(b"x")
    written(disk, body)
    assert os.fstat(body.fileno()).st_dev == tmp_path.stat().st_dev
    assert os.fstat(body.fileno()).st_nlink == 0
    assert list(tmp_path.iterdir()) == []
    body.close()


def test_memory_is_written_at_once_and_a_file_behind_the_caller(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path, disk).create(None)
    fill(body, bytes(MEMORY_BYTES))
    assert body.unwritten == 0
    told: list[int] = []
    body.on_written = lambda: told.append(body.unwritten)
    body.write(b"ab")
    body.write(b"cd")
    # What was in memory goes the same way.
    assert body.unwritten == MEMORY_BYTES + 4
    assert content(written(disk, body).fileno()) == bytes(MEMORY_BYTES) + b"abcd"
    assert told == [4, 2, 0]
    body.close()


def test_the_callers_buffer_may_change(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path, disk).create(MEMORY_BYTES + 1)
    buffer = bytearray(b"before")
    body.write(memoryview(buffer))
    buffer[:] = b"after."
    assert content(written(disk, body).fileno()) == b"before"
    body.close()


def test_a_large_body_without_its_directory_is_told_behind_the_caller(
    tmp_path: Path, disk: Disk
) -> None:
    body = Spool(tmp_path / "gone", disk).create(MEMORY_BYTES + 1)
    errors: list[Exception | None] = []
    body.on_written = lambda: errors.append(body.error)
    body.write(b"x")
    body.write(b"y")
    written(disk, body)
    assert isinstance(body.error, FileNotFoundError)
    assert errors == [body.error] * 2
    # It cannot be saved either, also if nobody has looked.
    assert isinstance(on_disk(disk, lambda: body.save(tmp_path / "body")), FileNotFoundError)
    body.close()


def test_a_small_body_needs_no_directory(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path / "gone", disk).create(MEMORY_BYTES)
    body.write(b"x")
    assert (body.unwritten, body.error) == (0, None)
    body.close()


def test_no_memory_is_an_oserror(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path, disk).create(10)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, body.fileno())
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        body.write(b"x")
    assert body.size == 0
    body.close()


@pytest.mark.parametrize("size", [0, 1000, MEMORY_BYTES + 100_000])
def test_a_saved_body_comes_back(tmp_path: Path, disk: Disk, size: int) -> None:
    data = os.urandom(size)
    body = Spool(tmp_path, disk, named=True).create(size)
    fill(body, data)
    path = tmp_path / "saved"
    checksum = on_disk(disk, lambda: body.save(path))
    assert checksum == zlib.crc32(data)
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == data
    # Who works on it still has it, and its end is not the end of what was saved.
    assert content(written(disk, body).fileno()) == data
    head = on_disk(disk, lambda: body.head)
    assert head == (data[:HEAD_BYTES] if size > MEMORY_BYTES else b"")
    body.close()
    loaded = on_disk(disk, lambda: load(path, head, disk))  # type: ignore[arg-type]
    assert isinstance(loaded, tuple)
    again, found = loaded
    assert (again.size, found) == (size, checksum)
    assert content(again.fileno()) == data
    again.close()
    on_disk(disk, lambda: None)
    assert path.read_bytes() == data


@pytest.mark.parametrize("size", [1000, MEMORY_BYTES + 1])
def test_a_header_that_was_mended_is_as_it_came_when_it_is_loaded_again(
    tmp_path: Path, disk: Disk, size: int
) -> None:
    data = os.urandom(size)
    path = tmp_path / "saved"
    path.write_bytes(data)
    head = data[:HEAD_BYTES]
    for _ in range(3):
        loaded = on_disk(disk, lambda: load(path, head, disk))
        assert isinstance(loaded, tuple)
        body, checksum = loaded
        assert checksum == zlib.crc32(data)
        os.pwrite(body.fileno(), b"mended", 40)
        body.close()


def test_a_named_body_that_is_given_up_leaves_nothing(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path, disk, named=True).create(MEMORY_BYTES + 1)
    body.write(b"x")
    written(disk, body)
    assert len(list(tmp_path.iterdir())) == 1
    # With bytes still on their way.
    body.write(b"y")
    body.close()
    on_disk(disk, lambda: None)
    assert list(tmp_path.iterdir()) == []


def test_descriptors_are_given_back_once(tmp_path: Path, disk: Disk) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for size in (1, MEMORY_BYTES + 1):
        body = Spool(tmp_path, disk).create(size)
        body.write(b"x")
        descriptor = written(disk, body).fileno()
        assert not os.get_inheritable(descriptor)
        body.close()
        body.close()
        on_disk(disk, lambda: None)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    in_memory(b"x").close()
    assert set(os.listdir("/proc/self/fd")) == before
