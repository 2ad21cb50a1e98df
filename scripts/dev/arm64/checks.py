"""The checks of the running image. Each gives its name, whether it holds, and what it found.

No check measures time: the emulated processor is a hundred times slower than a board. The time
limits only end a step that hangs.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arm64.container import Container

ROOT = Path(__file__).resolve().parents[3]
_CLIENT = ROOT / "scripts" / "client.py"
_CLIP = ROOT / "tests" / "audio" / "jfk.flac"
_WORDS = "ask not what your country can do for you"

HANG = 1800.0
"""Seconds until a check gives up on a step."""

_DRAIN = 900

_ENGINE_THREADS = 3
_THREADS = f"""
import json, os
from pathlib import Path
import numpy as np
from app.decoding.engine import Engine
from app.audio.vad import CHUNK, SileroDetector

def threads():
    return len(os.listdir("/proc/self/task"))

detector, before = SileroDetector(), threads()
detector.probability(np.random.default_rng(0).standard_normal(CHUNK).astype(np.float32) * 0.1)
detection = threads() - before
engine = Engine(next(Path("models").glob("ggml-*.bin")), "model", {_ENGINE_THREADS}, "auto")
before = threads()
engine.warm_up()
maps = Path("/proc/self/maps").read_text().splitlines()
openmp = sorted({{line.split()[-1] for line in maps if "libgomp" in line}})
print(json.dumps({{"detection": detection, "engine": threads() - before, "openmp": openmp}}))
engine.close()
"""
"""Return the threads that a detection and then the engine start, and their OpenMP libraries."""


@dataclass(frozen=True)
class Check:
    name: str
    holds: bool
    seen: str


def run(root: Path, config: Mapping[str, Any]) -> Iterator[Check]:
    """Run all checks, first on a processor with dot products and then on one without."""
    yield from _newer(root, config)
    yield from _older(root, config)
    yield _fetching(root, config)


def _newer(root: Path, config: Mapping[str, Any]) -> Iterator[Check]:
    port = _free_port()
    with Container(root, config, _environment(port, "cortex-a76")) as container:
        line = container.wait_for_log(lambda line: '"event": "listening"' in line, HANG)
        yield Check(
            "the node starts on a read-only root and listens",
            line is not None,
            line or "\n".join(container.log[-10:]),
        )
        if line is None:
            return
        yield _processor(container, "cortex-a76", dot_products=True)
        status = container.status_of_first()
        users = status.get("Uid", "").split()
        yield Check("the user is not root", bool(users) and "0" not in users, f"Uid {users}")
        yield Check(
            "the process has no capabilities",
            int(status.get("CapEff", "1"), 16) == 0,
            f"CapEff {status.get('CapEff')}",
        )
        touched = container.run("python", "-c", "open('/app/x', 'w')")
        yield Check(
            "the root file system is read-only",
            "Read-only file system" in touched.stderr,
            touched.stderr.strip().splitlines()[-1:][0] if touched.stderr else "no error",
        )
        yield _health(container, config, 0, "the health check passes")
        with _client(port) as client:
            text = client.communicate(timeout=HANG)[0].strip()
        yield Check("the client gets the right words", _WORDS in text.lower(), text)
        yield _openmp(container)
        # The node accepts the request and then gets the signal while it transcribes.
        with _client(port, "--fire-and-forget") as client:
            accepted = client.communicate(timeout=HANG)[0].strip()
        container.signal(config.get("StopSignal", "SIGTERM"))
        code = container.wait(HANG)
        told = [line for line in container.output if accepted.removeprefix("accepted ") in line]
        yield Check(
            "SIGTERM drains",
            code == 0 and any(_WORDS in line.lower() for line in told),
            f"{accepted}, then SIGTERM; status {code}; stdout: {told}",
        )


def _older(root: Path, config: Mapping[str, Any]) -> Iterator[Check]:
    port = _free_port()
    with Container(root, config, _environment(port, "cortex-a72")) as container:
        container.wait_for_log(lambda line: '"event": "listening"' in line, HANG)
        yield _processor(container, "cortex-a72", dot_products=False)
        with _client(port) as client:
            text = client.communicate(timeout=HANG)[0].strip()
        yield Check("the client gets the right words there as well", _WORDS in text.lower(), text)


def _fetching(root: Path, config: Mapping[str, Any]) -> Check:
    """The node is process 1, which gets only those signals that it has a handler for."""
    name = "SIGTERM ends the node while it waits for a model"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(HANG)
        environment = {
            "NODE_WHISPER_MODEL": "small.en",
            "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        with Container(root, config, environment) as container:
            try:
                connection = silent.accept()[0]
            except TimeoutError:
                return Check(
                    name, False, "\n".join(["the node requested no model", *container.log[-10:]])
                )
            with connection:
                container.signal(config.get("StopSignal", "SIGTERM"))
                code = container.wait(HANG)
    return Check(name, code == 128 + signal.SIGTERM, f"status {code}")


def _openmp(container: Container) -> Check:
    """The limit of one thread applies to the detector's copy of libgomp, not to the engine's."""
    done = container.run("python", "-c", _THREADS)
    name = "the detector starts no threads; the engine starts its own"
    if done.returncode != 0:
        return Check(name, False, done.stderr.strip()[-800:])
    # The engine's log precedes it.
    line = done.stdout.strip().splitlines()[-1]
    seen = json.loads(line)
    started = (seen["detection"], seen["engine"]) == (0, _ENGINE_THREADS - 1)
    return Check(name, started and len(seen["openmp"]) == 2, line)


def _processor(container: Container, name: str, dot_products: bool) -> Check:
    line = next((line for line in container.log if '"event": "engine"' in line), "")
    info = str(json.loads(line).get("system", "")) if line else ""
    wanted = "with" if dot_products else "without"
    return Check(
        f"on a {name} the engine works {wanted} dot products",
        bool(info) and ("DOTPROD = 1" in info) == dot_products,
        info or "no log line",
    )


def _health(container: Container, config: Mapping[str, Any], code: int, name: str) -> Check:
    kind, *command = config["Healthcheck"]["Test"]
    done = container.run(*command)
    return Check(
        name,
        kind == "CMD" and done.returncode == code,
        f"status {done.returncode} {(done.stdout + done.stderr).strip()}",
    )


def _environment(port: int, processor: str) -> dict[str, str]:
    return {
        "QEMU_CPU": processor,
        "NODE_WHISPER_HOST": "127.0.0.1",
        "NODE_WHISPER_PORT": str(port),
        "NODE_WHISPER_HTTP_PORT": str(_free_port()),
        "NODE_WHISPER_OFFLINE": "1",
        "NODE_WHISPER_LOG_VERBOSE": "1",
        "NODE_WHISPER_LOG_FORMAT": "json",
        "NODE_WHISPER_DRAIN_SECONDS": str(_DRAIN),
    }


def _client(port: int, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(_CLIENT), "--port", str(port), *options, str(_CLIP)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
