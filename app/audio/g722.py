"""G.722 speech, raw or in a WAV file, as a `Source`: 16 kHz in 64 kbit/s.

The decoder is libg722, which is bit-exact. Each byte depends on all bytes before it, so Python
alone would take longer than Whisper. The package is imported with the first such file. Worker
thread.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from app.audio.raw_format import G722_RATE
from app.audio.samples import Samples

_BIT_RATE = 64_000


class G722File:
    """`size` bytes of G.722 from `position` on behind `descriptor`; see
    `app.audio.source.Source`."""

    rate = G722_RATE
    channels = 1
    truncated = False

    def __init__(self, descriptor: int, position: int, size: int) -> None:
        from G722 import G722

        self._decoder: Any = G722(G722_RATE, _BIT_RATE)
        self._descriptor = descriptor
        self._position = position
        self._end = position + size
        self.frames: int | None = 2 * size
        self.least_frames = 0

    def read(self, buffer: Samples) -> Samples:
        size = min(len(buffer) // 2, self._end - self._position)
        data = os.pread(self._descriptor, max(0, size), self._position)
        self._position += len(data)
        samples = np.asarray(self._decoder.decode(data), dtype=np.int16)
        block = buffer[: len(samples)]
        block[:, 0] = samples / np.float32(2**15)
        return block

    def close(self) -> None:
        """Nothing is open but the body."""
