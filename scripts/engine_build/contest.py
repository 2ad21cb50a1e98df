"""The comparison of engines: each runs in its own process, in short turns, and gets a verdict.

Other work on the machine slows the engine that happens to run, so only neighbouring runs are
compared. In every round each engine transcribes the same audio; the result is the median over the
rounds of (time of the wheel / time of the candidate).
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
"""Smallest mean speed-up for an installation; less is within the noise of a busy machine."""

NO_WORSE = 0.95
"""Smallest ratio of each workload: a gain on long files must not slow down short ones."""

_EXPECTED = "ask not what your country can do for you"


class ContestError(Exception):
    """The comparison is impossible, because the first engine does not run."""


@dataclass(frozen=True)
class Workload:
    """One length of audio. `context` is the encoder context (0: full)."""

    name: str
    seconds: int
    context: int
    rounds: int


WORKLOADS = (
    Workload("a 3 s command (encoder context 384)", 3, 384, 15),
    Workload("an 11 s clip (context 678)", 11, 678, 9),
    Workload("a 30 s window (full context)", 30, 0, 5),
    Workload("a 2-minute file", 120, 0, 3),
)


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

    def speed_up(self, entrant: str) -> float:
        """Geometric mean over the workloads."""
        return statistics.geometric_mean(
            outcome.speed_up for outcome in self.outcomes if outcome.entrant == entrant
        )

    def fault(self, entrant: str) -> str | None:
        """The reason against an installation of this engine, or None."""
        if entrant in self.wrong:
            return self.wrong[entrant]
        for outcome in self.outcomes:
            if outcome.entrant == entrant and outcome.speed_up < NO_WORSE:
                return f"slower than the wheel on {outcome.workload}: {outcome.speed_up:.2f} times"
        mean = self.speed_up(entrant)
        if mean < WORTH_IT:
            return f"no faster than the wheel: {mean:.2f} times"
        return None


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
        return self._child.ask(f"{workload.seconds} {workload.context}")

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
                _check_text(runner.run(Workload("", 11, 0, 1)))
            except (ChildError, ValueError) as error:
                wrong[entrant.name] = f"does not work: {error}"
                runner.close()
                if not runners:
                    raise ContestError(f"the wheel itself does not run here: {error}") from error
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
    if reply["code"] != 0 or _EXPECTED not in " ".join(text.split()):
        raise ValueError(f"transcribed the test clip as {reply['text']!r}")
