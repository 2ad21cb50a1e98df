"""The samples of a live stream that are still needed: those of the open utterance and of the
utterances that wait for their decode.

Blocks are kept as they come, so that appending costs the same at any length, and are joined only
for a decode. Worker thread.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from app.audio.samples import Samples


class HeldSamples:
    """The last samples of one stream, float32, by their position in it."""

    def __init__(self) -> None:
        self._blocks: deque[Samples] = deque()
        self._start = 0
        self._end = 0

    def __len__(self) -> int:
        """Number of samples held."""
        return self._end - self._start

    @property
    def end(self) -> int:
        """The position after the last sample."""
        return self._end

    def append(self, block: Samples) -> None:
        """Add the next samples, shape [n]; the block must not be changed afterwards."""
        if len(block):
            self._blocks.append(block)
            self._end += len(block)

    def slice(self, start: int, end: int) -> Samples:
        """Return a copy of the samples `start` to `end`, shape [end - start], C-contiguous. Raises
        `ValueError` if some of them are not held."""
        if not self._start <= start <= end <= self._end:
            raise ValueError(f"{start} to {end} is not within {self._start} to {self._end}")
        parts = []
        at = self._start
        for block in self._blocks:
            if at >= end:
                break
            if at + len(block) > start:
                parts.append(block[max(0, start - at) : end - at])
            at += len(block)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)

    def drop(self, before: int) -> None:
        """Drop the samples before a position, as far as whole blocks allow it."""
        while self._blocks and self._start + len(self._blocks[0]) <= before:
            self._start += len(self._blocks.popleft())
