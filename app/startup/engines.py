"""Loads the engines that the settings ask for, within the processors and the memory.

Each engine has its own copy of the model and its own working memory. Main thread, at start.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from typing import Protocol as Interface

import structlog

from app.decoding.transcriber import ModelInfo, Yielding
from app.model_files import catalog
from app.settings.settings import Settings
from app.startup import cpus, memory

_MOST_OF_AUTO = 8

_SHARE = 0.8
"""The share of the free memory that `auto` takes; jobs and other programs need the rest."""

_OVERHEAD_BYTES = 240 << 20
"""Working memory of an engine whose model is not in the catalogue: that of base."""

_log = structlog.get_logger("main")


class TooManyEngines(Exception):
    """The number of engines is more than this machine can serve; the message is for the user."""


class Engine(Yielding, Interface):
    """A loaded engine, as `app/decoding/engine.py` has it."""

    info: ModelInfo

    def abort(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """The number of engines, and the processors that they share."""

    engines: int
    threads: int


@dataclass(frozen=True, slots=True)
class Engines:
    """The loaded engines, at least one, which share `threads` processors."""

    all: tuple[Engine, ...]
    threads: int

    @property
    def first(self) -> Engine:
        return self.all[0]

    @property
    def info(self) -> ModelInfo:
        return self.first.info

    @property
    def yielding(self) -> Yielding | None:
        """The only engine, which gives windows of files up for live audio. Of several one is kept
        free instead."""
        return self.first if len(self.all) == 1 else None

    def abort(self) -> None:
        """Make all decodes end soon. May be called on any thread."""
        for engine in self.all:
            engine.abort()

    def close(self) -> None:
        for engine in self.all:
            engine.close()


def plan(settings: Settings, file: catalog.ModelFile) -> Plan:
    """Return the engines that the settings ask for. Call it before whisper.cpp is imported. Raises
    `TooManyEngines`."""
    threads = settings.threads or cpus.available_cpus()
    engines = count(settings.engines, file, threads, memory.free_bytes())
    if engines > 1:
        _let_threads_spin()
    return Plan(engines, threads)


def load(plan: Plan, new_engine: Callable[[], Engine]) -> Engines:
    """Load the engines. The threads that will use them warm them up. Raises what `new_engine`
    raises."""
    loaded: list[Engine] = []
    try:
        loaded.extend(new_engine() for _ in range(plan.engines))
    except Exception:
        Engines(tuple(loaded), plan.threads).close()
        raise
    return Engines(tuple(loaded), plan.threads)


def _let_threads_spin() -> None:
    """Let libgomp's threads spin at barriers as with one engine. By default they sleep once the
    teams of all engines have more threads than there are processors, although the threads that
    work at one time have not (libgomp's `gomp_throttled_spin_count_var`)."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ.update(OMP_WAIT_POLICY="ACTIVE", GOMP_SPINCOUNT="1000")


def count(
    asked: int | Literal["auto"], file: catalog.ModelFile, threads: int, free: int | None
) -> int:
    """Return the number of engines: `asked`, or what suits `threads` processors and `free` bytes of
    memory, which is logged. Raises `TooManyEngines`."""
    need = need_bytes(file)
    if asked == "auto":
        return _automatic(need, threads, free)
    if asked > threads:
        raise TooManyEngines(
            f"--engines {asked}: an engine needs a processor of its own, and --threads is"
            f" {threads}; use at most {threads}"
        )
    if asked > 1 and free is not None and asked * need > free:
        fit = max(1, free // need)
        raise TooManyEngines(
            f"--engines {asked}: an engine with this model takes up to {need >> 20} MiB, and"
            f" {free >> 20} MiB are free; use at most {fit}, or a smaller model"
        )
    return asked


def need_bytes(file: catalog.ModelFile) -> int:
    """Return the memory that an engine takes at most, by the catalogue or estimated."""
    entry = catalog.find(file.name)
    if entry is not None and entry.memory is not None:
        return entry.memory
    return file.path.stat().st_size + _OVERHEAD_BYTES


def _automatic(need: int, threads: int, free: int | None) -> int:
    by_threads = min(_MOST_OF_AUTO, max(min(2, threads), threads // 2))
    by_memory = by_threads if free is None else int(free * _SHARE) // need
    chosen = max(1, min(by_threads, by_memory))
    _log.info(
        "engines chosen",
        engines=chosen,
        threads=threads,
        mib_each=need >> 20,
        mib_free=None if free is None else free >> 20,
    )
    return chosen
