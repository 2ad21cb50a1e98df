"""The detectors of one worker: lent to jobs, and kept for the next ones. Worker thread."""

from __future__ import annotations

from collections.abc import Callable

from app.audio.vad import Detector

_LEAST_SPARE = 1


class Detectors:
    """Lends detectors that `new` makes; keeps at most `most_spare` that nobody uses."""

    def __init__(self, new: Callable[[], Detector], most_spare: int) -> None:
        self._new = new
        self._most_spare = max(_LEAST_SPARE, most_spare)
        self._spare: list[Detector] = []

    def prepare(self) -> None:
        """Make a first one, so that the first job does not wait for it."""
        self._spare.append(self._new())

    def lend(self) -> Detector:
        """Return a detector; its borrower resets it. Raises what `new` raises."""
        return self._spare.pop() if self._spare else self._new()

    def give_back(self, detector: Detector) -> None:
        if len(self._spare) < self._most_spare:
            self._spare.append(detector)
