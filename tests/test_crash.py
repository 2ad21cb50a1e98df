"""A node with a journal that is killed, or loses its disk or the reader of stdout: real processes.

The fake engine (helpers/fake_node.py) returns a checksum of its samples, so that starts are quick
and altered audio is noticed. scripts/dev/crash runs the same for longer, also with the real engine.
NODE_WHISPER_KILLS is the number of kills in the first test.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from node import HANG, ROOT, Client, Node, clean_environment, eventually
from reliability.crash_cli import FAKE, clips, without_length
from reliability.crashes import Crashes, ended

from app.storage.journal import MAX_CRASHES

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("NODE_WHISPER_KILLS", "5"))
RATE = 16_000
RAW = {
    "content_type": "audio/pcm",
    "content_encoding": "s16",
    "sample_rate": RATE,
    "channels": 1,
    "byteorder": "little",
}


SLOW = {"FAKE_NODE_WINDOW_SECONDS": "60"}
"""A duration of one window, in seconds, that no test waits for."""


def fake_node(journal: Path, *arguments: str, **options: object) -> Node:
    arguments = ("--port", "0", "--journal", str(journal), *arguments)
    return Node(*arguments, program=FAKE, **options)  # type: ignore[arg-type]


def noise(seed: int, seconds: float = 1.0) -> bytes:
    samples = np.random.default_rng(seed).integers(-9000, 9000, int(seconds * RATE))
    return samples.astype("<i2").tobytes()


def text_of(body: bytes) -> str:
    """Return the fake engine's text for raw samples that fit into one window."""
    samples = np.frombuffer(body, "<i2").astype(np.float32) / 32768
    return f"{zlib.crc32(samples.tobytes()):08x}"


def entries(journal: Path, part: str = "new") -> list[str]:
    return sorted(os.listdir(journal / part))


def accept(node: Node, request_id: str, body: bytes) -> None:
    reply = node.ask(body, id=request_id, reply="accepted", **RAW)
    assert reply == {"id": request_id, "status": "accepted"}


def test_fake_engine_answers_with_the_checksum(tmp_path: Path) -> None:
    with fake_node(tmp_path / "journal") as node:
        assert node.ask(noise(1), **RAW)["text"] == text_of(noise(1))
        assert node.stop() == 0


def test_node_killed_at_random_moments_keeps_every_guarantee(tmp_path: Path) -> None:
    crashes = Crashes(FAKE, tmp_path / "journal", clips(large=True), seed=5)
    try:
        crashes.run(KILLS, clients=3, longest=0.8)
    finally:
        crashes.close()
    account = crashes.account
    assert account.kills == KILLS
    assert account.promised
    assert crashes.broken == []
    assert entries(tmp_path / "journal") == []
    assert entries(tmp_path / "journal", "tmp") == []


