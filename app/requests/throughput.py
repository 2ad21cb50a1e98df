"""The node's measured speed, and the time that queued audio will take. Pure; loop thread only."""

from __future__ import annotations

from app.messages import Transcript

_WEIGHT = 0.2
"""Weight of the newest transcript. About the last ten decide, so that a busy machine shows soon and
one odd recording does not."""

_LEAST_SECONDS = 1.0
"""A sooner retry would only be rejected again."""


class Throughput:
    """Seconds of work for a second of audio; 1 until something was measured."""

    def __init__(self) -> None:
        self._factor: float | None = None

    def note(self, transcript: Transcript) -> None:
        """Measure a transcript."""
        if transcript.audio_seconds <= 0:
            return
        seconds = transcript.audio_seconds * transcript.channels
        factor = transcript.processing_seconds / seconds
        old = factor if self._factor is None else self._factor
        self._factor = old + _WEIGHT * (factor - old)

    def seconds_for(self, audio_seconds: float) -> float:
        """Return the estimated time for that much audio; at least a second."""
        factor = 1.0 if self._factor is None else self._factor
        return max(_LEAST_SECONDS, audio_seconds * factor)
