"""Long recordings with known times of speech, and the quality of their subtitles.

Short clips are joined in a random order with pauses between them, so that the time of each clip's
words is known. A cue has the right times if it begins with the first of its words in a clip and
ends with the last. Times are in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jiwer
import numpy as np
import soundfile

from benchmark import corpus, scoring
from benchmark.answers import Answer, Question, Task
from benchmark.corpus import RATE, Clip

READABLE, LONGEST = 8.0, 12.0
"""The goal: 95 of 100 cues last less than READABLE, and none lasts longer than LONGEST."""

NEAR = 0.5
"""Largest distance between a cue and its speech that counts as right."""

PROMPTS = {"no prompt": "", "prompt": "Notes from the meeting, 2024."}

_GAPS = 0.2, 1.2
_SEEDS = (1,)
_HUSHED = 10 ** (-30 / 20)
"""The level, relative to a clip's loudest twentieth, below which speech has not begun."""

_FRAME = RATE // 100


@dataclass(frozen=True)
class Span:
    """The place of a clip in a recording: the begin and end of its speech, and its words."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Recording:
    """A file to be transcribed; `spans` is empty if the times of its words are unknown."""

    name: str
    path: Path
    text: str
    spans: tuple[Span, ...] = ()


def recordings(clips: Sequence[Clip], folder: Path) -> dict[str, list[Recording]]:
    """The long clips, the speech clips joined in order, and those joined in random orders."""
    speech = [clip for clip in clips if clip.group == "speech" and clip.language == "en"]
    long = corpus.as_wav([clip for clip in clips if clip.group == "long"], folder)
    long += corpus.join(speech, 300.0, "joined", folder)
    plain = [Recording(clip.name, clip.path, clip.text) for clip in long]
    return {"long": plain, "shuffled": [_shuffled(speech, seed, folder) for seed in _SEEDS]}


def tasks(sets: dict[str, list[Recording]]) -> list[Task]:
    """A task for each recording and prompt; the condition is `set, prompt`."""

    def ask(recording: Recording, prompt: str) -> Question:
        fields = {"prompt": prompt} if prompt else {}
        return Question(recording.name, recording.text, recording.path.read_bytes(), fields)

    return [
        Task(f"{name}, {title}", recording.name, partial(ask, recording, prompt))
        for name, chosen in sets.items()
        for title, prompt in PROMPTS.items()
        for recording in chosen
    ]


def table(answers: Iterable[Answer], sets: dict[str, list[Recording]]) -> str:
    """The table: a row for each condition and node with lengths, words, times, processor time."""
    spans = {one.name: one.spans for chosen in sets.values() for one in chosen}
    rows: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        rows.setdefault((answer.condition, answer.node), []).append(answer)
    head = (
        f"| recordings | node | cues | longest s | under {READABLE:.0f} s | word errors "
        f"| edges within {NEAR} s | CPU s |\n|---|---|---|---|---|---|---|---|"
    )
    lines = [
        f"| {condition} | {node} | {_row(some, spans)} |"
        for (condition, node), some in sorted(rows.items())
    ]
    return "\n".join((head, *lines))


def deviations(spans: Sequence[Span], cues: Sequence[Span]) -> list[float]:
    """Return the distance of each cue edge from the edge of its clip.

    Only an edge counts whose word was recognised and is the first or the last of its clip, because
    the times of other words are unknown.
    """
    said = [(word, at) for at, span in enumerate(spans) for word in _words(span.text)]
    heard = [(word, at) for at, cue in enumerate(cues) for word in _words(cue.text)]
    if not said or not heard:
        return []
    result = jiwer.process_words(
        " ".join(word for word, _ in said), " ".join(word for word, _ in heard)
    )
    found: list[float] = []
    for chunk in result.alignments[0]:
        if chunk.type != "equal":
            continue
        for step in range(chunk.ref_end_idx - chunk.ref_start_idx):
            at, cue = chunk.ref_start_idx + step, chunk.hyp_start_idx + step
            span, shown = spans[said[at][1]], cues[heard[cue][1]]
            if _opens(said, at) and _opens(heard, cue):
                found.append(abs(shown.start - span.start))
            if _closes(said, at) and _closes(heard, cue):
                found.append(abs(shown.end - span.end))
    return found


def _row(answers: Sequence[Answer], spans: dict[str, tuple[Span, ...]]) -> str:
    cues = {answer.clip: [Span(*segment) for segment in answer.segments] for answer in answers}
    lasts = np.array([cue.end - cue.start for some in cues.values() for cue in some] or [0.0])
    words = scoring.score((answer.reference, answer.text) for answer in answers)
    edges = np.array([one for clip in cues for one in deviations(spans[clip], cues[clip])])
    near = f"{100 * (edges <= NEAR).mean():.0f} % of {len(edges)}" if len(edges) else ""
    used = sum(answer.cpu_seconds for answer in answers)
    return (
        f"{len(lasts)} | {lasts.max():.1f} | {100 * (lasts < READABLE).mean():.1f} % | {words} "
        f"| {near} | {used:.1f}"
    )


def _opens(words: Sequence[tuple[str, int]], at: int) -> bool:
    return at == 0 or words[at - 1][1] != words[at][1]


def _closes(words: Sequence[tuple[str, int]], at: int) -> bool:
    return at + 1 == len(words) or words[at + 1][1] != words[at][1]


def _words(text: str) -> list[str]:
    return scoring.normal(text).split()


def _shuffled(clips: Sequence[Clip], seed: int, folder: Path) -> Recording:
    generator = random.Random(seed)
    order = list(clips)
    generator.shuffle(order)
    parts: list[np.ndarray] = []
    spans: list[Span] = []
    for clip, (begin, part) in zip(order, _placed(order, generator), strict=True):
        first, last = _spoken(part)
        spans.append(Span(begin + first, begin + last, clip.text))
        parts.append(part)
    path = folder / f"shuffled-{seed}.wav"
    soundfile.write(str(path), np.concatenate(parts), RATE, subtype="PCM_16")
    return Recording(path.stem, path, " ".join(clip.text for clip in order), tuple(spans))


def _placed(clips: Sequence[Clip], generator: random.Random) -> Iterator[tuple[float, np.ndarray]]:
    """The samples of each clip with a pause after them, and the time of their begin."""
    count = 0
    for clip in clips:
        pause = np.zeros(int(generator.uniform(*_GAPS) * RATE), np.float32)
        part = np.concatenate((corpus.samples(clip.path), pause))
        yield count / RATE, part
        count += len(part)


def _spoken(samples: np.ndarray) -> tuple[float, float]:
    """Return the begin and end of the speech in a clip, by its level."""
    levels = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME).std(axis=1)
    loud = np.flatnonzero(levels > np.percentile(levels, 95) * _HUSHED)
    return float(loud[0]) / 100, float(loud[-1] + 1) / 100
