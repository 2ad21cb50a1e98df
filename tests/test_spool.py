"""Where bodies wait: in memory or in a file without a name, a descriptor either way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.spool import MEMORY_BYTES, Spool


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


@pytest.mark.parametrize("size", [0, 1, MEMORY_BYTES, MEMORY_BYTES + 1])
def test_what_is_written_is_there(tmp_path: Path, size: int) -> None:
    body = Spool(tmp_path).create(size)
    data = os.urandom(size)
    for at in range(0, size, 65_536):
        body.write(memoryview(data)[at : at + 65_536])
    assert body.size == size
    assert content(body.fileno()) == data
    body.close()


def test_a_large_body_lies_in_the_directory_and_leaves_nothing(tmp_path: Path) -> None:
    body = Spool(tmp_path).create(MEMORY_BYTES + 1)
    body.write(b"x")
    assert os.fstat(body.fileno()).st_dev == tmp_path.stat().st_dev
    assert os.fstat(body.fileno()).st_nlink == 0
    assert list(tmp_path.iterdir()) == []
    body.close()
    assert list(tmp_path.iterdir()) == []


def test_a_small_body_needs_no_directory(tmp_path: Path) -> None:
    Spool(tmp_path / "gone").create(MEMORY_BYTES).close()


def test_a_large_body_without_its_directory_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Spool(tmp_path / "gone").create(MEMORY_BYTES + 1)


def test_a_full_disk_is_an_oserror() -> None:
    body = Spool(Path("/var/tmp")).create(10)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, body.fileno())
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        body.write(b"x")
    assert body.size == 0
    body.close()


def test_descriptors_are_given_back_once(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for size in (1, MEMORY_BYTES + 1):
        body = Spool(tmp_path).create(size)
        descriptor = body.fileno()
        assert not os.get_inheritable(descriptor)
        body.close()
        body.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    assert set(os.listdir("/proc/self/fd")) == before
