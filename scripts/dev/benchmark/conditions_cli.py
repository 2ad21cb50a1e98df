"""`scripts/dev/accuracy --conditions`: measures short clips under each condition, prints tables.

The nodes of all checkouts run with one model, and answer each question before the next one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from benchmark import condition_report, conditions, corpus
from benchmark.answers import Answers, Question, Subject, Task, collect
from benchmark.conditions import UNTOUCHED, Condition
from benchmark.corpus import SHORT_SECONDS, Clip
from benchmark.environment import ROOT, SetupError, ggml_model, node_python

NONSPEECH = "nonspeech"
"""The set of clips without speech in refs.tsv, and the condition that uses them."""


def run(arguments: argparse.Namespace) -> int:
    """Measure one model under the chosen conditions and print the tables; return 0.

    Raises `CorpusError`, `NodeError`, `SetupError` and `OSError`.
    """
    if arguments.host is not None:
        raise SetupError("--conditions measures the processor time of its own nodes: remove --host")
    clips = corpus.read(arguments.audio)
    short = [one for one in clips if one.group == "speech" and one.seconds <= SHORT_SECONDS]
    silent = [one for one in clips if one.group == NONSPEECH]
    chosen = choose(conditions.of_speech(silent), arguments.conditions)
    speech = [
        Task(one.name, clip.name, partial(one.question, clip))
        for one in chosen
        for clip in spread(short, arguments.clips)
    ]
    nothing = _silent_tasks(silent) if _wanted(NONSPEECH, arguments.conditions) else []
    answers = Answers(arguments.keep)
    subjects = subjects_of(arguments)
    names = [subject.name for subject in subjects]
    try:
        heard = collect(subjects, speech, arguments.model, answers)
        unheard = collect(subjects, nothing, arguments.model, answers)
    finally:
        for subject in subjects:
            subject.close()
    print(f"{arguments.model}, {len(speech) // len(chosen)} clips\n")
    print(condition_report.speech_table(heard, names), end="\n\n")
    if unheard:
        print(condition_report.silent_table(unheard, names), end="\n\n")
    print(condition_report.speed(heard, names), end="\n\n")
    return 0


def spread(clips: Sequence[Clip], count: int) -> list[Clip]:
    """`count` clips, spread evenly over the list; all of them if it is 0 or too large."""
    if not 0 < count < len(clips):
        return list(clips)
    return [clips[number * len(clips) // count] for number in range(count)]


def choose(every: Sequence[Condition], asked: Sequence[str]) -> list[Condition]:
    """The chosen conditions, always including the untouched clips."""
    families = {UNTOUCHED, NONSPEECH, *(one.family for one in every)}
    if unknown := set(asked) - families:
        raise SetupError(
            f"unknown condition {', '.join(sorted(unknown))}: use {', '.join(sorted(families))}"
        )
    return [one for one in every if one.family == UNTOUCHED or _wanted(one.family, asked)]


def _wanted(family: str, asked: Sequence[str]) -> bool:
    return not asked or family in asked


def _silent_tasks(clips: Sequence[Clip]) -> list[Task]:
    def task(title: str, question: Question) -> Task:
        return Task(title, question.clip, lambda: question)

    sets = conditions.of_silence(clips)
    return [task(title, question) for title, questions in sets.items() for question in questions]


def subjects_of(arguments: argparse.Namespace) -> list[Subject]:
    """The nodes of the other checkouts, then that of this one; all load the same model file."""
    model = ggml_model(arguments.model)
    options = ["--threads", str(arguments.threads), "--language", arguments.language]
    options += arguments.node_options
    subjects = []
    for root in arguments.node:
        own = root / ".venv" / "bin" / "python"
        python = own if own.exists() else node_python(arguments.venv)
        subjects.append(Subject(root.resolve(), python, model, options))
    subjects.append(Subject(ROOT, node_python(arguments.venv), model, options))
    return subjects
