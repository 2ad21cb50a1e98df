"""The interface of a file's decoder: libsndfile (`sound_file.py`) or FFmpeg (`media/`).

A source yields samples at the file's own rate and channels. `AudioStream` makes the node's samples
of them. Worker thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Interface

from app.audio.samples import Samples


class Source(Interface):
    """An opened file, or one link of it. Every method raises `AudioError`."""

    rate: int
    """Hz."""
    channels: int
    frames: int | None
    """Samples of each channel by the header; None if it has no plausible length."""
    least_frames: int
    """Samples of each channel that the file has unless it is truncated; 0 if that is unknown."""
    truncated: bool
    """True as soon as the file is found to be truncated."""

    def read(self, buffer: Samples) -> Samples:
        """Return the next samples: the beginning of `buffer`, float32, shape [n, channels]; n is 0
        at the end."""

    def close(self) -> None:
        """Give everything back but the descriptor of the body. May be called twice."""


OpenMedia = Callable[[int, str, str, float], Source]
"""Opens a file that libsndfile does not read: the descriptor of the body, the container's name by
`app.audio.sniff`, a description of the file for the client, and the longest audio accepted in
seconds. Raises `AudioError` and `OSError`."""
