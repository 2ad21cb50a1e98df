"""The figures of live audio: latencies, word errors live and from a file, and their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmark.measure import percentile
from benchmark.scoring import score

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Latency:
    """Seconds of one command; `after_speech` is None if its end is not known or came later than
    the audio-stop."""

    after_stop: float
    after_speech: float | None = None


@dataclass(frozen=True)
class Result:
    """One load on one server. `cpu` and `file_cpu` are processor seconds per audio second, live
    and for the same audio as files; `counts` are what the server counted; `delay` is the greatest
    of a packet."""

    load: str
    server: str
    latencies: tuple[Latency, ...]
    audio_seconds: float
    cpu: float
    delay: float
    early: int = 0
    texts: tuple[tuple[str, str, str], ...] = ()
    """(name, reference, text) of each command."""
    file_texts: dict[str, str] = field(default_factory=dict)
    """The text of the same audio as a file, by the name of the command."""
    file_cpu: float | None = None
    counts: dict[str, float] = field(default_factory=dict)
    memory: tuple[tuple[float, float], ...] = ()
    """(seconds, MiB) over time."""
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """Word error rates in percent, and their paired difference with its 95 % interval."""

    live: float
    file: float
    difference: float
    low: float
    high: float
    words: int

    def __str__(self) -> str:
        return (
            f"{self.live:.2f} % live, {self.file:.2f} % as files: "
            f"{self.difference:+.2f} points ({self.low:+.2f} to {self.high:+.2f}), "
            f"{self.words} words"
        )


def difference(texts: Sequence[tuple[str, str, str]], seed: int = 1) -> Difference | None:
    """Compare (reference, live, file) texts, with a bootstrap over the commands; None without
    words."""
    rows = []
    for reference, live, file in texts:
        of_live, of_file = score([(reference, live)]), score([(reference, file)])
        rows.append((of_live.wrong, of_file.wrong, of_live.words))
    table = np.array(rows, dtype=float).reshape(-1, 3)
    live_wrong, file_wrong, words = table.sum(axis=0)
    if not words:
        return None
    random = np.random.default_rng(seed)
    picks = table[random.integers(0, len(table), (_RESAMPLES, len(table)))].sum(axis=1)
    resampled = 100 * (picks[:, 0] - picks[:, 1]) / np.maximum(picks[:, 2], 1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Difference(
        100 * live_wrong / words,
        100 * file_wrong / words,
        100 * (live_wrong - file_wrong) / words,
        float(low),
        float(high),
        int(words),
    )


def growth(memory: Sequence[tuple[float, float]]) -> float | None:
    """Return the slope of memory over time in MiB an hour, without the first fifth; None if it was
    sampled too rarely."""
    steady = memory[len(memory) // 5 :]
    if len(steady) < 3:
        return None
    seconds, sizes = np.array(steady).T
    return float(np.polyfit(seconds, sizes, 1)[0] * 3600)


def markdown(results: Sequence[Result]) -> str:
    """Return the results as a table and a list."""
    lines = [
        "| load | server | commands | after audio-stop, p50 / p95 | after the end of speech, "
        "p50 / p95 | used | wasted a command | CPU s per audio s | greatest delay |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(result) for result in results]
    notes = [note for result in results for note in _notes(result)]
    return "\n".join([*lines, "", *notes])


def _row(result: Result) -> str:
    count = len(result.latencies)
    stops = [latency.after_stop for latency in result.latencies]
    speech = [one.after_speech for one in result.latencies if one.after_speech is not None]
    used, wasted = result.counts.get("used"), result.counts.get("wasted")
    cells = [
        result.load,
        result.server,
        str(count),
        _percentiles(stops),
        _percentiles(speech),
        "" if used is None or not count else f"{100 * used / count:.0f} %",
        "" if wasted is None or not count else f"{wasted / count:.2f}",
        f"{result.cpu:.3f}" + ("" if result.file_cpu is None else f" (file {result.file_cpu:.3f})"),
        f"{1000 * result.delay:.0f} ms",
    ]
    return "| " + " | ".join(cells) + " |"


def _percentiles(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{1000 * percentile(values, 50):.0f} / {1000 * percentile(values, 95):.0f} ms"


def _notes(result: Result) -> list[str]:
    name = f"- {result.load}, {result.server}: "
    notes = []
    if given_up := result.counts.get("given up"):
        notes.append(f"{name}{given_up:.0f} windows of files were given up and decoded again")
    if result.file_texts:
        found = difference(
            [(reference, text, result.file_texts[one]) for one, reference, text in result.texts]
        )
        notes += [] if found is None else [f"{name}word errors {found}"]
    elif result.texts and any(reference for _, reference, _ in result.texts):
        wrong = score([(reference, text) for _, reference, text in result.texts])
        notes.append(f"{name}word errors {wrong}")
    empty = [text for _, reference, text in result.texts if not reference]
    if empty:
        notes.append(f"{name}{sum(map(bool, empty))} of {len(empty)} without speech have a text")
    if result.early:
        notes.append(f"{name}{result.early} commands ended within the speech")
    slope = growth(result.memory)
    if slope is not None:
        sizes = [size for _, size in result.memory]
        notes.append(
            f"{name}resident memory {sizes[0]:.1f} MiB at first, {sizes[-1]:.1f} at last, "
            f"{max(sizes):.1f} at most, {slope:+.1f} MiB an hour"
        )
    if result.note:
        notes.append(name + result.note)
    return notes
