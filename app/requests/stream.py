"""How far the audio of one stream is ahead of the worker, in bytes. Pure; loop thread only."""

from __future__ import annotations

from app.messages import SAMPLE_BYTES, RawFormat

_AHEAD_SECONDS = 3.0
"""Audio between the connection and the worker, beyond which the connection is not read."""

_LEAST_AHEAD, _MOST_AHEAD = 65_536, 1_048_576
"""Bounds of the same in bytes: one read of a socket, and memory."""


class Stream:
    """Counts the bytes of a stream of `raw` samples."""

    def __init__(self, raw: RawFormat) -> None:
        self.bytes_per_second = bytes_per_second(raw)
        ahead = int(_AHEAD_SECONDS * self.bytes_per_second)
        self._most_ahead = min(max(ahead, _LEAST_AHEAD), _MOST_AHEAD)
        self.received = 0
        """Bytes that came from the client."""
        self.consumed = 0
        """Bytes of them that the worker has taken."""

    @property
    def seconds(self) -> float:
        """Seconds of audio received."""
        return self.received / self.bytes_per_second

    @property
    def ahead(self) -> bool:
        """True while the worker has not taken enough for the connection to be read."""
        return self.received - self.consumed > self._most_ahead


def bytes_per_second(raw: RawFormat) -> int:
    """Return the rate of raw samples."""
    return SAMPLE_BYTES[raw.encoding] * raw.channels * raw.sample_rate