def test_audio_that_crashes_the_node_is_tried_three_times(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    bad, good = noise(1), noise(2)
    deadly = {"FAKE_NODE_DIES_OF": text_of(bad)}
    with fake_node(journal, environment=SLOW) as node:
        accept(node, "bad", bad)
        assert node.stop() == 0
    for _ in range(3):
        died = subprocess.run(
            [*FAKE, "--port", "0", "--journal", str(journal)],
            cwd=ROOT,
            env=clean_environment() | deadly,
            capture_output=True,
            timeout=HANG,
        )
        assert died.returncode == -signal.SIGKILL
        assert died.stdout == b""
    with fake_node(journal, environment=deadly) as node:
        line = node.outcome("bad")
        assert (line["error"]["code"], line["recovered"]) == ("quarantined", True)
        accept(node, "good", good)
        assert node.outcome("good")["text"] == text_of(good)
        assert node.stop() == 0
    assert entries(journal) == []
    [entry] = entries(journal, "quarantine")
    note = (journal / "quarantine" / entry / "note.txt").read_text()
    assert "id: bad" in note
    assert "crashes: 3" in note


def test_crash_with_several_engines_blames_only_the_guilty(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    two = ("--engines", "2", "--threads", "2")
    bodies = {name: noise(number) for number, name in enumerate(("a", "b", "bad", "c", "d"))}
    deadly = {"FAKE_NODE_DIES_OF": text_of(bodies["bad"]), "FAKE_NODE_WINDOW_SECONDS": "0.3"}
    with fake_node(journal, *two, "--drain-seconds", "0.1", environment=SLOW) as node:
        for name, body in bodies.items():
            accept(node, name, body)
        assert node.stop() == 0
    blamed: list[set[str]] = []
    lines: list[str | bytes] = []
    for _ in range(MAX_CRASHES):
        died = subprocess.run(
            [*FAKE, "--port", "0", "--journal", str(journal), *two],
            cwd=ROOT,
            env=clean_environment() | deadly,
            capture_output=True,
            timeout=HANG,
        )
        assert died.returncode == -signal.SIGKILL
        lines += died.stdout.splitlines()
        marked = (journal / "engine").read_bytes().partition(b"\0")[0].decode()
        blamed.append(set(marked.split("/")))
    # An innocent one was beside the guilty one once, and then no more.
    assert len(blamed[0]) == 2
    assert blamed[1] == blamed[2] == set.intersection(*blamed)
    with fake_node(journal, *two, environment=deadly) as node:
        assert node.outcome("bad")["error"]["code"] == "quarantined"
        eventually(lambda: not entries(journal))
        lines += [json.dumps(outcome) for outcome in node.outcomes()]
        assert node.stop() == 0
    texts = {line["id"]: line["text"] for line in map(json.loads, lines) if line["id"] != "bad"}
    assert texts == {name: text_of(body) for name, body in bodies.items() if name != "bad"}
    assert len(entries(journal, "quarantine")) == 1


def test_node_starts_with_truncated_entries(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with fake_node(journal, environment=SLOW) as node:
        for number in range(4):
            accept(node, f"r{number}", noise(number))
        node.signal(signal.SIGKILL)
        node.wait()
    first, second, third, _ = entries(journal)
    os.truncate(journal / "new" / first / "body", 1000)
    os.truncate(journal / "new" / second / "request.json", 30)
    os.truncate(journal / "new" / third / "request.json", 0)
    with fake_node(journal) as node:
        assert node.outcome("r3")["text"] == text_of(noise(3))
        for request_id in ("r0", "r1", None):
            line = node.outcome(request_id)
            assert (line["error"]["code"], line["recovered"]) == ("journal_damaged", True)
        assert node.ask(noise(9), **RAW)["text"] == text_of(noise(9))
        assert node.stop() == 0
    assert entries(journal) == []
    assert len(entries(journal, "quarantine")) == 3


def test_second_node_cannot_use_the_journal(tmp_path: Path) -> None:
    with fake_node(tmp_path / "journal") as node:
        done = subprocess.run(
            [*FAKE, "--port", "0", "--journal", str(tmp_path / "journal")],
            cwd=ROOT,
            env=clean_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            f"node-whisper: another node uses the journal {tmp_path / 'journal'}; "
            "give each node its own"
        ]
        assert node.stop() == 0


def test_node_shuts_down_without_a_reader_and_keeps_the_rest(tmp_path: Path) -> None:
    # As in `node | head -1`.
    journal = tmp_path / "journal"
    read, write = os.pipe()
    with fake_node(journal, stdout=write) as node:
        os.close(write)
        accept(node, "first", noise(1))
        with open(read, encoding="utf-8") as stdout:
            assert json.loads(stdout.readline())["id"] == "first"
        with contextlib.suppress(AssertionError, OSError):
            # The node notices the lost reader at its next line, and accepts requests before that.
            for number in range(100):
                accept(node, f"r{number}", noise(number))
        assert node.wait() == 0
    left = len(entries(journal))
    assert left
    with fake_node(journal) as node:
        eventually(lambda: len(node.outcomes()) == left)
        assert all(line["recovered"] and line["status"] == "ok" for line in node.outcomes())
        assert node.stop() == 0
    assert entries(journal) == []


def test_node_works_without_a_reader_of_its_log(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*FAKE, "--port", "0", "--log-format", "json", "--output", "json"],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = iter(process.stderr.readline, b"")
        port = next(entry["port"] for entry in map(json.loads, lines) if "port" in entry)
        process.stderr.close()
        for number in range(3):
            with Client(socket.create_connection(("127.0.0.1", port), HANG)) as client:
                client.send(noise(number), **RAW)
                reply = client.receive()
            assert reply is not None
            assert reply["text"] == text_of(noise(number))
        process.send_signal(signal.SIGTERM)
        assert len(process.stdout.readlines()) == 3
    assert process.returncode == 0


def test_unfinished_requests_of_a_drain_are_done_after_the_next_start(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with fake_node(journal, "--drain-seconds", "0.1", environment=SLOW) as node:
        with node.connect() as client:
            client.send(noise(1), id="a", **RAW)
            eventually(lambda: len(entries(journal)) == 1)
            node.signal(signal.SIGTERM)
            reply = client.receive()
        assert reply is not None
        assert ended(reply) == "shutting_down"
        assert "kept" in reply["error"]["message"]
        assert node.wait() == 0
        assert node.outcomes() == []
    with fake_node(journal) as node:
        assert node.outcome("a")["text"] == text_of(noise(1))
        assert node.stop() == 0
    # The clean end was not counted as a crash.
    assert entries(journal, "quarantine") == []


# A full or a read-only disk, each on a file system of its own: permissions do not stop root.


def as_root(*command: str) -> str:
    """Run a command that needs privileges, or skip the test with the reason."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"there is no {command[0]} here")
    if done.returncode:
        pytest.skip(f"cannot {command[0]} here: {done.stderr.strip()}")
    return done.stdout.strip()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount a file system at."""
    at = tmp_path / "disk"
    at.mkdir()
    yield at
    if at.is_mount():
        as_root("umount", "--lazy", str(at))


def refuses(node: Node, *bodies: bytes) -> None:
    with node.connect() as client:
        for body in bodies:
            client.send(body, id="new", reply="accepted", connection="keep-alive", **RAW)
            reply = client.receive()
            assert reply is not None
            assert ended(reply) == "no_space"
            assert reply["error"]["retry_after_seconds"] > 0


def test_node_on_a_full_disk_rejects_new_requests_and_loses_none(disk: Path) -> None:
    as_root("mount", "-t", "tmpfs", "-o", "size=2m", "node-whisper-test", str(disk))
    journal = disk / "journal"
    accepted = []
    with fake_node(journal, environment=SLOW) as node:
        for number in range(40):
            reply = node.ask(noise(number, 5.0), id=f"r{number}", reply="accepted", **RAW)
            if ended(reply) == "no_space":
                assert reply["error"]["retry_after_seconds"] > 0
                break
            accepted.append(number)
        else:
            raise AssertionError("the disk was never full")
        assert len(accepted) > 2
        # A large body is rejected while it arrives, and the next request is read nevertheless.
        refuses(node, noise(0, 200.0), noise(0, 200.0))
        with contextlib.suppress(OSError), open(disk / "more", "wb") as more:
            while True:
                more.write(bytes(4096))
                more.flush()
        node.signal(signal.SIGKILL)
        node.wait()
    # The node starts on the full disk, does the accepted requests, and has space again.
    with fake_node(journal) as node:
        for number in accepted:
            assert node.outcome(f"r{number}")["text"] == text_of(noise(number, 5.0))
        eventually(lambda: entries(journal) == [])
        assert ended(node.ask(noise(1), id="new", reply="transcript", **RAW)) == "ok"
        assert node.stop() == 0
    assert entries(journal, "tmp") == []


def test_node_on_a_read_only_journal_rejects_new_requests_and_loses_none(
    disk: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    as_root("mkfs.ext4", "-q", str(image))
    as_root("mount", "-o", "loop,errors=remount-ro", str(image), str(disk))
    device = Path(as_root("findmnt", "-no", "SOURCE", str(disk))).name
    fault = Path("/sys/fs/ext4") / device / "trigger_fs_error"
    if not device.startswith("loop") or not fault.exists():
        pytest.skip("this kernel cannot make an ext4 fail on request")
    journal = disk / "journal"
    large = noise(3, 140.0)
    with fake_node(tmp_path / "other") as node:
        large_text = node.ask(large, **RAW)["text"]
        assert node.stop() == 0
    with fake_node(journal, environment=SLOW) as node:
        accept(node, "before", noise(1))
        wav = {"content_type": "audio/wav", "content_encoding": "wav", "byteorder": "little"}
        body = without_length(large, RATE)
        reply = node.ask(body, id="large", reply="accepted", **wav)
        assert reply == {"id": "large", "status": "accepted"}
        # The kernel does this to a damaged file system: it is read-only from now on.
        fault.write_text("1")
        refuses(node, noise(2), noise(2, 200.0))
        node.signal(signal.SIGKILL)
        node.wait()
    for _ in range(2):
        # Each start does the accepted requests again, because no entry can be removed. The large
        # body is repaired in a copy in --spool-dir.
        with fake_node(journal) as node:
            assert node.outcome("before")["text"] == text_of(noise(1))
            assert node.outcome("large")["text"] == large_text
            assert ended(node.ask(noise(2), id="new", **RAW)) == "no_space"
            assert node.stop() == 0
        assert len(entries(journal)) == 2
    as_root("umount", str(disk))
    subprocess.run(["fsck.ext4", "-p", str(image)], capture_output=True)
    as_root("mount", "-o", "loop", str(image), str(disk))
    with fake_node(journal) as node:
        assert node.outcome("before")["text"] == text_of(noise(1))
        assert node.outcome("large")["text"] == large_text
        assert ended(node.ask(noise(2), id="new", **RAW)) == "ok"
        assert node.stop() == 0
    assert entries(journal) == []
