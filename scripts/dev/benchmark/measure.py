"""The measurement: every engine on every clip in turn, then several clients at once."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmark import usage
from benchmark.corpus import Clip
from benchmark.engines import Engine


@dataclass(frozen=True)
class Sample:
    """The result of one engine on one clip."""

    engine: str
    group: str
    clip: str
    audio_seconds: float
    seconds: float
    cpu_seconds: float
    text: str


@dataclass(frozen=True)
class Crowd:
    """The result of one engine with several clients at once, until all have their answers."""

    engine: str
    seconds: float
    cpu_seconds: float
    audio_seconds: float
    samples: tuple[Sample, ...]


def in_turn(
    engines: Sequence[Engine], clips: Sequence[Clip], group: str, rounds: int = 1
) -> list[Sample]:
    """Send each clip to all engines before the next clip, in an order that changes every time.

    The result of several rounds is the median latency of each engine and clip, with its text.
    """
    samples: list[Sample] = []
    for number, clip in enumerate(clips):
        runs: dict[str, list[Sample]] = {engine.name: [] for engine in engines}
        for repeat in range(rounds):
            turn = (number + repeat) % len(engines)
            for engine in (*engines[turn:], *engines[:turn]):
                runs[engine.name].append(_once(engine, clip, group))
        for of_engine in runs.values():
            ordered = sorted(of_engine, key=lambda sample: sample.seconds)
            samples.append(ordered[len(ordered) // 2])
        _progress(f"{group}: {number + 1} of {len(clips)}")
    _progress("")
    return samples


def crowd(engine: Engine, clips: Sequence[Clip], clients: int) -> Crowd:
    """Send the clips from `clients` threads; each sends its next clip after an answer."""
    waiting = list(reversed(clips))
    lock = threading.Lock()
    samples: list[Sample] = []

    def client() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                clip = waiting.pop()
            began = time.perf_counter()
            text = engine.transcribe(clip.path)
            took = time.perf_counter() - began
            with lock:
                samples.append(
                    Sample(engine.name, "crowd", clip.name, clip.seconds, took, 0.0, text)
                )

    began, cpu = time.perf_counter(), usage.cpu_seconds(engine.pid)
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client) for _ in range(clients)]:
            done.result()
    took = time.perf_counter() - began
    used = usage.cpu_seconds(engine.pid) - cpu
    audio = sum(clip.seconds for clip in clips)
    _progress(f"{clients} clients: {engine.name}")
    return Crowd(engine.name, took, used, audio, tuple(samples))


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile by the nearest-rank method."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def ratio(samples: Sequence[Sample], engine: str, reference: str) -> float:
    """Median over the clips of (the engine's seconds / the reference's seconds)."""
    of_reference = {one.clip: one.seconds for one in samples if one.engine == reference}
    return statistics.median(
        one.seconds / of_reference[one.clip] for one in samples if one.engine == engine
    )


def _once(engine: Engine, clip: Clip, group: str) -> Sample:
    began, cpu = time.perf_counter(), usage.cpu_seconds(engine.pid)
    text = engine.transcribe(clip.path)
    took = time.perf_counter() - began
    used = usage.cpu_seconds(engine.pid) - cpu
    return Sample(engine.name, group, clip.name, clip.seconds, took, used, text)


def _progress(text: str) -> None:
    print(f"\r{text:50}", end="" if text else "\r", file=sys.stderr, flush=True)
