"""The detectors of one worker: lent to jobs, and kept for the next ones.

A detector has 2.5 MB. The C library does not give the memory of dropped ones back by itself: after
two hundred streams at once the node kept 400 MB and more. Threads of the worker.
"""

from __future__ import annotations

from collections.abc import Callable

from app.audio.vad import Detector
from app.decoding import allocator

_LEAST_SPARE = 1

_TRIM_AFTER = 8
"""Detectors that are dropped until free memory is given back, which takes milliseconds."""


class Detectors:
    """Lends detectors that `new` makes; keeps at most `most_spare` that nobody uses."""

    def __init__(self, new: Callable[[], Detector], most_spare: int) -> None:
        self._new = new
        self._most_spare = max(_LEAST_SPARE, most_spare)
        self._spare: list[Detector] = []
        self._dropped = 0
        """Detectors dropped since free memory was given back."""

    def prepare(self) -> None:
        """Make a first one, so that the first job does not wait for it."""
        self._spare.append(self._new())

    def lend(self) -> Detector:
        """Return a detector; its borrower resets it. Raises what `new` raises."""
        try:
            return self._spare.pop()
        except IndexError:
            return self._new()

    def give_back(self, detector: Detector) -> None:
        """Take a detector back. Its borrower must not keep a reference, or its memory stays."""
        if len(self._spare) < self._most_spare:
            self._spare.append(detector)
            return
        self._dropped += 1
        if self._dropped >= _TRIM_AFTER:
            self._dropped = 0
            allocator.trim()
