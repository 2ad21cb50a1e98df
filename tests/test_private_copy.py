"""Private copies of journalled bodies: cloned if the file system can, otherwise with their bytes
reserved; never beyond the capacity; gone when closed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.storage import private_copy
from app.storage.private_copy import PrivateCopies

DATA = os.urandom(300_000)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "body").write_bytes(DATA)
    with open(tmp_path / "body", "rb") as file:
        yield file.fileno()


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size + 1, 0)


@pytest.fixture
def no_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system whose files cannot share blocks."""
    monkeypatch.setattr(private_copy, "_clone", lambda _source, _target: False)


@pytest.mark.usefixtures("no_clone")
def test_copy_holds_the_bytes_and_has_no_name(tmp_path: Path, source: int) -> None:
    os.lseek(source, 5, os.SEEK_SET)
    copy = PrivateCopies(tmp_path, None, 1 << 20).make(source, len(DATA))
    assert content(copy.descriptor) == DATA
    assert copy.size == len(DATA)
    assert os.lseek(source, 0, os.SEEK_CUR) == 5
    assert os.fstat(copy.descriptor).st_nlink == 0
    assert [file.name for file in tmp_path.iterdir()] == ["body"]
    copy.close()


@pytest.mark.usefixtures("no_clone")
def test_copy_is_made_in_several_steps(
    tmp_path: Path, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_copy, "_COPY_BYTES", 1000)
    copy = PrivateCopies(tmp_path, None, 1 << 20).make(source, len(DATA))
    assert content(copy.descriptor) == DATA
    copy.close()


@pytest.mark.usefixtures("no_clone")
def test_copies_together_stay_within_the_capacity(tmp_path: Path, source: int) -> None:
    copies = PrivateCopies(tmp_path, None, 2 * len(DATA))
    first, second = (copies.make(source, len(DATA)) for _ in range(2))
    with pytest.raises(OSError, match="max-buffered-bytes") as caught:
        copies.make(source, len(DATA))
    assert caught.value.errno == errno.ENOSPC
    copies.release(first)
    third = copies.make(source, len(DATA))
    for copy in (first, second, third):
        copy.close()


@pytest.mark.usefixtures("no_clone")
def test_bytes_are_reserved_before_any_is_copied(
    tmp_path: Path, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def copied(*_: object) -> int:
        raise AssertionError("bytes were copied")

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(os, "sendfile", copied)
    with pytest.raises(OSError, match="No space left"):
        PrivateCopies(tmp_path, None, 1 << 20).make(source, len(DATA))
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("no_clone")
def test_copy_needs_no_reservation_if_the_file_system_has_none(
    tmp_path: Path, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    copy = PrivateCopies(tmp_path, None, 1 << 20).make(source, len(DATA))
    assert content(copy.descriptor) == DATA
    copy.close()


@pytest.mark.usefixtures("no_clone")
def test_copy_is_made_in_the_second_directory_if_the_first_fails(
    tmp_path: Path, source: int
) -> None:
    copy = PrivateCopies(tmp_path / "gone", tmp_path, 1 << 20).make(source, len(DATA))
    assert content(copy.descriptor) == DATA
    copy.close()
    with pytest.raises(FileNotFoundError):
        PrivateCopies(tmp_path / "gone", None, 1 << 20).make(source, len(DATA))


@pytest.mark.usefixtures("no_clone")
def test_copy_of_a_file_that_became_shorter_is_an_error(tmp_path: Path, source: int) -> None:
    with pytest.raises(OSError, match="shorter"):
        PrivateCopies(tmp_path, None, 1 << 20).make(source, len(DATA) + 1)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]}: {done.stderr.strip()}")


@pytest.fixture(params=["btrfs", "xfs"])
def sharing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system whose files can share blocks."""
    kind = request.param
    if os.geteuid() != 0 or shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs root and mkfs.{kind}")
    image, at = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    at.mkdir()
    run(f"mkfs.{kind}", str(image))
    run("mount", "-o", "loop", str(image), str(at))
    yield at
    with contextlib.suppress(OSError):
        subprocess.run(["umount", "--lazy", str(at)], check=False)


def test_clone_takes_no_space_and_leaves_the_source_unchanged(sharing: Path) -> None:
    body = sharing / "body"
    # More than half of the file system: a copy would not fit, and has no capacity either.
    size = 220 << 20
    with body.open("wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    with body.open("rb") as file:
        copy = PrivateCopies(sharing, None, 0).make(file.fileno(), size)
        assert copy.size == 0
        os.pwrite(copy.descriptor, b"patched", 4)
        assert os.pread(copy.descriptor, 11, 0) == bytes(4) + b"patched"
        assert os.pread(file.fileno(), 11, 0) == bytes(11)
        copy.close()
