"""The form in which audio goes through the node: float32 at 16 kHz."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
"""Hz; what Whisper and the voice activity detector were trained on."""
