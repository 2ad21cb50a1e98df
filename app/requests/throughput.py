"""How fast the node works, measured as it goes, and so how long what is queued will take.

Pure: no clock; one object, owned by the loop thread.
"""

from __future__ import annotations

from app.messages import Transcript

_WEIGHT = 0.2
"""Of the newest transcript: the last ten or so decide, so that a slower model or a busy neighbour
shows soon and one odd recording does not."""

_LEAST_SECONDS = 1.0
"""To come back sooner would only be another refusal."""


class Throughput:
    """Seconds of work for a second of audio; real time is assumed until something was measured."""

    def __init__(self) -> None:
        self._factor: float | None = None

    def note(self, transcript: Transcript) -> None:
        """One was made."""
        if transcript.audio_seconds <= 0:
            return
        seconds = transcript.audio_seconds * transcript.channels
        factor = transcript.processing_seconds / seconds
        old = factor if self._factor is None else self._factor
        self._factor = old + _WEIGHT * (factor - old)

    def seconds_for(self, audio_seconds: float) -> float:
        """About how long that much audio will take; at least a second."""
        factor = 1.0 if self._factor is None else self._factor
        return max(_LEAST_SECONDS, audio_seconds * factor)
