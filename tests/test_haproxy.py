"""Two nodes behind Debian's HAProxy with deploy/haproxy.cfg: no request is lost when one drains or
dies."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from node import JFK, Client, Fields, Node, eventually

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
CLIP = JFK.read_bytes()
WORDS = "ask not what your country can do for you"

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="haproxy is not installed here (Debian: apt install haproxy)"
)


def free_ports(count: int) -> list[int]:
    """Free ports, known before a process listens on them.

    They are below the range of ephemeral ports. Other tests take ephemeral ports all the time, and
    a node's port is free for a while between its death and its restart.
    """
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(10_000, min(int(given[0]), 32_768))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.add(port)
    return list(found)


class Cluster:
    """Two nodes with journals behind HAProxy."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._ports = [free_ports(2) for _ in range(2)]
        self.nodes = [self.start(index) for index in range(2)]
        self.port, http = free_ports(2)
        config = (ROOT / "deploy" / "haproxy.cfg").read_text()
        config = config.replace("maxconn 4000", f"stats socket {folder}/stats level user")
        config = config.replace("bind :56789", f"bind 127.0.0.1:{self.port}")
        config = config.replace("bind :8080", f"bind 127.0.0.1:{http}")
        for index, (native, page) in enumerate(self._ports):
            name = f"server node{index + 1} 192.0.2.1{index + 1}"
            assert f"{name}:56789" in config
            here = f"server node{index + 1} 127.0.0.1"
            config = config.replace(f"{name}:56789", f"{here}:{native} check port {page}")
            config = config.replace(f"{name}:8080", f"{here}:{page}")
        (folder / "haproxy.cfg").write_text(config)
        assert PROGRAM is not None
        proxy = subprocess.Popen(
            [PROGRAM, "-db", "-f", folder / "haproxy.cfg"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(proxy.wait)
        stack.callback(proxy.kill)
        eventually(lambda: (folder / "stats").exists() and self.up() == {"node1", "node2"})

    def start(self, index: int) -> Node:
        native, page = self._ports[index]
        journal = self._folder / f"journal{index}"
        journal.mkdir(exist_ok=True)
        node = Node(
            *("--port", str(native), "--http-port", str(page), "--threads", "1"),
            *("--journal", str(journal), "--drain-seconds", "120"),
        )
        self._stack.callback(node.close)
        return node

    def healthy(self, index: int) -> bool:
        """Whether the image's HEALTHCHECK accepts a node."""
        native, page = map(str, self._ports[index])
        settings = {"NODE_WHISPER_PORT": native, "NODE_WHISPER_HTTP_PORT": page}
        check = [sys.executable, "-I", "-S", str(ROOT / "deploy" / "healthcheck.py")]
        return subprocess.run(check, env=settings, check=False).returncode == 0

    def freezes_with_work(self, index: int) -> bool:
        """Freeze a node with SIGSTOP; return whether it has unfinished accepted requests."""
        node = self.nodes[index]
        node.signal(signal.SIGSTOP)
        eventually(lambda: psutil.Process(node.pid).status() == psutil.STATUS_STOPPED)
        return any((self._folder / f"journal{index}" / "new").iterdir())

    def up(self) -> set[str]:
        """The nodes that HAProxy considers up."""
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(str(self._folder / "stats"))
            stats.sendall(b"show stat\n")
            table = b"".join(iter(lambda: stats.recv(65536), b"")).decode()
        names, *rows = (line.split(",") for line in table.splitlines() if line)
        return {
            row[1]
            for row in rows
            if row[0] == "nodes"
            and row[1] != "BACKEND"
            and row[names.index("status")].startswith("UP")
        }

    def send(self, **fields: Any) -> Fields:
        """Send one file through HAProxy, and retry like any client if no node accepted it."""
        while True:
            with Client(socket.create_connection(("127.0.0.1", self.port))) as client:
                try:
                    client.send(CLIP, **fields)
                    reply = client.receive()
                except ConnectionError:
                    continue
                if reply is not None and reply.get("error", {}).get("code") != "shutting_down":
                    return reply

    def outcomes(self) -> dict[str, Fields]:
        return {line["id"]: line for node in self.nodes for line in node.outcomes()}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path, stack)


def accepted(cluster: Cluster, count: int) -> set[str]:
    replies = [cluster.send(reply="accepted") for _ in range(count)]
    assert {reply["status"] for reply in replies} == {"accepted"}
    return {reply["id"] for reply in replies}


def test_requests_survive_the_drain_of_a_node(cluster: Cluster) -> None:
    ids = accepted(cluster, 4)
    cluster.nodes[0].signal(signal.SIGTERM)
    for _ in range(2):
        assert WORDS in cluster.send()["text"].lower()
    assert cluster.nodes[0].wait() == 0
    assert WORDS in cluster.send()["text"].lower()
    eventually(lambda: ids <= cluster.outcomes().keys())
    found = cluster.outcomes()
    assert all(WORDS in found[name]["text"].lower() for name in ids)
    # HAProxy distributes, so both nodes had some of the requests.
    assert all(ids & {line["id"] for line in node.outcomes()} for node in cluster.nodes)
    eventually(lambda: cluster.up() == {"node2"})


def test_requests_survive_the_death_of_a_node(cluster: Cluster) -> None:
    assert cluster.healthy(0)
    ids = accepted(cluster, 8)
    # It is frozen before it is killed, so that it certainly has unfinished requests.
    while not cluster.freezes_with_work(0):
        cluster.nodes[0].signal(signal.SIGCONT)
        ids |= accepted(cluster, 8)
    cluster.nodes[0].signal(signal.SIGKILL)
    cluster.nodes[0].wait()
    assert not cluster.healthy(0)
    missing = {line["id"] for line in cluster.nodes[0].outcomes()} ^ ids
    assert WORDS in cluster.send()["text"].lower()
    cluster.nodes.append(cluster.start(0))
    eventually(lambda: ids <= cluster.outcomes().keys())
    found = cluster.outcomes()
    assert all(WORDS in found[name]["text"].lower() for name in ids)
    again = {line["id"] for line in cluster.nodes[2].outcomes() if line.get("recovered")}
    assert again
    # The outcome of one request may be written while its journal entry is not yet removed.
    assert len(again - missing) <= 1
    eventually(lambda: cluster.up() == {"node1", "node2"})
