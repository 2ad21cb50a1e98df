"""The program behind scripts/dev/accuracy: compares the words of the node and of bare pywhispercpp.

Exits with status 1 if the node is worse by more than 0.3 points or three words (whichever is more),
gives text for a clip without speech, or answers a format clip with other words or an unclear error.

With --conditions it degrades the short clips in the ways of real recordings: levels, channels,
noise, repetitions, prompts. With --cues it transcribes long recordings with and without a prompt,
and measures the lengths and times of their subtitles. Both print tables without a verdict.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine_build.child import ChildError

from benchmark import conditions_cli, corpus, cues_cli, scoring
from benchmark.corpus import Clip, CorpusError
from benchmark.engines import PythonPeer
from benchmark.environment import ROOT, SetupError, ggml_model, node_python
from benchmark.node import NodeError, NodeProcess, Reply, request

LONG_SECONDS = 300.0
REFUSALS = {"unsupported_media_type", "bad_audio"}
ALLOWED_POINTS = 0.3
ALLOWED_WORDS = 3


@dataclass(frozen=True)
class Heard:
    """The two transcripts of one clip."""

    clip: Clip
    node: str
    bare: str


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        if arguments.conditions is not None:
            return conditions_cli.run(arguments)
        if arguments.cues:
            return cues_cli.run(arguments)
        with tempfile.TemporaryDirectory(prefix="accuracy-") as folder:
            return _run(arguments, Path(folder))
    except (ChildError, CorpusError, NodeError, SetupError, OSError) as error:
        print(f"accuracy: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/dev/accuracy", description=__doc__)
    add = parser.add_argument
    add("--audio", type=Path, default=ROOT.parent / "shared" / "audio", help="folder with refs.tsv")
    add("--model", default="tiny.en", help="model of both engines: a catalogue name or a ggml file")
    add("--language", default="en", help="default: en")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--venv", type=Path, default=ROOT / ".venv", help="the node's environment")
    add("--host", help="address of a running node to measure instead of starting one")
    add("--port", type=int, default=56789, help="port of the running node (default: 56789)")
    add("--sets", default="speech,long,nonspeech,format", help="default: all four")
    add(
        "--conditions",
        type=_names,
        nargs="?",
        const=(),
        metavar="NAME,...",
        help="degrade the short clips in these ways: level, offset, whispered, channels, range, "
        "around, noise, repetition, prompt, telephone, nonspeech (default: all of them)",
    )
    add("--cues", action="store_true", help="measure the subtitles of long recordings")
    add(
        "--node",
        type=Path,
        action="append",
        default=[],
        metavar="CHECKOUT",
        help="with --conditions or --cues: measure the node of another checkout beside this one",
    )
    add("--clips", type=int, default=0, help="with --conditions: the number of short clips to use")
    add(
        "--keep",
        type=Path,
        metavar="FILE",
        help="with --conditions or --cues: file that keeps the answers, so that a run can continue",
    )
    add("-v", "--verbose", action="store_true", help="print the clips with wrong words")
    add("node_options", nargs="*", metavar="-- OPTION", help="options for the node that it starts")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _run(arguments: argparse.Namespace, folder: Path) -> int:
    clips = corpus.read(arguments.audio)
    sets = arguments.sets.split(",")
    model = ggml_model(arguments.model)
    process = None
    if arguments.host is None:
        options = ["--threads", str(arguments.threads), "--language", arguments.language]
        options += arguments.node_options
        process = NodeProcess(node_python(arguments.venv), arguments.model, options)
        address = process.address
    else:
        address = (arguments.host, arguments.port)
    worker = [str(model), str(arguments.threads), arguments.language]
    bare = PythonPeer("bare pywhispercpp", ["pywhispercpp", *worker])
    try:
        good = True
        print(f"Word error rate, {model.name}\n")
        print("| set | clips | node | bare pywhispercpp | difference |\n|---|---|---|---|---|")
        for name, chosen in _speech_sets(clips, sets, folder):
            good &= _compare(name, _listen(address, bare, chosen), arguments.verbose)
        print()
        if "nonspeech" in sets:
            good &= _nonspeech(address, clips)
        if "format" in sets:
            good &= _formats(address, clips)
    finally:
        bare.close()
        if process is not None:
            process.close()
    return 0 if good else 1


def _speech_sets(
    clips: Sequence[Clip], sets: Sequence[str], folder: Path
) -> list[tuple[str, list[Clip]]]:
    speech = [clip for clip in clips if clip.group == "speech"]
    chosen: list[tuple[str, list[Clip]]] = []
    if "speech" in sets:
        chosen.append(("speech", corpus.as_wav(speech, folder)))
    if "long" in sets:
        whole = corpus.as_wav([clip for clip in clips if clip.group == "long"], folder)
        whole += corpus.join(speech, LONG_SECONDS, "joined", folder)
        chosen.append(("long", whole))
    return chosen


def _listen(address: tuple[str, int], bare: PythonPeer, clips: Sequence[Clip]) -> list[Heard]:
    heard: list[Heard] = []
    for clip in clips:
        reply = request(address, clip.path.read_bytes(), "wav")
        heard.append(Heard(clip, reply.text, bare.transcribe(clip.path)))
        print(f"\r{len(heard)} of {len(clips)} clips", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 30 + "\r", end="", file=sys.stderr, flush=True)
    return heard


def _compare(name: str, heard: Sequence[Heard], verbose: bool) -> bool:
    node = scoring.score((one.clip.text, one.node) for one in heard)
    bare = scoring.score((one.clip.text, one.bare) for one in heard)
    points, words = node.percent - bare.percent, node.wrong - bare.wrong
    print(f"| {name} | {len(heard)} | {node} | {bare} | {points:+.2f} points, {words:+d} words |")
    if verbose:
        for one in heard:
            mine = scoring.score([(one.clip.text, one.node)])
            if mine.wrong:
                print(f"  {one.clip.name}: {mine}\n    said:  {one.clip.text}")
                print(f"    node:  {one.node}\n    bare:  {one.bare}")
    return points <= ALLOWED_POINTS or words <= ALLOWED_WORDS


def _nonspeech(address: tuple[str, int], clips: Sequence[Clip]) -> bool:
    loud: list[str] = []
    chosen = [clip for clip in clips if clip.group == "nonspeech"]
    for clip in chosen:
        reply = _send(address, clip)
        if reply.fields["status"] != "ok" or reply.text:
            loud.append(f"{clip.name}: {_summary(reply)}")
    verdict = "all give an empty text" if not loud else "FAILED: some give a text"
    print(f"nonspeech: {len(chosen)} clips, {verdict}", *loud, sep="\n  ")
    return not loud


def _formats(address: tuple[str, int], clips: Sequence[Clip]) -> bool:
    good = True
    print("format:")
    for clip in clips:
        if clip.group != "format":
            continue
        reply = _send(address, clip)
        if reply.fields["status"] == "ok":
            result = scoring.score([(clip.text, reply.text)])
            same = scoring.joined(clip.text) == scoring.joined(reply.text)
            wrong = 0 if same else result.wrong
            verdict = f"{wrong} of {len(clip.text.split())} words wrong: {reply.text}"
        else:
            code = reply.fields["error"]["code"]
            good &= code in REFUSALS
            verdict = f"refused: {code}: {reply.fields['error']['message']}"
        print(f"  {clip.path.suffix[1:]:5} {clip.name:24} {verdict}")
    good &= _same_words(address, clips)
    return good


def _same_words(address: tuple[str, int], clips: Sequence[Clip]) -> bool:
    """Compare the texts of one recording in several containers, which must be equal."""
    by_text: dict[str, set[str]] = {}
    for clip in clips:
        if clip.group == "format":
            reply = _send(address, clip)
            if reply.fields["status"] == "ok":
                by_text.setdefault(clip.text, set()).add(scoring.joined(reply.text))
    different = {text: heard for text, heard in by_text.items() if len(heard) > 1}
    for text, heard in different.items():
        print(f"  FAILED: the words of {text!r} differ between containers: {sorted(heard)}")
    if not different:
        print("  every supported container gives the same words")
    return not different


def _send(address: tuple[str, int], clip: Clip) -> Reply:
    return request(address, clip.path.read_bytes(), clip.path.suffix[1:])


def _summary(reply: Reply) -> str:
    return str(reply.fields.get("text") or reply.fields.get("error"))


if __name__ == "__main__":
    sys.exit(main())
