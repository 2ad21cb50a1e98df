"""The log: the fields of a line, and a node that works although its log is not read."""

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
    """A pipe that holds one page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def fill(log: Stderr) -> int:
    """Write until a line is lost; return the number of lines written before."""
    for count in range(PIPE):
        log.write("x" * 99)
        if log.lost:
            return count
    raise AssertionError("the pipe takes everything")


def test_lost_lines_are_counted_until_the_pipe_has_space(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = Stderr(writer)
    written = fill(log)
    log.write("lost as well")
    assert log.lost == 2
    assert os.read(reader, PIPE) == (b"x" * 99 + b"\n") * written
    log.write("größer")
    assert log.lost == 0
    assert os.read(reader, PIPE) == "größer\n".encode()


def test_line_longer_than_the_pipe_is_cut_and_counted_as_lost(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = Stderr(writer)
    log.write("x" * 3 * PIPE)
    assert log.lost == 1
    assert os.read(reader, 2 * PIPE) == b"x" * PIPE


def test_closed_reader_is_no_error() -> None:
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


def test_line_has_event_level_logger_and_exception() -> None:
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


def test_missing_standard_descriptors_are_opened_as_null(tmp_path: Path) -> None:
    told = tmp_path / "told"
    closing = [sys.executable, "-c", STARTED_WITHOUT, str(told)]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *closing], cwd=ROOT)
    assert (done.returncode, told.read_text()) == (0, "True")


@pytest.mark.slow
def test_node_with_an_unread_log_still_serves() -> None:
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
                # Each request gives a log line; together the lines exceed the pipe.
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
