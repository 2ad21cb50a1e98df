"""app/audio/vad.py with the real detector: its number of threads, and that of the engine.

Each test starts a process, because OpenMP reads its limit only once, when its library is loaded.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from node import HANG, ROOT, clean_environment

MODEL = ROOT / "models" / "ggml-tiny.en-q8_0.bin"

DETECT = """
import os
import numpy as np
from app.audio.vad import CHUNK, SileroDetector

detector = SileroDetector()
chunk = np.random.default_rng(0).standard_normal(CHUNK).astype(np.float32)
before = len(os.listdir("/proc/self/task"))
detector.probability(chunk * 0.1)
detected = len(os.listdir("/proc/self/task")) - before
"""

DECODE = """
from pathlib import Path
from app.decoding.engine import Engine

engine = Engine(Path({model!r}), "tiny.en-q8_0", 3, "auto")
before = len(os.listdir("/proc/self/task"))
engine.warm_up()
decoded = len(os.listdir("/proc/self/task")) - before
engine.close()
"""


def run(code: str, **variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean_environment(), **variables},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=True,
    )
    return done.stdout.split()


def test_detector_starts_no_threads() -> None:
    assert run(DETECT + "print(detected)") == ["0"]


@pytest.mark.slow
def test_detector_leaves_the_engine_its_threads() -> None:
    code = DETECT + DECODE.format(model=str(MODEL)) + "print(detected, decoded)"
    # The log precedes the two numbers.
    assert run(code)[-2:] == ["0", "2"]


@pytest.mark.parametrize("limit", [None, "7"])
def test_detector_restores_the_environment(limit: str | None) -> None:
    variables = {} if limit is None else {"OMP_THREAD_LIMIT": limit}
    code = DETECT + "print(os.environ.get('OMP_THREAD_LIMIT'), detected)"
    assert os.environ.get("OMP_THREAD_LIMIT") is None
    assert run(code, **variables) == [str(limit), "0"]
