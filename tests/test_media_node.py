"""The real node with a real model and recordings of phones and browsers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from media import clip, recorded
from node import ROOT, Node, command, eventually, stopped_cleanly

HELPERS = ROOT / "tests" / "helpers"
TOKEN = "a-token-for-the-tests"
SPOKEN = "ask not what your country can do for you"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(Node()) as node:
        yield node


@pytest.mark.parametrize("kind", ["m4a AAC", "webm Opus", "AMR", "Ogg FLAC", "CAF IMA4"])
def test_recording_is_transcribed(node: Node, kind: str) -> None:
    reply = node.ask(recorded(kind))
    assert SPOKEN in reply["text"].lower().replace(",", "")
    assert reply["audio_seconds"] == pytest.approx(11.0, abs=0.1)
    assert not reply["truncated"]


def decoders(node: Node) -> list[int]:
    """The children of `node` that decode."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            line = status.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if parent == node.pid and b"app.audio.media.child" in line:
            found.append(int(status.parent.name))
    return found


def long_recording() -> bytes:
    """Four minutes, so that the child lives while the node decodes."""
    return recorded("m4a AAC", np.tile(clip(), 22))


def test_node_starts_no_child_before_such_a_file(node: Node) -> None:
    with Node() as fresh:
        fresh.ask_file(ROOT / "tests" / "audio" / "jfk.flac")
        maps = Path(f"/proc/{fresh.pid}/maps").read_text()
        assert decoders(fresh) == []
    assert "libavcodec" not in maps


def test_killed_node_leaves_no_child() -> None:
    with Node() as node, node.connect() as client:
        client.send(long_recording())
        eventually(lambda: len(decoders(node)) == 1)
        (child,) = decoders(node)
        node.signal(signal.SIGKILL)
        node.wait()
        eventually(lambda: not Path(f"/proc/{child}").exists())


def test_drain_finishes_a_recording_although_its_child_gets_the_signal() -> None:
    """systemd sends SIGTERM to every process of the service, and a terminal SIGINT."""
    with Node("--drain-seconds", "100") as node, node.connect() as client:
        client.send(recorded("m4a AAC", np.tile(clip(), 3)))
        eventually(lambda: len(decoders(node)) == 1)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(decoders(node)[0], number)
        node.signal(signal.SIGTERM)
        reply = client.receive()
        assert reply is not None
        assert reply["audio_seconds"] == pytest.approx(33.0, abs=0.1)
        assert node.wait() == 0


def test_child_knows_neither_token_nor_settings() -> None:
    environment = {"NODE_WHISPER_TOKEN": TOKEN, "NODE_WHISPER_PROMPT": "secret words"}
    with Node(environment=environment) as node, node.connect() as client:
        client.send(long_recording(), token=TOKEN)
        eventually(lambda: len(decoders(node)) == 1)
        (child,) = decoders(node)
        # The environment and the arguments of the program that the kernel started.
        for name in ("environ", "cmdline"):
            data = Path(f"/proc/{child}/{name}").read_bytes()
            assert TOKEN.encode() not in data
            assert b"NODE_WHISPER" not in data
            assert b"secret" not in data


def test_node_with_media_off_rejects_recordings() -> None:
    with Node("--media", "off") as node:
        reply = node.ask(recorded("m4a AAC", clip(1.0)))
        assert reply["error"]["code"] == "unsupported_media_type"
        assert "--media auto" in reply["error"]["message"]


# Under the restrictions of the systemd unit.

WRAPPERS = {
    "system calls": [str(HELPERS / "unit_filter.py")],
    "memory by prctl": [str(HELPERS / "mdwe.py"), "prctl"],
    "memory by seccomp": [str(HELPERS / "mdwe.py"), "seccomp"],
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_limits_of_the_child_work_under_the_unit(kind: str) -> None:
    wrapper = [sys.executable, *WRAPPERS[kind]]
    probe = subprocess.run([*wrapper, "true"], check=False)
    if probe.returncode == 77:
        pytest.skip("this system cannot apply the setting")
    assert probe.returncode == 0
    program = [*wrapper, *command("--output", "json", "--log-format", "json")]
    with Node(program=program) as node, node.connect() as client:
        # Longer than a window, so that the child waits for the engine.
        client.send(recorded("m4a AAC", np.tile(clip(), 5)))
        eventually(lambda: len(decoders(node)) == 1)
        child = Path(f"/proc/{decoders(node)[0]}")
        eventually(lambda: "Max processes             0 " in (child / "limits").read_text())
        limits = (child / "limits").read_text()
        assert f"Max address space         {512 << 20}" in limits
        assert "Max open files            16 " in limits
        reply = client.receive()
        assert reply is not None
        assert SPOKEN in reply["text"].lower().replace(",", "")
