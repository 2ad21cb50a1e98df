"""An engine with the patches of scripts/engine_build/patches, beside the engine of the environment.

A build takes minutes, so it is not made here. To make one for these tests:

    scripts/build_engine --quick --dry-run --scratch DIR
    export NODE_WHISPER_TEST_ENGINE=DIR/wheel-native+tinyblas/engine
    scripts/test tests/test_patched_engine.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from node import HANG, JFK, ROOT, clean_environment

pytestmark = pytest.mark.slow

MODEL = ROOT / "models" / "ggml-tiny.en-q8_0.bin"
FOLDER = os.environ.get("NODE_WHISPER_TEST_ENGINE", "")
HOW = "NODE_WHISPER_TEST_ENGINE names no folder with a patched engine (see this file)"


def probe(*path: str) -> dict[str, Any]:
    environment = {**clean_environment(), "PYTHONPATH": os.pathsep.join((*path, str(ROOT)))}
    program = ROOT / "tests" / "helpers" / "engine_probe.py"
    done = subprocess.run(
        [sys.executable, program, MODEL, JFK],
        capture_output=True,
        text=True,
        timeout=HANG,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    """The engine of this environment: the wheel, or one that was built here."""
    return probe()


@pytest.fixture(scope="module")
def patched() -> dict[str, Any]:
    if not FOLDER:
        pytest.skip(HOW)
    found = probe(FOLDER)
    assert Path(found["file"]).parent == Path(FOLDER).resolve()
    assert found["reads_flag"]
    return found


def test_patched_engine_writes_the_same_texts(patched: dict[str, Any], own: dict[str, Any]) -> None:
    assert all("fellow americans" in text.lower() for text in own["texts"])
    assert patched["texts"] == own["texts"]


def test_last_logits_are_those_of_the_last_token(own: dict[str, Any]) -> None:
    assert own["difference"] < 0.05


def test_last_logits_of_a_patched_engine_are_the_same(patched: dict[str, Any]) -> None:
    assert patched["difference"] < 0.05


def test_stop_flag_ends_a_patched_engine_within_its_first_pass(patched: dict[str, Any]) -> None:
    assert patched["stopped"]["code"] != 0
    assert patched["stopped"]["passes"] == 0
    assert "ask not what your country" in patched["again"].lower()


def test_engine_that_reads_no_flag_ends_after_its_first_pass(own: dict[str, Any]) -> None:
    assert own["stopped"] != {"code": 0, "passes": 0}
    assert own["stopped"]["passes"] == (0 if own["reads_flag"] else 1)
    assert "ask not what your country" in own["again"].lower()
