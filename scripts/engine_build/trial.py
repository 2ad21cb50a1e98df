"""Loads one engine from a folder into the node's own decoder, and runs it on request.

contest.py starts it under the Python of `.venv`, which has the node's packages:

    python trial.py ENGINE_FOLDER MODEL AUDIO THREADS

It prints one JSON line when the model is loaded and one for each run. A line on stdin requests a
run: seconds of audio, and 1 if text comes before it, otherwise 0. A run is the first attempt that
the node makes for such audio, with its encoder context, load mode, prompt and limits. Further
attempts depend on the text, so they would not be the same work for every engine.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

BEFORE = (
    "The committee met on the first Monday of the month, as it had done for many years, and heard "
    "the report of its secretary. He spoke of the long winter, of the harvest that had come late, "
    "and of the roads that nobody had repaired since the flood. There was little to add, and so "
    "the members turned to the election. Four of them had offered to serve for another year, and "
    "a fifth, who was new to the town, asked to be heard. He said that he had come to listen more "
    "than to speak, and that he would be glad of any work."
)
"""Text before a window; the node carries over as much of it as it does of a file's."""


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def main() -> int:
    folder, model, audio, threads = sys.argv[1:5]
    # The engine before that of the environment; the node after the environment's packages.
    sys.path[0] = folder
    sys.path.append(str(ROOT))
    import numpy as np
    import soundfile
    import soxr
    import structlog

    # The node's log would be printed between the lines of JSON.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    from app.decoding.binding import pw
    from app.decoding.engine import Engine, system_info
    from app.decoding.transcriber import DecodeOptions

    samples, rate = soundfile.read(audio, dtype="float32", always_2d=True)
    clip = soxr.resample(samples.mean(axis=1), rate, 16_000).astype(np.float32)
    engine = Engine(Path(model), Path(model).stem, int(threads), "auto")
    engine.warm_up()
    _say(file=pw.__file__, system_info=system_info())
    for line in sys.stdin:
        seconds, follows = (int(word) for word in line.split())
        repeats = -(-seconds * 16_000 // len(clip))
        window = np.ascontiguousarray(np.tile(clip, repeats)[: seconds * 16_000])
        options = DecodeOptions(carried=BEFORE if follows else "")
        began, cpu = time.perf_counter(), time.process_time()
        hypothesis = engine.first_attempt(window, options)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        _say(seconds=took, cpu=cpu, text=hypothesis.text, tokens=len(hypothesis.decoded.tokens))
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
