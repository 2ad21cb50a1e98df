"""`scripts/dev/accuracy --cues`: the length of subtitles, and their distance from their speech."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmark import corpus, cues
from benchmark.answers import Answers, collect
from benchmark.conditions_cli import subjects_of
from benchmark.environment import SetupError


def run(arguments: argparse.Namespace) -> int:
    """Measure one model and print the table; return 0.

    Raises `CorpusError`, `NodeError`, `SetupError` and `OSError`.
    """
    if arguments.host is not None:
        raise SetupError("--cues measures the processor time of its own nodes: remove --host")
    clips = corpus.read(arguments.audio)
    answers = Answers(arguments.keep)
    subjects = subjects_of(arguments)
    with tempfile.TemporaryDirectory(prefix="cues-") as folder:
        sets = cues.recordings(clips, Path(folder))
        try:
            heard = collect(subjects, cues.tasks(sets), arguments.model, answers)
        finally:
            for subject in subjects:
                subject.close()
    print(f"{arguments.model}\n\n{cues.table(heard, sets)}")
    return 0
