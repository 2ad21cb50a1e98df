"""The engine's memory with the real whisper.cpp: its peak, and what stays after a rest.

Each test runs in a process of its own, whose memory nothing else changes. The limits leave room for
other versions of the libraries.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from node import HANG, JFK, ROOT, clean_environment

pytestmark = pytest.mark.slow

MODEL = ROOT / "models" / "ggml-tiny.en-q8_0.bin"

SCRIPT = """
import json, re, sys
from pathlib import Path
import numpy as np, soundfile, soxr
from app.decoding import allocator
from app.decoding.engine import Engine
from app.decoding.transcriber import DecodeOptions

allocator.give_large_blocks_back()
seen = {}

def note(name):
    status = Path("/proc/self/status").read_text()
    seen[name] = int(re.search(r"VmRSS:\\s+(\\d+)", status)[1]) / 1024
    seen[name + " peak"] = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024

samples, rate = soundfile.read(sys.argv[2], dtype="float32")
speech = soxr.resample(samples.mean(axis=1), rate, 16000)
short, long = speech[:48000], np.pad(speech, (0, 48000))
engine = Engine(Path(sys.argv[1]), "tiny.en-q8_0", 2, "auto")
engine.warm_up()
note("warm")
plain, carried = DecodeOptions(), DecodeOptions(carried="He spoke of freedom and hope. " * 30)
engine.transcribe(short, plain)
engine.transcribe(long, carried)
note("long")
engine.rest()
engine.transcribe(short, plain)
engine.rest()
note("usual")
engine.transcribe(short, DecodeOptions(temperature=0.4))
note("sampled")
engine.rest()
note("after sampled")
engine.transcribe(long, DecodeOptions(prompt="He spoke of freedom and hope. " * 60))
note("prompted")
engine.rest()
note("after prompted")
engine.close()
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, float]:
    """Resident memory in MiB after each step, and the peak until then."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(MODEL), str(JFK)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_carried_text_adds_little_to_the_peak_of_a_long_window(seen: dict[str, float]) -> None:
    assert seen["long peak"] < seen["warm"] + 85


def test_memory_of_a_long_window_is_returned_at_a_rest(seen: dict[str, float]) -> None:
    assert seen["long"] > seen["warm"] + 30
    assert seen["usual"] < seen["warm"] + 30


def test_memory_of_a_sampled_request_is_returned_at_a_rest(seen: dict[str, float]) -> None:
    assert seen["sampled"] > seen["usual"] + 15
    assert seen["after sampled"] < seen["usual"] + 8


def test_memory_of_a_long_prompt_is_returned_at_a_rest(seen: dict[str, float]) -> None:
    assert seen["prompted"] > seen["usual"] + 60
    assert seen["after prompted"] < seen["usual"] + 8
