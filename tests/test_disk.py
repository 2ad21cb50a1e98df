"""The disk thread: tasks in order, their results, and an output beside them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest
from fakes import HANG, eventually
from structlog.testing import capture_logs

from app.storage.disk import Disk


class Pipe:
    """An output that writes into a pipe; the test has the other end."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.left = b""

    def fileno(self) -> int:
        return self.writer

    def wants_write(self) -> bool:
        return bool(self.left)

    def pause(self) -> float:
        return 0.0

    def write_some(self) -> None:
        self.left = self.left[os.write(self.writer, self.left[:4096]) :]

    def close(self) -> None:
        for end in (self.reader, self.writer):
            with contextlib.suppress(OSError):
                os.close(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def disk(woken: threading.Event, pipe: Pipe) -> Iterator[Disk]:
    disk = Disk(woken.set)
    disk.serve(pipe)
    disk.start()
    yield disk
    pipe.left = b""
    assert disk.close(HANG)


def test_tasks_run_in_order_and_their_results_return_on_the_loop(
    disk: Disk, woken: threading.Event
) -> None:
    threads, results = set(), []

    def task(number: int) -> int:
        threads.add(threading.current_thread().name)
        return number

    for number in range(50):
        disk.submit(lambda number=number: task(number), results.append)  # type: ignore[misc]
    assert woken.wait(HANG)

    def all_came() -> bool:
        for completion in disk.take_completions():
            completion()
        return len(results) == 50

    # A completion is not called before the loop takes it.
    eventually(all_came)
    assert results == list(range(50))
    assert threads == {"disk"}
    assert disk.backlog == 0


def failing(error: Exception) -> Callable[[], None]:
    def task() -> None:
        raise error

    return task


def result_of(disk: Disk, task: Callable[[], object]) -> object:
    results: list[object] = []
    disk.submit(task, results.append)

    def came() -> bool:
        for completion in disk.take_completions():
            completion()
        return bool(results)

    eventually(came)
    return results[0]


def test_oserror_is_returned_like_a_result(disk: Disk) -> None:
    error = OSError(28, "No space left on device")
    with capture_logs() as log:
        assert result_of(disk, failing(error)) is error
    assert log == []


def test_bug_in_a_task_is_returned_as_oserror_and_the_thread_continues(disk: Disk) -> None:
    with capture_logs() as log:
        result = result_of(disk, failing(ZeroDivisionError("x")))
    assert isinstance(result, OSError)
    assert "ZeroDivisionError" in str(result)
    assert [entry["event"] for entry in log] == ["a disk task has a bug"]
    assert result_of(disk, lambda: 1) == 1
    assert not disk.failed


def test_error_without_done_is_logged(disk: Disk) -> None:
    with capture_logs() as log:
        disk.submit(failing(OSError(30, "Read-only file system")))
        assert result_of(disk, lambda: 1) == 1
    assert [entry["event"] for entry in log] == ["a disk task failed"]


def test_stalled_reader_delays_no_task(disk: Disk, pipe: Pipe) -> None:
    data = os.urandom(1 << 20)
    pipe.left = data
    disk.nudge()
    for number in range(20):
        assert result_of(disk, lambda number=number: number) == number  # type: ignore[misc]
    assert pipe.left
    read = b""
    while len(read) < len(data):
        read += os.read(pipe.reader, 65_536)
    assert read == data
    eventually(lambda: not pipe.left)


def test_close_finishes_submitted_tasks(pipe: Pipe) -> None:
    disk = Disk(lambda: None)
    disk.serve(pipe)
    done: list[int] = []
    for number in range(100):
        disk.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    pipe.left = b"x" * 10_000
    disk.start()
    assert disk.close(HANG)
    assert done == list(range(100))
    assert not pipe.left
    # Calls after the end have no effect.
    disk.submit(lambda: done.append(100))
    disk.nudge()
    assert len(done) == 100


def test_close_gives_up_on_a_stalled_reader(pipe: Pipe) -> None:
    disk = Disk(lambda: None)
    disk.serve(pipe)
    disk.start()
    pipe.left = bytes(1 << 20)
    disk.nudge()
    assert not disk.close(0.05)
    assert pipe.left
    # The thread ends nevertheless.
    assert disk.close(HANG)


def test_error_of_the_thread_itself_ends_it_and_is_reported(
    pipe: Pipe, woken: threading.Event
) -> None:
    disk = Disk(woken.set)
    disk.serve(pipe)
    with capture_logs() as log:
        disk.start()
        pipe.left = b"x"
        os.close(pipe.writer)
        pipe.writer = -1
        disk.nudge()
        assert woken.wait(HANG)
        assert not disk.close(HANG)
    assert disk.failed
    assert [entry["event"] for entry in log] == ["the disk thread has failed"]


def test_close_gives_descriptors_back() -> None:
    before = set(os.listdir("/proc/self/fd"))
    disk = Disk(lambda: None)
    disk.start()
    assert disk.close(HANG)
    assert set(os.listdir("/proc/self/fd")) == before
