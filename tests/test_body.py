"""Bodies in memory and in files: written, kept by the journal, patched, given back."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import HANG, eventually

from app.audio.patch import Patch
from app.storage.body import MEMORY_BYTES, Body, in_memory, load
from app.storage.disk import Disk
from app.storage.private_copy import PrivateCopies
from app.storage.spool import Spool

LARGE = MEMORY_BYTES + 1
PATCHES = (Patch(4, b"patched"), Patch(LARGE - 3, b"end"))


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(lambda: None)
    disk.start()
    yield disk
    assert disk.close(HANG)


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def run_completions(disk: Disk) -> None:
    for completion in disk.take_completions():
        completion()


def written(disk: Disk, body: Body) -> Body:
    """Return `body` once all of it is written."""

    def nothing_left() -> bool:
        run_completions(disk)
        return body.unwritten == 0

    eventually(nothing_left)
    return body


def on_disk(disk: Disk, task: Callable[[], object]) -> object:
    """Return the result of `task` on the disk thread, or the error that it raises there."""
    results: list[object] = []
    disk.submit(task, results.append)

    def came() -> bool:
        run_completions(disk)
        return bool(results)

    eventually(came)
    return results[0]


@pytest.fixture
def copies(tmp_path: Path) -> PrivateCopies:
    """Copies of journalled bodies, with space for two large ones."""
    return PrivateCopies(tmp_path, None, 2 * LARGE)


def fill(body: Body, data: bytes) -> None:
    for at in range(0, len(data), 65_536):
        body.write(memoryview(data)[at : at + 65_536])


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("size", [0, 1, MEMORY_BYTES, MEMORY_BYTES + 1])
def test_body_contains_the_written_bytes(
    tmp_path: Path, disk: Disk, size: int, declared: bool
) -> None:
    body = Spool(tmp_path, disk).create(size if declared else None)
    data = os.urandom(size)
    fill(body, data)
    assert written(disk, body).size == size
    assert content(body.fileno()) == data
    assert body.error is None
    body.close()


def test_large_body_has_no_name_in_its_directory(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path, disk).create(LARGE)
    body.write(b"x")
    written(disk, body)
    assert os.fstat(body.fileno()).st_dev == tmp_path.stat().st_dev
    assert os.fstat(body.fileno()).st_nlink == 0
    assert list(tmp_path.iterdir()) == []
    body.close()


def test_memory_is_written_at_once_and_a_file_by_the_disk_thread(
    tmp_path: Path, disk: Disk
) -> None:
    body = Spool(tmp_path, disk).create(None)
    fill(body, bytes(MEMORY_BYTES))
    assert body.unwritten == 0
    told: list[int] = []
    body.on_written = lambda: told.append(body.unwritten)
    body.write(b"ab")
    body.write(b"cd")
    # The bytes in memory go the same way.
    assert body.unwritten == MEMORY_BYTES + 4
    assert content(written(disk, body).fileno()) == bytes(MEMORY_BYTES) + b"abcd"
    assert told == [4, 2, 0]
    body.close()


def test_write_copies_the_callers_buffer(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path, disk).create(LARGE)
    buffer = bytearray(b"before")
    body.write(memoryview(buffer))
    buffer[:] = b"after."
    assert content(written(disk, body).fileno()) == b"before"
    body.close()


def test_large_body_without_its_directory_reports_an_error(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path / "gone", disk).create(LARGE)
    errors: list[Exception | None] = []
    body.on_written = lambda: errors.append(body.error)
    body.write(b"x")
    body.write(b"y")
    written(disk, body)
    assert isinstance(body.error, FileNotFoundError)
    assert errors == [body.error] * 2
    # It cannot be saved either, even if the error was not looked at.
    assert isinstance(on_disk(disk, lambda: body.save(tmp_path / "body")), FileNotFoundError)
    body.close()


def test_small_body_needs_no_directory(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path / "gone", disk).create(MEMORY_BYTES)
    body.write(b"x")
    assert (body.unwritten, body.error) == (0, None)
    body.close()


def test_write_raises_oserror_without_memory(tmp_path: Path, disk: Disk) -> None:
    body = Spool(tmp_path, disk).create(10)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, body.fileno())
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        body.write(b"x")
    assert body.size == 0
    body.close()


@pytest.mark.parametrize("size", [0, 1000, MEMORY_BYTES + 100_000])
def test_saved_body_is_loaded_unchanged(
    tmp_path: Path, disk: Disk, copies: PrivateCopies, size: int
) -> None:
    data = os.urandom(size)
    body = Spool(tmp_path, disk, copies).create(size)
    fill(body, data)
    path = tmp_path / "saved"
    checksum = on_disk(disk, lambda: body.save(path))
    assert checksum == zlib.crc32(data)
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == data
    # The worker still has it, and closing it does not remove the file.
    assert content(written(disk, body).fileno()) == data
    body.close()
    loaded = on_disk(disk, lambda: load(path, disk, copies))
    assert isinstance(loaded, tuple)
    again, found = loaded
    assert (again.size, found) == (size, checksum)
    assert content(again.fileno()) == data
    again.close()
    on_disk(disk, lambda: None)
    assert path.read_bytes() == data


# Patches.


def patched(data: bytes) -> bytes:
    for patch in PATCHES:
        data = data[: patch.position] + patch.data + data[patch.position + len(patch.data) :]
    return data


@pytest.mark.parametrize("size", [MEMORY_BYTES, LARGE])
def test_patch_changes_a_body_without_a_name_in_place(
    tmp_path: Path, disk: Disk, size: int
) -> None:
    body = Spool(tmp_path, disk).create(size)
    data = os.urandom(size)
    fill(body, data)
    descriptor = written(disk, body).fileno()
    at = Patch(size - 3, b"end")
    assert body.patch((at,)) == body.fileno() == descriptor
    assert content(descriptor) == data[:-3] + b"end"
    body.close()


def saved(tmp_path: Path, disk: Disk, copies: PrivateCopies, data: bytes) -> Body:
    """A large body that the journal has kept as the file `saved`."""
    body = Spool(tmp_path, disk, copies).create(None)
    fill(body, data)
    on_disk(disk, lambda: body.save(tmp_path / "saved"))
    return written(disk, body)


def loaded(tmp_path: Path, disk: Disk, copies: PrivateCopies) -> Body:
    found = on_disk(disk, lambda: load(tmp_path / "saved", disk, copies))
    assert isinstance(found, tuple)
    return found[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("recovered", [False, True])
def test_patch_never_changes_a_journalled_body(
    tmp_path: Path, disk: Disk, copies: PrivateCopies, recovered: bool
) -> None:
    data = os.urandom(LARGE)
    body = saved(tmp_path, disk, copies, data)
    if recovered:
        body.close()
        body = loaded(tmp_path, disk, copies)
    journalled = os.fstat(body.fileno())
    descriptor = body.patch(PATCHES)
    assert body.fileno() == descriptor
    assert not os.path.samestat(os.fstat(descriptor), journalled)
    assert os.fstat(descriptor).st_nlink == 0
    assert content(descriptor) == patched(data)
    # A second call uses the same copy.
    assert body.patch((Patch(0, b"x"),)) == descriptor
    assert content(descriptor)[:1] == b"x"
    body.close()
    on_disk(disk, lambda: None)
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]
    assert (tmp_path / "saved").read_bytes() == data


def test_loaded_large_body_cannot_be_written(
    tmp_path: Path, disk: Disk, copies: PrivateCopies
) -> None:
    saved(tmp_path, disk, copies, bytes(LARGE)).close()
    body = loaded(tmp_path, disk, copies)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(body.fileno(), b"x", 0)
    body.close()


def test_small_journalled_body_is_patched_in_memory(
    tmp_path: Path, disk: Disk, copies: PrivateCopies
) -> None:
    (tmp_path / "saved").write_bytes(bytes(1000))
    body = loaded(tmp_path, disk, copies)
    body.patch((Patch(4, b"patched"),))
    assert content(body.fileno())[:11] == bytes(4) + b"patched"
    assert (tmp_path / "saved").read_bytes() == bytes(1000)
    body.close()


def test_patch_raises_oserror_without_space_for_a_copy(tmp_path: Path, disk: Disk) -> None:
    copies = PrivateCopies(tmp_path, None, LARGE - 1)
    body = saved(tmp_path, disk, copies, bytes(LARGE))
    journalled = body.fileno()
    with pytest.raises(OSError, match="max-buffered-bytes"):
        body.patch(PATCHES)
    assert body.fileno() == journalled
    body.close()


def test_closed_body_gives_its_copy_back(tmp_path: Path, disk: Disk, copies: PrivateCopies) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        body = saved(tmp_path, disk, copies, bytes(LARGE))
        body.patch(PATCHES)
        body.close()
        body.close()
        on_disk(disk, lambda: None)
        (tmp_path / "saved").unlink()
    assert set(os.listdir("/proc/self/fd")) == before


def test_named_body_leaves_nothing_when_closed(
    tmp_path: Path, disk: Disk, copies: PrivateCopies
) -> None:
    body = Spool(tmp_path, disk, copies).create(LARGE)
    body.write(b"x")
    written(disk, body)
    assert len(list(tmp_path.iterdir())) == 1
    # Close it with bytes still unwritten.
    body.write(b"y")
    body.close()
    on_disk(disk, lambda: None)
    assert list(tmp_path.iterdir()) == []


def test_close_gives_descriptors_back_once(tmp_path: Path, disk: Disk) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for size in (1, LARGE):
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
