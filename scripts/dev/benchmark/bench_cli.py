"""The program behind scripts/dev/bench: the node beside its peers, in one run.

The node is measured with the engine in --venv. If scripts/build_engine has installed an engine
there, the node with the wheel of the package index is measured in a further row.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from engine_build.child import ChildError
from engine_build.installation import Environment, InstallError
from engine_build.recipes import NATIVE, TINYBLAS, Recipe
from engine_build.workshop import BuildError, Workshop

from benchmark import corpus, idle, measure, report, share, usage
from benchmark.corpus import CorpusError
from benchmark.engines import Engine, EngineError, Maker, Node, PythonPeer, WhisperServer
from benchmark.environment import (
    FOLDER,
    PYTHON,
    ROOT,
    SetupError,
    ggml_model,
    node_python,
    peer_weights,
)
from benchmark.node import NodeError

CLIENTS = 8
LONG_SECONDS = 120.0
WHEEL, BUILT = "node, stock wheel", "node, engine built here"
QUICK_SHORT, QUICK_LONG, QUICK_CROWD = 12, 1, 8

_EXPECTED = (
    BuildError,
    ChildError,
    CorpusError,
    EngineError,
    InstallError,
    NodeError,
    SetupError,
)
"""Errors with a text that says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            return _run(arguments, Path(folder))
    except (*_EXPECTED, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/dev/bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer clips: under five minutes once set up")
    add("--model", default="tiny.en", help="a catalogue name (default: tiny.en)")
    add("--language", default="en", help="en, another code, or auto (default: en)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each engine")
    add("--rounds", type=int, default=1, help="runs of each short clip; the median counts")
    add("--audio", type=Path, default=ROOT.parent / "shared" / "audio", help="folder with refs.tsv")
    add("--venv", type=Path, default=ROOT / ".venv", help="the node's environment")
    add(
        "--only",
        default="",
        help="engines to measure beside the node: a comma-separated part "
        "of server, pywhispercpp, beam1, beam5 (default: all)",
    )
    add(
        "--server-tinyblas",
        action="store_true",
        help="also build whisper.cpp's server with tinyBLAS, which is off by default",
    )
    add("--json", type=Path, metavar="FILE", help="default: a file in the temporary folder")
    add("--picture", type=Path, metavar="FILE", help="default: a file in the temporary folder")
    add("node_options", nargs="*", metavar="-- OPTION", help="options for the node")
    return parser


def _run(arguments: argparse.Namespace, folder: Path) -> int:
    clips = corpus.read(arguments.audio)
    speech = [clip for clip in clips if clip.group == "speech"]
    short = [clip for clip in speech if clip.seconds < corpus.SHORT_SECONDS]
    long = corpus.as_wav([clip for clip in clips if clip.group == "long"], folder)
    long += corpus.join(speech, LONG_SECONDS, "joined", folder)
    crowded = short
    if arguments.quick:
        short = short[:: max(1, len(short) // QUICK_SHORT)][:QUICK_SHORT]
        long = [clip for clip in long if clip.name == "joined-1"][:QUICK_LONG]
        crowded = short[:QUICK_CROWD]
    short = corpus.as_wav(short, folder)
    crowded = [clip for clip in short if clip.name in {one.name for one in crowded}]
    # Before anything runs, so that the load is that of other programs and the commit is current.
    note = Environment(arguments.venv).note()
    machine = _machine(arguments, note)
    engines: list[Engine] = []
    try:
        for maker in (*_nodes(arguments, note), *_peers(arguments)):
            print(f"Starting {maker.name} ...", file=sys.stderr)
            engines.append(maker.start())
        results = _measure(arguments, machine, engines, short, long, crowded)
    finally:
        for engine in engines:
            engine.close()
    text = report.markdown(results)
    print(text)
    name = arguments.model + ("" if arguments.language == "en" else f"-{arguments.language}")
    folder = Path(tempfile.gettempdir())
    json_path = arguments.json or folder / f"benchmark-{name}.json"
    picture = arguments.picture or folder / f"benchmark-{name}.svg"
    report.write_json(results, json_path)
    if not arguments.quick or arguments.picture is not None:
        report.draw(results, picture, f"{name}: {results.machine['processor']}")
        print(f"Picture: {picture}", file=sys.stderr)
    print(f"JSON: {json_path}", file=sys.stderr)
    return 0


def _nodes(arguments: argparse.Namespace, note: dict[str, Any] | None) -> list[Maker]:
    """The node with the installed engine, and the node with the wheel if that is another engine."""
    options = ["--threads", str(arguments.threads), "--language", arguments.language]
    options += arguments.node_options
    pythons = {WHEEL: node_python(arguments.venv)}
    if note is not None:
        pythons = {BUILT: pythons[WHEEL], WHEEL: PYTHON}
    return [
        Maker(name, lambda name=name, python=python: Node(name, python, arguments.model, options))
        for name, python in pythons.items()
    ]


def _peers(arguments: argparse.Namespace) -> list[Maker]:
    """The requested peers."""
    model, threads, language = arguments.model, str(arguments.threads), arguments.language
    file = ggml_model(model)
    wanted = set(arguments.only.split(",")) if arguments.only else None
    makers: list[Maker] = []

    def ask_for(key: str) -> bool:
        return wanted is None or key in wanted

    if ask_for("server"):
        recipes = [NATIVE, TINYBLAS] if arguments.server_tinyblas else [NATIVE]
        for recipe in recipes:
            name = "whisper.cpp server" + (" + tinyBLAS" if recipe is TINYBLAS else "")
            program = _server(recipe)
            makers.append(
                Maker(
                    name,
                    lambda name=name, program=program: WhisperServer(
                        name, program, file, arguments.threads, language
                    ),
                )
            )
    if ask_for("pywhispercpp"):
        worker = ["pywhispercpp", str(file), threads, language]
        makers.append(
            Maker("pywhispercpp, defaults", lambda: PythonPeer("pywhispercpp, defaults", worker))
        )
    weights = peer_weights(model) if ask_for("beam1") or ask_for("beam5") else None
    if weights is None and (wanted is None or wanted & {"beam1", "beam5"}):
        print(
            f"There are no CTranslate2 weights of {model}; faster-whisper is omitted.",
            file=sys.stderr,
        )
    for beam in (1, 5):
        if weights is not None and ask_for(f"beam{beam}"):
            name = f"faster-whisper int8, beam {beam}"
            child = ["faster-whisper", str(weights), threads, language, str(beam)]
            makers.append(Maker(name, lambda name=name, child=child: PythonPeer(name, child)))
    return makers


def _server(recipe: Recipe) -> Path:
    """whisper.cpp's server, built once and kept in .venv-bench."""
    program = FOLDER / "bin" / f"whisper-server-{recipe.name}"
    if not program.exists():
        print("Building whisper.cpp's server (once, a few minutes) ...", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="bench-build-") as scratch:
            shop = Workshop(Path(scratch), FOLDER / "bin" / "python")
            shop.prepare()
            data = shop.build_server(recipe).read_bytes()
        part = program.with_suffix(".part")
        part.write_bytes(data)
        part.chmod(0o755)
        part.rename(program)
    return program


def _measure(
    arguments: argparse.Namespace,
    machine: dict[str, str],
    engines: Sequence[Engine],
    short: Sequence[corpus.Clip],
    long: Sequence[corpus.Clip],
    crowded: Sequence[corpus.Clip],
) -> report.Results:
    before = {engine.name: usage.memory(engine.pid) for engine in engines}
    # The peers allocate buffers in their first call, and the node warms up. It is not measured.
    for engine in engines:
        engine.transcribe(short[0].path)
    samples = measure.in_turn(engines, short, "short", arguments.rounds)
    samples += measure.in_turn(engines, long, "long")
    crowds = [measure.crowd(engine, crowded, CLIENTS) for engine in engines]
    node = engines[0]
    assert isinstance(node, Node)
    latency = share.of_latency(node, short, 1 if arguments.quick else 3)
    facts = tuple(
        report.EngineFacts(
            engine.name, engine.cold_start, before[engine.name], usage.memory(engine.pid)
        )
        for engine in engines
    )
    # The memory was read before, because a body of 100 MB is not a normal load.
    ingest = share.of_ingest(node)
    cost = idle.measure(node.again, short)
    references = {clip.name: clip.text for clip in (*short, *long)}
    return report.Results(
        machine=machine,
        nodes=tuple(engine.name for engine in engines if isinstance(engine, Node)),
        facts=facts,
        samples=tuple(samples),
        crowds=tuple(crowds),
        share=latency,
        ingest=ingest,
        idle=cost,
        references=references,
        clients=CLIENTS,
    )


def _machine(arguments: argparse.Namespace, note: dict[str, Any] | None) -> dict[str, str]:
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "model": arguments.model,
        "language": arguments.language,
        "processor": names[0] if names else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "threads": str(arguments.threads),
        "engine built here": str(note["recipe"]) if note is not None else "none",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit.stdout.strip() or "none",
    }


if __name__ == "__main__":
    sys.exit(main())
