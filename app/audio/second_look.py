"""The most promising half minute of a recording in which the detector found no speech.

Whispered speech has no pitch, and the detector misses some of it. Of all audio without detected
speech, `Candidate` keeps the part of at most 30 s with the highest sum of probabilities, so that
the engine can decode it once, at the end. Memory is three such parts, for any length of the
recording. Worker thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.audio.level import chunk_levels, is_steady, loudest, silence_floor
from app.audio.samples import SAMPLE_RATE, Samples
from app.audio.vad import CHUNK

_PIECE = 15 * SAMPLE_RATE // CHUNK * CHUNK
"""Samples in a piece. A candidate is two successive pieces, so that a border does not divide
speech."""

_MARGIN_CHUNKS = 16
"""Chunks of silence kept on both sides of the candidate, about half a second."""


class Candidate:
    """The most promising part of the added samples."""

    def __init__(self) -> None:
        self._position = 0
        self._parts: list[Samples] = []
        self._size = 0
        self._promise = 0.0
        self._before: tuple[Samples, float] = (np.empty(0, dtype=np.float32), 0.0)
        self._best: tuple[float, int, Samples] | None = None

    def add(self, samples: Samples, probabilities: Sequence[float]) -> None:
        """Add the next samples of the recording, with the probabilities of speech in their
        chunks."""
        at = 0
        while at < len(samples):
            end = min(at + _PIECE - self._size, len(samples))
            # A copy, because the caller's array is a view of a larger one.
            self._parts.append(samples[at:end].copy())
            self._promise += sum(probabilities[at // CHUNK : -(-end // CHUNK)])
            self._size += end - at
            self._position += end - at
            at = end
            if self._size == _PIECE:
                self._close_piece()

    def take(self) -> tuple[int, Samples] | None:
        """Remove and return the best part, float32, shape [n], with the position of its first
        sample; None if all of it is silence or steady noise."""
        if self._parts:
            self._close_piece()
        best = self._best
        self._best = None
        if best is None:
            return None
        _, start, samples = best
        levels = chunk_levels(samples)
        heard = np.flatnonzero(levels >= silence_floor(loudest(levels)))
        if not len(heard) or is_steady(samples):
            return None
        first = max(0, int(heard[0]) - _MARGIN_CHUNKS) * CHUNK
        last = (int(heard[-1]) + 1 + _MARGIN_CHUNKS) * CHUNK
        return start + first, np.ascontiguousarray(samples[first:last])

    def _close_piece(self) -> None:
        piece, promise = np.concatenate(self._parts), self._promise
        before, promise_before = self._before
        whole = promise_before + promise
        if self._best is None or whole >= self._best[0]:
            samples = np.concatenate((before, piece))
            self._best = (whole, self._position - len(samples), samples)
        self._before = (piece, promise)
        self._parts, self._size, self._promise = [], 0, 0.0
