"""The end of the node by a signal, the timeout of a drain, or a broken stdout."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from node import HANG, JFK, ROOT, Client, Node, clean_environment, eventually, message

pytestmark = pytest.mark.slow

CRASHED = (134, 139, -signal.SIGABRT, -signal.SIGSEGV)


@pytest.fixture(scope="module")
def jfk() -> bytes:
    return JFK.read_bytes()


@pytest.fixture
def node() -> Iterator[Node]:
    with Node("--drain-seconds", "150") as node:
        yield node


def begin(node: Node, jfk: bytes, count: int, **fields: str) -> Client:
    """Open a connection with `count` requests, of which the first is certainly in progress."""
    client = node.connect()
    for number in range(count):
        client.send(jfk, id=f"r{number}", connection="keep-alive", **fields)
    first = client.receive()
    assert first is not None
    assert first["id"] == "r0"
    return client


def takes_connections(node: Node) -> bool:
    try:
        socket.create_connection(("127.0.0.1", node.port), HANG).close()
    except ConnectionError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_node_ends_at_once_with_0(node: Node, number: int) -> None:
    node.signal(number)
    assert node.wait() == 0


def test_process_1_ends_before_it_serves(tmp_path: Path) -> None:
    """The node is process 1 in a container without an init, and waits for a download."""
    namespace = ["unshare", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here (Debian: util-linux)")
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("a process namespace of its own is not allowed here")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(HANG)
        node = subprocess.Popen(
            [*namespace, sys.executable, "-m", "app", "-m", "small.en"],
            env={
                **clean_environment(),
                "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
                "NODE_WHISPER_MODELS_DIR": str(tmp_path),
                "no_proxy": "*",
            },
            cwd=ROOT,
        )
        try:
            with silent.accept()[0]:
                children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text()
                os.kill(int(children), signal.SIGTERM)
                assert node.wait(HANG) == 128 + signal.SIGTERM
        finally:
            node.kill()
            node.wait()


def test_idle_connection_does_not_delay_the_end(node: Node) -> None:
    with node.connect() as client:
        # The node knows of the connection once it has answered on it.
        client.send(b"junk", connection="keep-alive")
        assert client.receive() is not None
        node.signal(signal.SIGTERM)
        assert client.receive() is None
    assert node.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_accepted_requests_are_finished_and_answered(node: Node, jfk: bytes, number: int) -> None:
    with begin(node, jfk, 3) as client:
        # The other uploads have arrived, because the client sends them one after the other.
        node.signal(number)
        node.wait_for_log("draining")
        eventually(lambda: not takes_connections(node))
        replies = [client.receive(), client.receive()]
        assert client.receive() is None
    assert [reply and reply["status"] for reply in replies] == ["ok", "ok"]
    assert node.wait() == 0
    assert [outcome["status"] for outcome in node.outcomes()] == ["ok"] * 3


def test_new_request_during_the_drain_receives_shutting_down(node: Node, jfk: bytes) -> None:
    # Enough work before it, so that the node still runs when the late request comes.
    with begin(node, jfk, 5) as client:
        node.signal(signal.SIGTERM)
        node.wait_for_log("draining")
        client.send(jfk, id="late", connection="keep-alive")
        *finished, late = [client.receive() for _ in range(5)]
    assert [reply and reply["status"] for reply in finished] == ["ok"] * 4
    assert late is not None
    assert late["id"] == "late"
    assert late["error"]["code"] == "shutting_down"
    assert late["error"]["retry_after_seconds"] > 0
    assert node.wait() == 0


def test_second_signal_ends_the_node_at_once(node: Node, jfk: bytes) -> None:
    with begin(node, jfk, 12):
        node.signal(signal.SIGTERM)
        node.wait_for_log("draining")
        node.signal(signal.SIGTERM)
        status = node.wait()
    assert status == 128 + signal.SIGTERM
    # The node ended at once: most of the work was not done.
    assert len(node.outcomes()) < 12


def test_unfinished_request_receives_shutting_down(jfk: bytes) -> None:
    with Node("--drain-seconds", "0") as node:
        with begin(node, jfk, 12) as client:
            node.signal(signal.SIGTERM)
            replies = []
            while (reply := client.receive()) is not None:
                replies.append(reply)
        assert node.wait() == 0
        outcomes = node.outcomes()
    failed = [reply["error"] for reply in replies if reply["status"] == "error"]
    assert failed
    assert {error["code"] for error in failed} == {"shutting_down"}
    assert all(error["retry_after_seconds"] > 0 for error in failed)
    assert [reply["id"] for reply in replies] == [f"r{number}" for number in range(1, 12)]
    assert len(outcomes) == 12


def test_unfinished_upload_receives_shutting_down(jfk: bytes) -> None:
    with Node("--drain-seconds", "0.2") as node:
        with node.connect() as client:
            client.send(b"junk", connection="keep-alive")
            assert client.receive() is not None
            client.socket.sendall(message(jfk, id="half")[: len(jfk) // 2])
            node.signal(signal.SIGTERM)
            reply = client.receive()
        assert node.wait() == 0
    # The header may or may not be read before the signal; both ends are correct.
    assert reply is None or reply["error"]["code"] in ("shutting_down", "incomplete")


def test_broken_stdout_ends_the_node(jfk: bytes) -> None:
    # As in `node | head -1`.
    read, write = os.pipe()
    with Node("--drain-seconds", "150", stdout=write) as node:
        os.close(write)
        with begin(node, jfk, 3) as client:
            assert os.read(read, 10)
            os.close(read)
            replies = [client.receive(), client.receive()]
        # Accepted requests receive their replies.
        assert [reply and reply["status"] for reply in replies] == ["ok", "ok"]
        assert node.wait() == 0


def test_ctrl_c_that_ends_the_reader_too_is_one_signal(jfk: bytes) -> None:
    # In `node | tee log` both get Ctrl-C. The broken pipe must not count as a second signal.
    read, write = os.pipe()
    with Node("--drain-seconds", "150", stdout=write) as node:
        os.close(write)
        with begin(node, jfk, 4) as client:
            os.close(read)
            node.signal(signal.SIGINT)
            replies = [client.receive(), client.receive(), client.receive()]
        assert [reply and reply["status"] for reply in replies] == ["ok", "ok", "ok"]
        assert node.wait() == 0


@pytest.mark.parametrize("drain", ["0", "0.3", "150"])
def test_node_never_crashes_at_its_end(jfk: bytes, drain: str) -> None:
    # The engine is working and writing its log.
    with Node("-lv", "--drain-seconds", drain) as node:
        with begin(node, jfk, 3):
            node.signal(signal.SIGTERM)
        status = node.wait()
    assert status not in CRASHED
    assert status == 0
