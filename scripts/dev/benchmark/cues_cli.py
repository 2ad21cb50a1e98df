"""`scripts/dev/accuracy --cues`: how long subtitles are, and how near to their speech."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmark import corpus, cues
from benchmark.answers import Answers, collect
from benchmark.conditions_cli import subjects_of
from benchmark.environment import SetupError


def run(arguments: argparse.Namespace) -> int:
    """Measure one model; 0 once the table is printed.

    Raises `CorpusError`, `NodeError`, `SetupError` and `OSError`.
    """
    if arguments.host is not None:
        raise SetupError("--cues measures processor time: it starts its own nodes, without --host")
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
