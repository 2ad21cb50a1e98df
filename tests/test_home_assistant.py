"""The add-on for Home Assistant: its files, its options, and the script that starts the node.

Home Assistant is not here. `CONFIG` and `OPTION` are written from its documentation
(developers.home-assistant.io, "Add-on configuration"), for the keys that the add-on uses.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from app.protocols.http.forwarded import read_forwarded
from app.settings.option import PREFIX
from app.settings.options import OPTIONS
from app.settings.settings import read

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parent.parent
ADD_ON = ROOT / "deploy/home-assistant/node-whisper"

CONFIG: dict[str, Callable[[Any], object]] = {
    "name": lambda value: isinstance(value, str),
    "version": lambda value: isinstance(value, str) and re.fullmatch(r"\d+\.\d+\.\d+", value),
    "slug": lambda value: re.fullmatch(r"[-_.A-Za-z0-9]+", value),
    "description": lambda value: isinstance(value, str),
    "url": lambda value: value.startswith("https://"),
    "arch": lambda value: set(value) <= {"armhf", "armv7", "aarch64", "amd64", "i386"},
    "startup": lambda value: value in ("initialize", "system", "services", "application", "once"),
    "boot": lambda value: value in ("auto", "manual", "manual_only"),
    "discovery": lambda value: all(isinstance(name, str) for name in value),
    "ingress": lambda value: isinstance(value, bool),
    "ingress_port": lambda value: 0 <= value <= 65535,
    "ingress_stream": lambda value: isinstance(value, bool),
    "panel_icon": lambda value: re.fullmatch(r"mdi:[a-z-]+", value),
    "panel_title": lambda value: isinstance(value, str),
    "ports": lambda value: all(
        re.fullmatch(r"\d+/(tcp|udp)", name) and (port is None or isinstance(port, int))
        for name, port in value.items()
    ),
    "ports_description": lambda value: all(isinstance(text, str) for text in value.values()),
    "watchdog": lambda value: re.fullmatch(
        r"(?:https?|\[PROTO:\w+\]|tcp)://\[HOST\]:(\[PORT:\d+\]|\d+).*", value
    ),
    "backup_exclude": lambda value: all(isinstance(pattern, str) for pattern in value),
    "timeout": lambda value: 10 <= value <= 300,
    "options": lambda value: isinstance(value, dict),
    "schema": lambda value: all(re.fullmatch(OPTION, kind) for kind in value.values()),
}
REQUIRED = {"name", "version", "slug", "description", "arch"}
OPTION = (
    r"(str|bool|email|url|password|port|int|float|device|match\(.*\)"
    r"|(str|int|float)\([0-9.]*,[0-9.]*\)|list\(.+\))\??"
)


def load(name: str) -> Any:
    return yaml.safe_load((ADD_ON / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run() -> Any:
    spec = importlib.util.spec_from_file_location("add_on_run", ADD_ON / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_configuration_fits_home_assistants_documentation() -> None:
    config = load("config.yaml")
    assert config.keys() >= REQUIRED
    for name, value in config.items():
        assert CONFIG[name](value), name
    needed = {name for name, kind in config["schema"].items() if not kind.endswith("?")}
    assert needed <= config["options"].keys() <= config["schema"].keys()
    assert config["ports"].keys() == config["ports_description"].keys()


def test_version_is_this_ones() -> None:
    from app import __version__

    assert load("config.yaml")["version"] == __version__.partition(".dev")[0]


def test_repository_and_build_name_what_home_assistant_needs() -> None:
    repository = yaml.safe_load((ADD_ON.parent / "repository.yaml").read_text())
    assert repository.keys() == {"name", "url", "maintainer"}
    assert load("build.yaml")["build_from"].keys() == set(load("config.yaml")["arch"])
    dockerfile = (ADD_ON / "Dockerfile").read_text()
    assert "ARG BUILD_FROM" in dockerfile
    for name in re.findall(r"COPY (\S+)", dockerfile):
        assert (ADD_ON / name).is_file()


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_option_and_port_is_translated(language: str) -> None:
    config, texts = load("config.yaml"), load(f"translations/{language}.yaml")
    assert texts["configuration"].keys() == config["schema"].keys()
    assert all(
        option.keys() == {"name", "description"} for option in texts["configuration"].values()
    )
    assert texts["network"].keys() == config["ports"].keys()


def test_icon_is_a_square_png() -> None:
    head = (ADD_ON / "icon.png").read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", head[16:]) == (128, 128)


def test_default_options_are_settings_of_the_node(run: Any, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    settings = read([], run.variables(load("config.yaml")["options"], tmp_path))
    assert (settings.model, settings.language, settings.task) == ("base", "auto", "transcribe")
    assert (settings.http_port, settings.wyoming_port, settings.wyoming_open) == (8080, 10300, True)
    assert settings.journal == tmp_path / "journal"
    known = {option.variable for option in OPTIONS} | {f"{PREFIX}TOKEN"}
    assert set(run.VARIABLES.values()) <= known
    assert set(run.VARIABLES) | {"keep_requests"} == load("config.yaml")["schema"].keys()


def test_options_of_a_user_reach_the_node(run: Any, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    options = {
        "model": "small",
        "language": "de",
        "languages": "",
        "prompt": "Küche, Flur",
        "task": "translate",
        "threads": 3,
        "engines": "auto",
        "wyoming_streaming": True,
        "keep_requests": False,
        "token": "secret",
        "log_verbose": True,
    }
    environment = run.variables(options, tmp_path)
    settings = read([], environment)
    assert (settings.model, settings.language, settings.prompt) == ("small", "de", "Küche, Flur")
    assert (settings.task, settings.threads, settings.journal) == ("translate", 3, None)
    assert settings.engines == "auto"
    assert settings.wyoming_streaming
    assert settings.log_verbose
    assert settings.languages == ()
    # Of "browser, host" from the Supervisor's address, the browser counts.
    headers = [(b"x-forwarded-for", b"192.168.1.7, 172.30.32.1")]
    assert read_forwarded(headers, settings.trusted_proxy).client == "192.168.1.7"
    assert ip_address("172.30.32.2") in settings.trusted_proxy[1]
    assert ip_address("172.30.33.5") not in settings.trusted_proxy[1]
    assert environment["NODE_WHISPER_TOKEN"] == "secret"


class _Supervisor(BaseHTTPRequestHandler):
    heard: list[tuple[str, str | None, Any]]
    status = 200

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).heard.append((self.path, self.headers["Authorization"], body))
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def supervisor() -> Any:
    handler = type("Handler", (_Supervisor,), {"heard": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server, handler
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [200, 500])
def test_supervisor_is_told_of_the_node_once_it_listens(
    run: Any, supervisor: Any, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server, handler = supervisor
    handler.status = status
    port = server.server_port
    told = run.announce(f"http://127.0.0.1:{port}", "token", "local-node-whisper", port)
    assert told is (status == 200)
    uri = f"tcp://local-node-whisper:{port}"
    assert handler.heard == [
        ("/discovery", "Bearer token", {"service": "wyoming", "config": {"uri": uri}})
    ]
    assert ("could not be announced" in capsys.readouterr().err) is (status != 200)


def test_script_becomes_the_node_without_the_supervisors_token(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(json.dumps({"model": "tiny", "log_verbose": True}))
    script = (ADD_ON / "run.py").read_text(encoding="utf-8")
    script = script.replace('Path("/data")', f"Path({str(tmp_path)!r})")
    # Nothing listens here, so the announcement gives up at once.
    script = script.replace("PATIENCE_SECONDS = 3600.0", "PATIENCE_SECONDS = 0.0")
    script = script.replace('(sys.executable, "-m", "app")', '("/usr/bin/env",)')
    done = subprocess.run(
        [sys.executable, "-I", "-"],
        input=script,
        text=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "SUPERVISOR_TOKEN": "secret"},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "NODE_WHISPER_MODEL=tiny" in done.stdout
    assert "NODE_WHISPER_LOG_VERBOSE=1" in done.stdout
    assert "secret" not in done.stdout
    assert (tmp_path / "models").is_dir()
