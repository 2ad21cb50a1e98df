"""Writes the results as Markdown, JSON and one picture."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.idle import IdleCost
from benchmark.measure import Crowd, Sample, percentile, ratio
from benchmark.scoring import Score, score
from benchmark.share import Ingest, Share
from benchmark.usage import Memory


@dataclass(frozen=True)
class EngineFacts:
    """Figures of a whole run: seconds until it listens, memory when loaded and at the end."""

    name: str
    cold_start: float
    idle: Memory
    loaded: Memory


@dataclass(frozen=True)
class Results:
    """The results of one run. `machine` describes the machine, `references` has the texts of the
    clips, and `nodes` are the engines that all others are compared with."""

    machine: dict[str, str]
    nodes: tuple[str, ...]
    facts: tuple[EngineFacts, ...]
    samples: tuple[Sample, ...]
    crowds: tuple[Crowd, ...]
    share: Share | None
    ingest: Ingest | None
    idle: IdleCost | None
    references: Mapping[str, str]
    clients: int

    @property
    def engines(self) -> list[str]:
        return [facts.name for facts in self.facts]


def markdown(results: Results) -> str:
    """The tables: a row for each engine, with its slowdown relative to each node."""
    machine = "; ".join(f"{key}: {value}" for key, value in results.machine.items())
    parts = [machine]
    for group, title in (("short", "Short clips (under 12 s)"), ("long", "Long files")):
        chosen = [one for one in results.samples if one.group == group]
        if chosen:
            parts.append(_latency_table(title, results, chosen))
    if results.crowds:
        parts.append(_crowd_table(results))
    parts.append(_facts_table(results))
    if results.share is not None:
        share = results.share
        parts.append(
            f"Overhead of a 3 s command ({results.nodes[0]}; {share.clips} clips): of a median "
            f"round trip of {share.median_round_trip * 1000:.0f} ms, "
            f"{share.median_beyond_processing * 1000:.1f} ms (median) and at most "
            f"{share.worst_beyond_processing * 1000:.1f} ms are not `processing_seconds`."
        )
    if results.ingest is not None:
        ingest = results.ingest
        parts.append(
            f"A body of {ingest.bytes / 1e6:.0f} MB is accepted after {ingest.node_seconds:.3f} s; "
            f"a bare socket sink takes {ingest.sink_seconds:.3f} s for the same bytes."
        )
    if results.idle is not None:
        parts.append(results.idle.text())
    return "\n\n".join(parts) + "\n"


def write_json(results: Results, path: Path) -> None:
    """Write all results as JSON, including every sample."""
    path.write_text(json.dumps(asdict(results), indent=1) + "\n")


def draw(results: Results, path: Path, title: str) -> None:
    """Draw latency against clip length as SVG, with a line for each engine."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot, ticker

    # Text stays text in the SVG: it is smaller and can be searched.
    pyplot.rcParams["svg.fonttype"] = "none"
    pyplot.rcParams["svg.hashsalt"] = "node-whisper"
    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    figure.patch.set_facecolor("white")
    peers = [engine for engine in results.engines if engine not in results.nodes]
    colours = dict(zip((*results.nodes, *peers), _COLOURS, strict=False))
    for engine in results.engines:
        own = [one for one in results.samples if one.engine == engine]
        node = engine in results.nodes
        colour = colours.get(engine, "black")
        axes.plot(
            *zip(*_line(own), strict=True),
            label=engine,
            color=colour,
            linewidth=2.6 if node else 1.4,
            zorder=3 if node else 2,
        )
        lengths, latencies = [one.audio_seconds for one in own], [one.seconds for one in own]
        axes.scatter(lengths, latencies, s=7, alpha=0.3, color=colour, linewidths=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel("length of the recording, seconds")
    axes.set_ylabel("latency, seconds (lower is better)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


_COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#999999", "#009e73", "#cc79a7")
"""The palette of Okabe and Ito, which colour-blind readers can distinguish; the node is blue."""


_STEP = 1.5
"""Clips whose lengths differ by less than this factor form one point of a line."""


def _line(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """Medians of clips of similar length, which give a readable line through scattered points."""
    bins: dict[int, list[Sample]] = {}
    for one in samples:
        bins.setdefault(math.floor(math.log(one.audio_seconds, _STEP)), []).append(one)
    return [
        (
            statistics.median(one.audio_seconds for one in part),
            statistics.median(one.seconds for one in part),
        )
        for _, part in sorted(bins.items())
    ]


def _head(results: Results, *columns: str) -> tuple[str, str]:
    """The first two lines of a table: `columns`, and a column of ratios for each node."""
    names = ["", *columns, *(f"times slower than {node}" for node in results.nodes)]
    return f"| {' | '.join(names)} |", "|---" * len(names) + "|"


def _score(results: Results, samples: Sequence[Sample]) -> Score:
    return score((results.references[one.clip], one.text) for one in samples)


def _latency_table(title: str, results: Results, samples: Sequence[Sample]) -> str:
    clips = {one.clip: one.audio_seconds for one in samples}
    rows = [
        f"### {title}: {len(clips)}, {sum(clips.values()):.0f} s of speech",
        "",
        *_head(results, "word error rate", "median s", "p95 s", "real-time factor", "CPU s"),
    ]
    for engine in results.engines:
        own = [one for one in samples if one.engine == engine]
        seconds = [one.seconds for one in own]
        audio = sum(one.audio_seconds for one in own)
        times = " | ".join(f"{ratio(samples, engine, node):.2f}" for node in results.nodes)
        rows.append(
            f"| {engine} | {_score(results, own)} | {statistics.median(seconds):.3f} | "
            f"{percentile(seconds, 95):.3f} | {sum(seconds) / audio:.3f} | "
            f"{sum(one.cpu_seconds for one in own):.1f} | {times} |"
        )
    return "\n".join(rows)


def _crowd_table(results: Results) -> str:
    crowds = {crowd.engine: crowd for crowd in results.crowds}
    columns = ("word error rate", "all done s", "median s", "p95 s", "real-time factor", "CPU s")
    rows = [
        f"### {results.clients} clients at once: {len(results.crowds[0].samples)} short clips",
        "",
        *_head(results, *columns),
    ]
    for engine, crowd in crowds.items():
        seconds = [one.seconds for one in crowd.samples]
        times = " | ".join(f"{crowd.seconds / crowds[node].seconds:.2f}" for node in results.nodes)
        rows.append(
            f"| {engine} | {_score(results, crowd.samples)} | {crowd.seconds:.2f} | "
            f"{statistics.median(seconds):.3f} | {percentile(seconds, 95):.3f} | "
            f"{crowd.seconds / crowd.audio_seconds:.3f} | {crowd.cpu_seconds:.1f} | "
            f"{times} |"
        )
    return "\n".join(rows)


def _facts_table(results: Results) -> str:
    rows = [
        "### Start and memory",
        "",
        "| | cold start to ready s | RSS loaded, idle MiB | RSS after the run MiB | peak MiB |",
        "|---|---|---|---|---|",
    ]
    rows += (
        f"| {facts.name} | {facts.cold_start:.2f} | {facts.idle.now:.0f} | "
        f"{facts.loaded.now:.0f} | {facts.loaded.peak:.0f} |"
        for facts in results.facts
    )
    return "\n".join(rows)
