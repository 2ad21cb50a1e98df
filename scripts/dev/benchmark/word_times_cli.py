"""The program behind scripts/dev/word_times: the errors of the node's word times.

The node transcribes joins of single words with known gaps, clips aligned by pocketsphinx, and long
recordings joined from those, with and without a prompt. Begins and ends are scored separately, over
the words that the node recognised correctly.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import soundfile

from benchmark import corpus
from benchmark.corpus import RATE, CorpusError
from benchmark.environment import ROOT, SetupError, node_python
from benchmark.node import NodeError, NodeProcess, request
from benchmark.word_truth import Aligner, Recording, Spoken, aligned, join, plain, single_words

PROMPT = "Notes from the meeting, 2024."
NUMBERS = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "9": "nine"}
JOIN_SECONDS = (8, 8, 8, 8, 29, 29, 70, 70)
SPEECH_SECONDS = (29, 29, 70, 70)
CLOSE_SECONDS = 0.3
LEAST_SECONDS = 0.02


@dataclass
class Score:
    """Errors in seconds of the correctly recognised words, and faults of all words."""

    begins: list[float]
    ends: list[float]
    heard: int = 0
    without_length: int = 0
    out_of_order: int = 0

    def add(self, truth: Sequence[Spoken], heard: Sequence[Spoken]) -> None:
        """Score one recording. Words are matched by their texts, not by their times."""
        for right, mine in _matches(truth, heard):
            self.begins.append(mine.start - right.start)
            self.ends.append(mine.end - right.end)
        self.heard += len(heard)
        self.without_length += sum(word.end - word.start < LEAST_SECONDS for word in heard)
        self.out_of_order += sum(word.end < word.start for word in heard)
        self.out_of_order += sum(after.start < before.end for before, after in pairwise(heard))

    def row(self, name: str) -> str:
        """One line of the table."""
        if not self.begins:
            return f"| {name} | 0 of {self.heard} | | | | | | | | | |"
        shares = 100 * self.without_length / self.heard
        return (
            f"| {name} | {len(self.begins)} of {self.heard} | {_errors(self.begins)} | "
            f"{_errors(self.ends)} | {shares:.1f} | {self.out_of_order} |"
        )


HEADER = (
    "| recordings | words | begin: median s | p95 s | within 0.3 s, % | bias s "
    "| end: median s | p95 s | within 0.3 s, % | bias s | without length, % | out of order |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except (CorpusError, NodeError, SetupError, OSError) as error:
        print(f"word_times: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/dev/word_times", description=__doc__)
    add = parser.add_argument
    add("--audio", type=Path, default=ROOT.parent / "shared" / "audio", help="folder with refs.tsv")
    add("--model", action="append", help="default: tiny.en and base")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--venv", type=Path, default=ROOT / ".venv", help="the node's environment")
    add("--checkout", type=Path, default=ROOT, help="run the node of another checkout")
    add("--seed", type=int, default=7, help="seed of the joins: the choice of words, and the gaps")
    add("--noise", type=float, metavar="DB", help="add white noise at this ratio to speech")
    add("-v", "--verbose", action="store_true", help="print the words that are far off")
    add("--every", type=int, default=1, metavar="N", help="take each Nth recording of a kind")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    aligner = Aligner()
    kinds = recordings(arguments.audio, aligner, arguments.seed)
    if arguments.noise is not None:
        kinds = {
            kind: [_noisy(recording, arguments.noise) for recording in chosen]
            for kind, chosen in kinds.items()
        }
    print(f"{HEADER}\n{_own_error(aligner, kinds['joins']).row('the aligner itself, on joins')}")
    for model in arguments.model or ["tiny.en", "base"]:
        options = ["--threads", str(arguments.threads), "--language", "en"]
        node = NodeProcess(node_python(arguments.venv), model, options, arguments.checkout)
        try:
            for prompt in ("", PROMPT):
                total, spent = Score([], []), _processor_seconds(node.pid)
                for kind, chosen in kinds.items():
                    score = Score([], [])
                    for recording in chosen[:: arguments.every]:
                        heard = _heard(node.address, recording, prompt)
                        score.add(recording.words, heard)
                        total.add(recording.words, heard)
                        if arguments.verbose:
                            _print_far(recording, heard)
                    print(score.row(f"{model}, {_named(prompt)}, {kind}"), flush=True)
                spent = _processor_seconds(node.pid) - spent
                print(total.row(f"{model}, {_named(prompt)}, all ({spent:.0f} s of CPU)"))
        finally:
            node.close()
    return 0


def recordings(audio: Path, aligner: Aligner, seed: int) -> dict[str, list[Recording]]:
    """The recordings with known times, by kind."""
    clips = [
        clip
        for clip in corpus.read(audio)
        if clip.language == "en" and (clip.group == "speech" or clip.name == "fmt_123_mono24_flac")
    ]
    whole = aligned(clips, aligner)
    words = single_words(whole)
    noise = np.random.default_rng(seed)

    def shuffled(pieces: Sequence[Recording], count: int) -> list[Recording]:
        return [pieces[at] for _ in range(count) for at in noise.permutation(len(pieces))]

    return {
        "joins": [
            join(f"join {seconds} s", shuffled(words, 4), seconds, (0.2, 1.0), noise)
            for seconds in JOIN_SECONDS
        ],
        "clips": whole,
        "joined clips": [
            join(f"clips {seconds} s", shuffled(whole, 1), seconds, (0.0, 0.4), noise)
            for seconds in SPEECH_SECONDS
        ],
    }


def _own_error(aligner: Aligner, joins: Sequence[Recording]) -> Score:
    score = Score([], [])
    for recording in joins:
        found = aligner.align(recording.samples, [word.text for word in recording.words])
        score.add(recording.words, found or [])
    return score


def _heard(address: tuple[str, int], recording: Recording, prompt: str) -> list[Spoken]:
    body = io.BytesIO()
    soundfile.write(body, recording.samples, RATE, subtype="FLOAT", format="WAV")
    extra: dict[str, object] = {"word-timestamps": True}
    if prompt:
        extra["prompt"] = prompt
    reply = request(address, body.getvalue(), "wav", **extra)
    if reply.fields.get("status") != "ok":
        raise NodeError(f"the node answered {reply.fields}")
    return [
        Spoken(word["text"], word["start"], word["end"])
        for segment in reply.fields["segments"]
        for word in segment["words"]
    ]


def _matches(truth: Sequence[Spoken], heard: Sequence[Spoken]) -> Iterator[tuple[Spoken, Spoken]]:
    matcher = SequenceMatcher(None, _keys(truth), _keys(heard), autojunk=False)
    for block in matcher.get_matching_blocks():
        for at in range(block.size):
            yield truth[block.a + at], heard[block.b + at]


def _print_far(recording: Recording, heard: Sequence[Spoken]) -> None:
    print(f"{recording.name}: {' '.join(word.text for word in heard)}")
    for right, mine in _matches(recording.words, heard):
        if max(abs(mine.start - right.start), abs(mine.end - right.end)) > CLOSE_SECONDS:
            print(
                f"  {mine.text}: {mine.start:.2f} to {mine.end:.2f}, "
                f"truth {right.start:.2f} to {right.end:.2f}"
            )


def _keys(words: Sequence[Spoken]) -> list[str]:
    keys = ("".join(plain(word.text)) for word in words)
    return [NUMBERS.get(key, key) for key in keys]


def _errors(errors: Sequence[float]) -> str:
    size = np.abs(errors)
    close = 100 * np.mean(size <= CLOSE_SECONDS)
    return (
        f"{np.median(size):.3f} | {np.percentile(size, 95):.2f} | {close:.1f} | "
        f"{np.median(errors):+.3f}"
    )


def _noisy(recording: Recording, ratio: float) -> Recording:
    noise = np.random.default_rng(len(recording.samples))
    levels = recording.samples[: len(recording.samples) // 160 * 160].reshape(-1, 160).std(axis=1)
    level = np.percentile(levels, 95) * 10 ** (-ratio / 20)
    added = noise.normal(0, level, len(recording.samples)).astype(np.float32)
    return Recording(recording.name, recording.samples + added, recording.words)


def _named(prompt: str) -> str:
    return "with a prompt" if prompt else "no prompt"


def _processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    sys.exit(main())
