"""The node on a terminal: one line for each outcome, and no second one in the log."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from node import HANG, JFK, ROOT, Client, clean_environment, command, eventually, message
from structlog.testing import capture_logs

from app.messages import Failure, Origin
from app.output.stdout import StdoutSink
from app.requests.outcomes import OutcomeLog, Outcomes
from app.startup import logs

COLOURS = re.compile(r"\x1b\[[\d;]*m")


class Terminal:
    """A pseudo-terminal. `end` is the descriptor for a program; `lines` are those it wrote."""

    def __init__(self) -> None:
        self._ours, self.end = pty.openpty()
        tty.setraw(self.end)
        self._data = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65_536)
            except OSError:  # nobody has the other end open
                return
            self._data += data

    def lines(self) -> list[str]:
        return COLOURS.sub("", self._data.decode()).splitlines()

    def close(self) -> None:
        os.close(self.end)
        self._thread.join(HANG)
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def other(terminal: Terminal) -> Iterator[Terminal]:
    other = Terminal()
    yield other
    other.close()


@pytest.mark.slow
def test_each_outcome_is_one_line_of_the_terminal(terminal: Terminal) -> None:
    node = subprocess.Popen(
        command(),
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=terminal.end,
        stderr=terminal.end,
    )
    try:
        eventually(lambda: any("listening" in line for line in terminal.lines()))
        before = len(terminal.lines())
        found = re.search(r" port=(\d+)", "\n".join(terminal.lines()))
        assert found
        at = ("127.0.0.1", int(found[1]))
        for body in (JFK.read_bytes(), b"no audio" * 99):
            with Client(_connected(at)) as client:
                client.socket.sendall(message(body, connection="close"))
                assert client.receive() is not None
        # The line of stdout may come after the reply.
        eventually(lambda: "unsupported_media_type" in " ".join(terminal.lines()[before:]))
        node.send_signal(signal.SIGTERM)
        assert node.wait(HANG) == 0
    finally:
        node.kill()
        node.wait(HANG)
    after = [line for line in terminal.lines()[before:] if "draining" not in line]
    assert len(after) == 2, after
    assert re.match(r"\d\d:\d\d:\d\d  127\.0\.0\.1:\d+  And so .*\(11\.0 s, ", after[0])
    assert re.match(
        r"\d\d:\d\d:\d\d  127\.0\.0\.1:\d+  unsupported_media_type: the audio", after[1]
    )


def _connected(at: tuple[str, int]) -> socket.socket:
    return socket.create_connection(at, HANG)


class _Stream:
    """A standard stream with this descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


def test_log_leaves_outcomes_to_stdout_only_on_the_same_terminal(
    terminal: Terminal, other: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    try:
        for out, err, as_json, expected in (
            (terminal.end, terminal.end, False, "none"),
            (terminal.end, terminal.end, True, "code"),
            (terminal.end, other.end, False, "cause"),
            (writer, terminal.end, False, "cause"),
            (terminal.end, writer, False, "code"),
            (writer, writer, False, "code"),
        ):
            monkeypatch.setattr(sys, "stdout", _Stream(out))
            monkeypatch.setattr(sys, "stderr", _Stream(err))
            assert logs.outcome_log(as_json) == expected, (out, err, as_json)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("log", ["none", "code", "cause"])
def test_failure_is_logged_with_its_cause_on_a_terminal_only(log: OutcomeLog) -> None:
    sink = SimpleNamespace(backlog=0, put=lambda *_: None)
    outcomes = Outcomes(cast(StdoutSink, sink), (), log=log)
    with capture_logs() as entries:
        outcomes.record("r", Origin("p", 0.0), Failure("bad_audio", "it ends early"))
    (entry,) = entries
    assert entry["log_level"] == ("debug" if log == "none" else "info")
    assert (entry["event"], entry["code"]) == ("failed", "bad_audio")
    assert entry.get("cause") == ("it ends early" if log == "cause" else None)
