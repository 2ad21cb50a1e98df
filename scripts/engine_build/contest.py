"""The race: each engine in its own process, one short run after another in turn, and a verdict.

Other work on the machine slows whoever happens to be running, so nothing is compared but runs that
stand next to each other: in every round each engine does the same piece of audio, and what counts
is the median over the rounds of (the wheel's time / the candidate's time).
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
"""Mean speed-up from which a build is put in; less is within the noise of a busy machine."""

NO_WORSE = 0.95
"""Each workload's ratio must reach this: a gain on long files may not cost the short ones."""

_EXPECTED = "ask not what your country can do for you"


class ContestError(Exception):
    """There is nothing to compare, since the first engine does not run."""


@dataclass(frozen=True)
class Workload:
    """One length of audio. `context` is the encoder's (0: full)."""

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
    """An engine to try: a label and the folder that holds its `_pywhispercpp`."""

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
    """All outcomes, and what each engine says it was built for."""

    outcomes: tuple[Outcome, ...]
    system_info: dict[str, str]
    wrong: dict[str, str]

    def speed_up(self, entrant: str) -> float:
        """Geometric mean over the workloads."""
        return statistics.geometric_mean(
            outcome.speed_up for outcome in self.outcomes if outcome.entrant == entrant
        )

    def fault(self, entrant: str) -> str | None:
        """Why this engine may not be put in, or None."""
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
    """A trial process."""

    def __init__(self, python: Path, entrant: Entrant, arguments: Sequence[str]) -> None:
        self.name = entrant.name
        environment = dict(os.environ)
        environment.pop("PYTHONPATH", None)
        if "OMP_WAIT_POLICY" not in environment:
            environment.setdefault("GOMP_SPINCOUNT", "1000")  # as the node itself sets it
        trial = Path(__file__).with_name("trial.py")
        self._child = Child([python, trial, entrant.folder, *arguments], environment)

    def loaded(self) -> dict[str, Any]:
        """The message after the model is loaded, once, before the first run."""
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
    """Let all entrants run all workloads in turn. The first one is what they are compared with."""
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
        runner.run(workload)  # not counted: buffers of this size are made once
    seconds: dict[str, list[float]] = {runner.name: [] for runner in runners}
    cpu: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for number in range(workload.rounds):
        # Each round begins with another engine, so that none always follows the same one.
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
