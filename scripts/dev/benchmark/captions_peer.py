"""The peer of the captions: faster-whisper in int8 with LocalAgreement-2.

The policy is that of Machacek, Dabre and Bojar (2023), arXiv 2307.14743: with each second of new
audio the whole buffer is decoded again, and the words that two successive results have in common
are shown for good. It knows the end of the speech, which a real system has to find.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmark.captions_figures import Caption, Shown, Speech, plain
from benchmark.corpus import RATE

NAME = "faster-whisper int8, LocalAgreement-2"

LEAST_SECONDS = 1.0
"""New audio before a further decode."""

END_PAUSE = 0.5
"""Pause after the speech, as of the node's streams."""

Decode = Callable[[np.ndarray], list[str]]


def load(weights: Path, threads: int, language: str) -> Decode:
    """Load the model; return the function that decodes float32 samples into words."""
    from faster_whisper import WhisperModel

    engine = WhisperModel(str(weights), device="cpu", compute_type="int8", cpu_threads=threads)

    def decode(samples: np.ndarray) -> list[str]:
        segments, _ = engine.transcribe(
            samples, beam_size=1, language=language, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments).split()

    return decode


def caption(name: str, samples: np.ndarray, speech: Speech, decode: Decode) -> Caption:
    """Caption int16 samples as they would arrive from a microphone."""
    floats = samples.astype(np.float32) / 32768
    began = time.monotonic()
    end = speech.end + END_PAUSE
    shown: list[Shown] = []
    before: list[str] = []
    stable: list[str] = []
    heard = 0.0
    while True:
        heard = min(end, max(heard + LEAST_SECONDS, time.monotonic() - began))
        time.sleep(max(0.0, began + heard - time.monotonic()))
        if heard >= end:
            break
        words = decode(floats[: int(heard * RATE)])
        common = agreed(before, words)
        # Words that were shown for good stay, whatever the results say.
        if len(common) > len(stable):
            stable = stable + common[len(stable) :]
        rest = words[len(stable) :]
        text = " ".join(stable)
        shown.append(Shown(time.monotonic() - began, text, " " + " ".join(rest) if rest else ""))
        before = words
    final = " ".join(decode(floats[: int(end * RATE)]))
    return Caption(name, speech, tuple(shown), final, time.monotonic() - began)


def agreed(one: list[str], other: list[str]) -> list[str]:
    """Return the words at the beginning that both texts have."""
    common = []
    for mine, yours in zip(one, other, strict=False):
        if plain(mine) != plain(yours):
            break
        common.append(yours)
    return common
