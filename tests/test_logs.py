"""The log: what stands in a line, and that nobody has to read it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from node import HANG, ROOT, Client, clean_environment, command

from app.startup.stderr import Stderr

PIPE = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds a page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def fill(log: Stderr) -> int:
    """Write until a line is lost; how many were not."""
    for count in range(PIPE):
        log.write("x" * 99)
        if log.lost:
            return count
    raise AssertionError("the pipe takes everything")


def test_lines_that_find_no_room_are_counted_until_one_does(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = Stderr(writer)
    written = fill(log)
    log.write("lost as well")
    assert log.lost == 2
    assert os.read(reader, PIPE) == (b"x" * 99 + b"\n") * written
    log.write("größer")
    assert log.lost == 0
    assert os.read(reader, PIPE) == "größer\n".encode()


def test_a_line_longer_than_the_pipe_is_cut_and_counts_as_lost(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = Stderr(writer)
    log.write("x" * 3 * PIPE)
    assert log.lost == 1
    assert os.read(reader, 2 * PIPE) == b"x" * PIPE


def test_a_reader_that_has_gone_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = Stderr(writer)
    log.write("to nobody")
    os.close(writer)
    assert log.lost == 1


SCRIPT = """
import structlog
from app.startup import logs

logs.configure(False, True)
log = structlog.get_logger("here")
log.debug("not said")
log.info("said", id="r")
try:
    raise ValueError("why")
except ValueError:
    log.exception("broke")
"""


def test_what_stands_in_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, timeout=HANG, check=True
    )
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {"event": "said", "id": "r", "level": "info", "logger": "here"}
    assert (second["event"], second["level"]) == ("broke", "error")
    assert "ValueError: why" in second["exception"]
    assert done.stdout == b""


STARTED_WITHOUT = """
import os, socket, sys
from app.startup import descriptors

with open(sys.argv[1], "w") as told:
    os.dup2(told.fileno(), 99)
descriptors.open_standard()
print("to nobody")
print("to nobody", file=sys.stderr)
with socket.socket() as sock:
    os.write(99, str(sock.fileno() > 2).encode())
"""


def test_what_the_process_was_started_without_is_nothing_and_no_socket(tmp_path: Path) -> None:
    told = tmp_path / "told"
    closing = [sys.executable, "-c", STARTED_WITHOUT, str(told)]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *closing], cwd=ROOT)
    assert (done.returncode, told.read_text()) == (0, "True")


@pytest.mark.slow
def test_a_node_whose_log_nobody_reads_serves_on() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    node = subprocess.Popen(
        command("--log-format", "json"),
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=writer,
    )
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as log:
            port = listening(log)["port"]
            with Client(socket.create_connection(("127.0.0.1", port), HANG)) as client:
                # Each of them is a line of the log; all of them are more than the pipe holds.
                for number in range(2 * PIPE // 100):
                    client.send(b"", id=f"r{number}", connection="keep-alive", language="xx")
                    reply = client.receive()
                    assert reply is not None
                    assert reply["error"]["code"] == "bad_field"
            node.terminate()
            assert node.wait(HANG) == 0
    finally:
        node.kill()
        node.wait()


def listening(log: Any) -> dict[str, Any]:
    for line in log:
        fields: dict[str, Any] = json.loads(line)
        if fields["event"] == "listening":
            return fields
    raise AssertionError("the node never listened")
