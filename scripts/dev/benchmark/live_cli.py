"""The program behind scripts/dev/live: live audio in real time, on the node and on a peer.

Commands are clips with a tail of noise that end where Home Assistant would end them. They are sent
over Wyoming in its packets of 10 ms, each at the time of its last sample. The peer is
wyoming-faster-whisper on the same weights. A run takes as long as the audio.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmark import corpus
from benchmark.corpus import RATE, Clip, CorpusError
from benchmark.engines import EngineError
from benchmark.environment import PYTHON, ROOT, SetupError, node_python, peer_weights
from benchmark.home_assistant import SILENCE_SECONDS
from benchmark.live_commands import Command, command
from benchmark.live_figures import Result, markdown
from benchmark.live_loads import Load, as_files, beside_a_file, crowd, speak, streams
from benchmark.live_player import PlayError
from benchmark.live_servers import LiveNode, Server, WyomingPeer
from benchmark.node import NodeError

LOADS = ("alone", "four", "file", "hesitations", "noise", "packets", "bursts", "crowd", "streams")
_FILE_SECONDS = 600.0
_CLIENTS, _CROWD_SECONDS = 16, 3600
_SHORT = (2.0, 4.0)
"""Length of the clips of a crowd."""

_EXPECTED = (CorpusError, EngineError, NodeError, PlayError, SetupError, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    # So that the servers are closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with tempfile.TemporaryDirectory(prefix="live-") as folder:
            return _run(arguments, Path(folder))
    except _EXPECTED as error:
        print(f"live: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/dev/live", description=__doc__)
    add = parser.add_argument
    add(
        "--loads",
        default=",".join(LOADS),
        help="a comma-separated part of %(default)s. NAME:NODE:PEER limits the commands on the "
        "node and on the peer (0: none), for crowd and streams it is NAME:CLIENTS:SECONDS",
    )
    add("--no-peer", action="store_true", help="measure the node alone")
    add(
        "--pause",
        choices=list(SILENCE_SECONDS),
        default="default",
        help="Home Assistant's setting of the pause that ends a command (default: default)",
    )
    add("--model", default="tiny.en", help="a catalogue name (default: tiny.en)")
    add("--language", default="en", help="code of the language (default: en)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each engine")
    add("--audio", type=Path, default=ROOT.parent / "shared" / "audio", help="folder with refs.tsv")
    add("--venv", type=Path, help="the node's environment (default: the stock wheel)")
    add("--json", type=Path, metavar="FILE", help="default: a file in the temporary folder")
    add("node_options", nargs="*", metavar="-- OPTION", help="options for the node")
    return parser


def _run(arguments: argparse.Namespace, folder: Path) -> int:
    loads = [Order.read(text) for text in arguments.loads.split(",")]
    clips = corpus.read(arguments.audio)
    weights = None if arguments.no_peer else peer_weights(arguments.model)
    if weights is None and not arguments.no_peer:
        raise SetupError(f"there are no CTranslate2 weights of {arguments.model}; use --no-peer")
    print(_machine(), file=sys.stderr)
    options = ["--threads", str(arguments.threads), "--language", arguments.language]
    options += arguments.node_options
    python = PYTHON if arguments.venv is None else node_python(arguments.venv)
    servers: list[Server] = []
    try:
        node = LiveNode(python, arguments.model, options)
        servers.append(node)
        if weights is not None:
            servers.append(WyomingPeer(weights, arguments.threads, arguments.language))
        bench = _Bench(arguments, clips, folder, node, servers)
        path = arguments.json or Path(tempfile.gettempdir()) / f"live-{arguments.model}.json"
        results, failed = _results(bench, loads, path)
    finally:
        for server in servers:
            server.close()
    print(f"\n{_machine()}, {arguments.model}, pause of Home Assistant: {arguments.pause}\n")
    print(markdown(results))
    print(f"JSON: {path}", file=sys.stderr)
    return int(failed)


def _results(bench: _Bench, loads: Sequence[Order], path: Path) -> tuple[list[Result], bool]:
    """Run the loads and write the results after each. Return them, and whether a load failed."""
    results: list[Result] = []
    failed = False
    for load in loads:
        try:
            results += bench.run(load)
        except (PlayError, NodeError) as error:
            # The other loads take minutes, too.
            _progress(f"{load.name} failed: {error}")
            failed = True
        path.write_text(json.dumps([result.as_json() for result in results], indent=1))
    return results, failed


@dataclass(frozen=True)
class Order:
    """One load of the command line, with its limits."""

    name: str
    first: int | None = None
    second: int | None = None

    @classmethod
    def read(cls, text: str) -> Order:
        """Read NAME[:NUMBER[:NUMBER]]. Raises `SetupError`."""
        name, *numbers = text.split(":")
        if name not in LOADS or len(numbers) > 2 or not all(map(str.isdecimal, numbers)):
            names = ", ".join(LOADS)
            raise SetupError(f"{text} is no load: write NAME:NUMBER:NUMBER, with one of {names}")
        return cls(name, *map(int, numbers))


class _Bench:
    """Runs the loads on all servers."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        clips: Sequence[Clip],
        folder: Path,
        node: LiveNode,
        servers: Sequence[Server],
    ) -> None:
        self._arguments = arguments
        self._node = node
        self._servers = servers
        self._made: dict[tuple[str, bool], Command] = {}
        speech = [clip for clip in clips if clip.group == "speech"]
        self._speech = [clip for clip in speech if clip.seconds <= corpus.SHORT_SECONDS]
        self._silent = [clip for clip in clips if clip.group == "nonspeech"]
        times = 1 + int(_FILE_SECONDS / sum(clip.seconds for clip in speech))
        self._file = corpus.join(speech * times, _FILE_SECONDS, "ten-minutes", folder)[0]
        # The first request of an engine is slower.
        warm = self._commands(self._speech[:1])
        for server in servers:
            speak(Load("warm"), server, warm, arguments.language)

    def run(self, order: Order) -> list[Result]:
        language, name = self._arguments.language, order.name
        if name in ("crowd", "streams"):
            return [self._crowd(order)]
        hesitates = name == "hesitations"
        clips = self._silent if name == "noise" else self._speech
        commands = self._commands(_spread(clips, order.first), hesitates)
        load = {
            "alone": Load("alone"),
            "four": Load("four at once", lanes=4),
            "file": Load("beside a ten-minute file"),
            "hesitations": Load("hesitations"),
            "noise": Load("noise only"),
            "packets": Load("packets of 64 ms", packet=0.064),
            "bursts": Load("bursts of 2 s", burst=2.0),
        }[name]
        results = []
        for server in self._servers:
            some = commands if server is self._node else _spread(commands, order.second)
            if not some:
                continue
            _progress(f"{load.name}: {server.name}")
            if name == "file":
                results.append(self._beside_file(load, server, some))
            else:
                results.append(speak(load, server, some, language))
        texts, cpu = as_files(self._node, commands, _progress)
        results[0] = replace(results[0], file_texts=texts, file_cpu=cpu)
        return results

    def _beside_file(self, load: Load, server: Server, commands: Sequence[Command]) -> Result:
        samples = np.rint(corpus.samples(self._file.path) * 32767).astype("<i2")
        file = Command("ten minutes", samples, None, self._file.text)
        result = beside_a_file(load, server, commands, file, self._arguments.language)
        if server is not self._node:
            return result
        reply = self._node.as_file(samples).fields
        window = reply["processing_seconds"] / reply["passes"]
        note = f"a window of the file takes {window:.2f} s on the idle node"
        return replace(result, note=f"{note} ({reply['passes']} of {len(samples) / RATE:.0f} s)")

    def _crowd(self, order: Order) -> Result:
        clients, seconds = order.first or _CLIENTS, float(order.second or _CROWD_SECONDS)
        clips = [clip for clip in self._speech if _SHORT[0] <= clip.seconds <= _SHORT[1]]
        commands = self._commands(clips)
        _progress(f"{order.name} of {clients} for {seconds:.0f} s")
        if order.name == "streams":
            return streams(self._node, commands, clients, seconds)
        return crowd(self._node, commands, clients, seconds, self._arguments.language)

    def _commands(self, clips: Sequence[Clip], hesitates: bool = False) -> list[Command]:
        return [self._command(clip, hesitates) for clip in clips]

    def _command(self, clip: Clip, hesitates: bool) -> Command:
        key = (clip.name, hesitates)
        if key not in self._made:
            self._made[key] = command(clip, self._arguments.pause, hesitates)
        return self._made[key]


def _spread(items: Sequence, most: int | None) -> list:
    """At most `most` of the items, evenly chosen."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[round(at)] for at in np.linspace(0, len(items) - 1, most)]


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    kind = "AVX-512" if "avx512f" in flags else "no AVX-512"
    load = os.getloadavg()[0]
    return (
        f"{(names or [platform.processor()])[0]} ({kind}), {os.cpu_count()} CPUs, load {load:.1f}"
    )


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
