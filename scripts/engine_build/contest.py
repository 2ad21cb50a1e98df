"""The comparison of engines: each runs in its own process, in short turns, and gets a verdict.

Other work on the machine slows the engine that happens to run, so only neighbouring runs are
compared. In every round each engine decodes the same audio as the node does; the result is the
median over the rounds of (time of the wheel / time of the candidate).

The rule that combines the workloads: commands and windows of files count half each, whatever the
number of workloads of a kind. A candidate must be faster than the wheel by `WORTH_IT`, and in
neither kind slower than `NO_WORSE`. By the same two numbers a candidate must beat those before it,
which need fewer libraries, to replace them.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_build.child import Child, ChildError

WORTH_IT = 1.03
"""Smallest mean speed-up that counts; less is within the noise of a busy machine."""

NO_WORSE = 0.97
"""Smallest speed-up of each kind of work: a gain for files must not slow down commands."""

COMMANDS, FILES = "commands", "files"
"""The kinds of work."""

_EXPECTED = "ask not what your country can do for you"


class ContestError(Exception):
    """The comparison is impossible, because the first engine does not run."""


@dataclass(frozen=True)
class Workload:
    """A length of audio, its kind, and whether text `follows` other text, which is the prompt."""

    name: str
    kind: str
    seconds: int
    follows: bool
    rounds: int


WORKLOADS = (
    Workload("a 3 s command", COMMANDS, 3, False, 15),
    Workload("an 11 s command", COMMANDS, 11, False, 9),
    Workload("a 29 s window", FILES, 29, False, 7),
    Workload("a 29 s window after another", FILES, 29, True, 7),
)
"""A window after another has the end of that one's text as its prompt, as most windows do."""


@dataclass(frozen=True)
class Entrant:
    """An engine under test: a label and the folder that contains its `_pywhispercpp`."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """The result of one engine on one workload, and its ratio to the first entrant (the wheel)."""

    entrant: str
    workload: str
    kind: str
    median_seconds: float
    median_cpu_seconds: float
    speed_up: float
    cpu_ratio: float


@dataclass(frozen=True)
class Contest:
    """All outcomes, and the build options that each engine reports."""

    outcomes: tuple[Outcome, ...]
    system_info: dict[str, str]
    wrong: dict[str, str]

    def kinds(self, entrant: str, reference: str | None = None) -> dict[str, float]:
        """The speed-up over `reference`, without one over the wheel, by kind of work: geometric
        means over the workloads of the kind."""
        found: dict[str, list[float]] = {}
        for outcome in self.outcomes:
            if outcome.entrant == entrant:
                base = 1.0 if reference is None else self._speed_up(reference, outcome.workload)
                found.setdefault(outcome.kind, []).append(outcome.speed_up / base)
        return {kind: statistics.geometric_mean(ratios) for kind, ratios in found.items()}

    def fault(self, entrant: str, reference: str | None = None) -> str | None:
        """The reason against this engine in place of `reference` (None: the wheel), or None."""
        if entrant in self.wrong:
            return self.wrong[entrant]
        other = reference or "the wheel"
        kinds = self.kinds(entrant, reference)
        for kind, ratio in kinds.items():
            if ratio < NO_WORSE:
                return f"slower than {other} on {kind}: {ratio:.2f} times its speed"
        mean = statistics.geometric_mean(kinds.values())
        if mean < WORTH_IT:
            return f"not clearly faster than {other}: {mean:.2f} times its speed"
        return None

    def choose(self, candidates: Iterable[str]) -> tuple[str | None, dict[str, str]]:
        """Return the best of `candidates`, the simplest of which come first, and the reason against
        each other one. None if the wheel is best."""
        best: str | None = None
        reasons: dict[str, str] = {}
        for name in candidates:
            fault = self.fault(name) or (None if best is None else self.fault(name, best))
            if fault is not None:
                reasons[name] = fault
                continue
            if best is not None:
                reasons[best] = f"slower than {name}"
            best = name
        return best, reasons

    def _speed_up(self, entrant: str, workload: str) -> float:
        (found,) = (
            outcome.speed_up
            for outcome in self.outcomes
            if (outcome.entrant, outcome.workload) == (entrant, workload)
        )
        return found


class _Runner:
    """A process that runs trial.py."""

    def __init__(self, python: Path, entrant: Entrant, arguments: Sequence[str]) -> None:
        self.name = entrant.name
        environment = dict(os.environ)
        environment.pop("PYTHONPATH", None)
        if "OMP_WAIT_POLICY" not in environment:
            environment.setdefault("GOMP_SPINCOUNT", "1000")  # like the node
        trial = Path(__file__).with_name("trial.py")
        self._child = Child([python, trial, entrant.folder, *arguments], environment)

    def loaded(self) -> dict[str, Any]:
        """Return the message of the loaded model. Call it once, before the first run."""
        return self._child.answer()

    def run(self, workload: Workload) -> dict[str, Any]:
        return self._child.ask(f"{workload.seconds} {workload.follows:d}")

    def close(self) -> None:
        self._child.close()


def race(
    python: Path,
    entrants: Sequence[Entrant],
    model: Path,
    audio: Path,
    threads: int,
    workloads: Iterable[Workload] = WORKLOADS,
    progress: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Contest:
    """Run all entrants on all workloads in turn. All are compared with the first entrant."""
    arguments = [str(model), str(audio), str(threads)]
    runners: list[_Runner] = []
    wrong: dict[str, str] = {}
    system_info: dict[str, str] = {}
    outcomes: list[Outcome] = []
    try:
        for entrant in entrants:
            runner = _Runner(python, entrant, arguments)
            try:
                system_info[entrant.name] = runner.loaded()["system_info"]
                _check_text(runner.run(Workload("", COMMANDS, 11, False, 1)))
            except (ChildError, ValueError) as error:
                wrong[entrant.name] = f"does not work: {error}"
                runner.close()
                if not runners:
                    raise ContestError(f"{entrant.name} does not run here: {error}") from error
                continue
            runners.append(runner)
        for workload in workloads:
            progress(f"  {workload.name}: {workload.rounds} rounds of {len(runners)} engines")
            outcomes += _rounds(runners, workload)
    finally:
        for runner in runners:
            runner.close()
    return Contest(tuple(outcomes), system_info, wrong)


def _rounds(runners: Sequence[_Runner], workload: Workload) -> list[Outcome]:
    for runner in runners:
        runner.run(
            workload
        )  # This run is not counted, because the engine allocates buffers of this size in it.
    seconds: dict[str, list[float]] = {runner.name: [] for runner in runners}
    cpu: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for number in range(workload.rounds):
        # Each round begins with another engine, so that no engine always follows the same one.
        turn = number % len(runners)
        for runner in (*runners[turn:], *runners[:turn]):
            reply = runner.run(workload)
            seconds[runner.name].append(reply["seconds"])
            cpu[runner.name].append(reply["cpu"])
    first = runners[0].name
    return [
        Outcome(
            name,
            workload.name,
            workload.kind,
            statistics.median(seconds[name]),
            statistics.median(cpu[name]),
            _median_ratio(seconds[first], seconds[name]),
            _median_ratio(cpu[first], cpu[name]),
        )
        for name in seconds
    ]


def _median_ratio(reference: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(reference, other, strict=True))


def _check_text(reply: dict[str, Any]) -> None:
    text = re.sub(r"[^a-z ]", "", str(reply["text"]).lower())
    if _EXPECTED not in " ".join(text.split()):
        raise ValueError(f"transcribed the test clip as {reply['text']!r}")
