"""The most promising half minute of a recording in which the detector found no speech.

A whisper has no pitch, and the detector misses some. `Candidate` keeps, of all that a search gives
up, the stretch of at most 30 s in which the detector came closest to hearing speech, so that the
engine can look at it once, at the end. Memory is three such stretches, whatever the length of the
recording. Worker thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.audio.level import chunk_levels, is_steady, loudest, silence_floor
from app.audio.samples import SAMPLE_RATE, Samples
from app.audio.vad import CHUNK

_PIECE = 15 * SAMPLE_RATE // CHUNK * CHUNK
"""Samples. A candidate is two pieces in a row, so speech that crosses a border is not divided."""

_MARGIN_CHUNKS = 16
"""Silence that is kept around the candidate, about half a second."""


class Candidate:
    """Keeps the best stretch of the samples that are added."""

    def __init__(self) -> None:
        self._position = 0
        self._parts: list[Samples] = []
        self._size = 0
        self._promise = 0.0
        self._before: tuple[Samples, float] = (np.empty(0, dtype=np.float32), 0.0)
        self._best: tuple[float, int, Samples] | None = None

    def add(self, samples: Samples, probabilities: Sequence[float]) -> None:
        """Take the next samples of the recording, with the detector's answers for their chunks."""
        at = 0
        while at < len(samples):
            end = min(at + _PIECE - self._size, len(samples))
            # A copy: the caller's buffer is a view of more.
            self._parts.append(samples[at:end].copy())
            self._promise += sum(probabilities[at // CHUNK : -(-end // CHUNK)])
            self._size += end - at
            self._position += end - at
            at = end
            if self._size == _PIECE:
                self._close_piece()

    def take(self) -> tuple[int, Samples] | None:
        """The best stretch, float32, shape [n], and the position of its first sample; None if all
        of it is silent or steady noise. Forgets everything."""
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
