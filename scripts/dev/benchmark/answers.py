"""Nodes under test, the questions sent to them, and a file that keeps their answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmark import usage
from benchmark.node import NodeProcess, request


@dataclass(frozen=True)
class Question:
    """One request about one clip. `text` is the reference, empty for a clip without speech."""

    clip: str
    text: str
    body: bytes
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A question that is made on demand, because all bodies together need too much memory."""

    condition: str
    clip: str
    make: Callable[[], Question]


@dataclass(frozen=True)
class Answer:
    """The answer of one node to one question.

    `error` is the code of a rejection, else empty. `cpu_seconds` is the processor time of the
    node's process for the request, and `passes` counts its decodes. `segments` has their start, end
    and text; it is empty in the files of older runs.
    """

    node: str
    model: str
    condition: str
    clip: str
    text: str
    reference: str
    error: str
    cpu_seconds: float
    passes: int
    segments: list[tuple[float, float, str]] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.node, self.model, self.condition, self.clip)


class Answers:
    """All answers so far. A file adds those of earlier runs and gets each new answer at once, so
    that an interrupted run can continue."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[tuple[str, str, str, str], Answer] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                answer = Answer(**json.loads(line))
                self._known[answer.key] = answer

    def __iter__(self) -> Iterator[Answer]:
        return iter(self._known.values())

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def add(self, answer: Answer) -> None:
        """Add an answer; it replaces an older one to the same question."""
        self._known[answer.key] = answer
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(answer)) + "\n")


class Subject:
    """A checkout and its node, which starts at the first question.

    `name` is the commit of the checkout, with `-dirty` after it if files differ from the commit.
    """

    def __init__(self, root: Path, python: Path, model: Path, options: Sequence[str]) -> None:
        self.name = _commit(root)
        self._start = lambda: NodeProcess(python, str(model), options, root)
        self._process: NodeProcess | None = None

    def ask(self, question: Question, model: str, condition: str) -> Answer:
        if self._process is None:
            self._process = self._start()
        process = self._process
        began = usage.cpu_seconds(process.pid)
        fields = request(process.address, question.body, "wav", **question.fields).fields
        used = usage.cpu_seconds(process.pid) - began
        return Answer(
            node=self.name,
            model=model,
            condition=condition,
            clip=question.clip,
            text=str(fields.get("text", "")),
            reference=question.text,
            error="" if fields["status"] == "ok" else str(fields["error"]["code"]),
            cpu_seconds=round(used, 3),
            passes=int(fields.get("passes", 0)),
            segments=[
                (segment["start"], segment["end"], segment["text"])
                for segment in fields.get("segments", ())
            ],
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.close()


def collect(
    subjects: Sequence[Subject], tasks: Sequence[Task], model: str, answers: Answers
) -> list[Answer]:
    """Send each task to all subjects before the next task, in an order that changes each time.

    Returns the answers to these tasks, including those that existed before.
    """
    chosen: list[Answer] = []
    known = {answer.key: answer for answer in answers}
    for number, task in enumerate(tasks):
        turn = number % len(subjects)
        question: Question | None = None
        for subject in (*subjects[turn:], *subjects[:turn]):
            answer = known.get((subject.name, model, task.condition, task.clip))
            if answer is None:
                question = question or task.make()
                answer = subject.ask(question, model, task.condition)
                answers.add(answer)
            chosen.append(answer)
        _progress(f"{number + 1} of {len(tasks)}: {task.condition}")
    _progress("")
    return chosen


def _commit(root: Path) -> str:
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or root.name


def _progress(text: str) -> None:
    print(f"\r{text:70}", end="" if text else "\r", file=sys.stderr, flush=True)
