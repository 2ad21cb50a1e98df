"""Outcomes on stdout: one line each, in order, with readers of any speed."""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import HANG, eventually, transcript_of
from structlog.testing import capture_logs

from app.messages import Failure, Origin
from app.output.lines import json_line
from app.output.stdout import StdoutSink
from app.storage.disk import Disk

ORIGIN = Origin("127.0.0.1:4711", 1_700_000_000.25)
TRANSCRIPT = transcript_of("Größe 日本", audio_seconds=3.0, processing_seconds=0.5)


class Reader:
    """The reading end of the pipe that is stdout; reads when the test asks it to."""

    def __init__(self) -> None:
        self._end, self.writer = os.pipe()

    def read(self, lines: int) -> list[str]:
        data = b""
        while data.count(b"\n") < lines:
            data += os.read(self._end, 65_536)
        assert data.endswith(b"\n")
        return data.decode().splitlines()

    def leave(self) -> None:
        if self._end >= 0:
            os.close(self._end)
            self._end = -1


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.leave()
    os.close(reader.writer)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(lambda: None)
    yield disk
    disk.close(HANG)


def sink_of(disk: Disk, descriptor: int, broken: threading.Event | None = None) -> StdoutSink:
    event = broken or threading.Event()
    sink = StdoutSink(disk, descriptor, json_line, event.set)
    disk.start()
    return sink


def test_lines_are_written_whole_and_in_order(disk: Disk, reader: Reader) -> None:
    sink = sink_of(disk, reader.writer)
    # Some lines are longer than a pipe accepts at once.
    texts = ["é" * (number * 997) for number in range(40)]
    for number, text in enumerate(texts):
        sink.put(str(number), ORIGIN, transcript_of(text))
    lines = [json.loads(line) for line in reader.read(40)]
    assert [(line["id"], line["text"]) for line in lines] == [
        (str(number), text) for number, text in enumerate(texts)
    ]
    assert disk.close(HANG)
    assert sink.backlog == 0


def test_put_does_not_wait_for_a_stalled_reader(disk: Disk, reader: Reader) -> None:
    sink = sink_of(disk, reader.writer)
    for _ in range(300):
        sink.put("r", ORIGIN, transcript_of("x" * 1000))
    assert sink.backlog > 100
    # Tasks do not wait either.
    ran = threading.Event()
    disk.submit(ran.set)
    assert ran.wait(HANG)
    assert len(reader.read(300)) == 300
    eventually(lambda: sink.backlog == 0)


def test_then_is_called_after_its_line_and_in_order(disk: Disk, reader: Reader) -> None:
    called: list[int] = []
    sink = sink_of(disk, reader.writer)
    for number in range(200):
        sink.put("r", ORIGIN, transcript_of("x" * 1000), lambda n=number: called.append(n))
    # Once the pipe is full, `then` was called for the written lines only.
    eventually(lambda: not select.select([], [reader.writer], [], 0)[1])
    eventually(lambda: called == list(range(200 - sink.backlog)))
    assert sink.backlog > 100
    reader.read(200)
    eventually(lambda: called == list(range(200)))


def test_file_is_synced_before_then_is_called(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (steps.append("synced"), real(fd)))
    with open(tmp_path / "out", "wb") as file:
        sink = sink_of(disk, file.fileno())
        sink.put("a", ORIGIN, TRANSCRIPT)
        sink.put("b", ORIGIN, TRANSCRIPT, lambda: steps.append("followed"))
        assert disk.close(HANG)
    assert steps == ["synced", "followed"]
    lines = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]


def test_error_in_then_is_logged(disk: Disk, reader: Reader) -> None:
    def refuse() -> None:
        raise OSError(30, "Read-only file system")

    with capture_logs() as log:
        sink = sink_of(disk, reader.writer)
        sink.put("a", ORIGIN, TRANSCRIPT, refuse)
        sink.put("b", ORIGIN, TRANSCRIPT)
        reader.read(2)
        assert disk.close(HANG)
    assert [entry["event"] for entry in log] == ["cannot complete an outcome after its line"]


def test_lost_reader_is_reported_once_and_then_is_not_called(disk: Disk, reader: Reader) -> None:
    broken = threading.Event()
    followed = threading.Event()
    with capture_logs() as log:
        sink = sink_of(disk, reader.writer, broken)
        reader.leave()
        for _ in range(3):
            sink.put("r", ORIGIN, TRANSCRIPT, followed.set)
        assert broken.wait(HANG)
        sink.put("r", ORIGIN, TRANSCRIPT, followed.set)
        # The unwritten lines are counted, and do not prevent the end.
        assert disk.close(HANG)
    assert sink.backlog > 0
    assert not followed.is_set()
    assert len([entry for entry in log if "cannot write to stdout" in entry["event"]]) == 1


def test_full_disk_behind_stdout_is_waited_for(
    disk: Disk, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, tasks run meanwhile, and the lines follow once there is space."""
    monkeypatch.setattr("app.output.stdout.FULL_DISK_SECONDS", 0.01)
    broken = threading.Event()
    followed: list[int] = []
    with open("/dev/full", "wb", buffering=0) as full, capture_logs() as log:
        sink = sink_of(disk, full.fileno(), broken)
        for number in range(3):
            sink.put(str(number), ORIGIN, TRANSCRIPT, lambda n=number: followed.append(n))
        eventually(lambda: log)
        ran = threading.Event()
        disk.submit(ran.set)
        assert ran.wait(HANG)
        assert (sink.backlog, followed) == (3, [])
        os.dup2(reader.writer, full.fileno())
        assert [json.loads(line)["id"] for line in reader.read(3)] == ["0", "1", "2"]
        assert disk.close(HANG)
    assert followed == [0, 1, 2]
    assert not broken.is_set()
    assert [entry["event"] for entry in log] == ["the disk of stdout is full; waiting for space"]


def test_full_disk_behind_stdout_does_not_prevent_the_end(disk: Disk) -> None:
    with open("/dev/full", "wb", buffering=0) as full, capture_logs() as log:
        sink = sink_of(disk, full.fileno())
        sink.put(None, ORIGIN, Failure("bad_header", "x"))
        eventually(lambda: log)
        assert not disk.close(0.05)
        eventually(lambda: not disk._thread.is_alive())
        assert sink.backlog == 1


def test_line_is_written_in_any_locale(disk: Disk, reader: Reader) -> None:
    sink = StdoutSink(disk, reader.writer, lambda *_: "a日\udc80", lambda: None, "ascii")
    disk.start()
    sink.put("r", ORIGIN, TRANSCRIPT)
    assert reader.read(1) == ["a??"]


def test_non_blocking_descriptor_is_no_error(disk: Disk, reader: Reader) -> None:
    os.set_blocking(reader.writer, False)
    sink = sink_of(disk, reader.writer)
    for _ in range(300):
        sink.put("r", ORIGIN, transcript_of("x" * 1000))
    assert len(reader.read(300)) == 300
