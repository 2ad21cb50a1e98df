"""Writes decoded frames to the node, as FFmpeg decodes them; the node converts them.

A gap in the timestamps is written as silence, so that the times of the transcript are those of the
player. Child process.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from app.audio.media import wire
from app.audio.media.track import Track

_START_SECONDS = 0.02
_GAP_SECONDS = 0.25
"""Shortest gaps that become silence: before the first frame, and later, where clocks drift."""

_LONGEST_GAP_SECONDS = 60.0
"""Longest gap that becomes silence in a file that does not state its length."""


class FrameWriter:
    """Writes the frames of `track` to `out`; silence is counted in samples at `rate` Hz. With
    `resume` the first frame was written by the previous child."""

    def __init__(self, out: BinaryIO, track: Track, rate: int, resume: wire.Resume | None) -> None:
        self._out = out
        self._rate = rate
        self._scale = track.scale(rate)
        self._seconds = track.seconds
        self._done = 0
        self._anchor = None if track.start is None else (track.start, 0)
        """A time and the sample that belongs to it."""
        self._shortest = _START_SECONDS
        self._resume = resume

    def write(self, frame: Any) -> None:
        length = round(frame.samples * self._rate / frame.sample_rate)
        if self._resume is not None:
            end, self._done = self._resume.done, self._resume.done + self._resume.gap
            self._anchor = None if frame.pts is None else (frame.pts, end - length)
            self._resume = None
            self._shortest = _GAP_SECONDS
            return
        if gap := self._gap(frame.pts):
            self._done += gap
            self._out.write(wire.silence(gap))
        self._done += length
        self._send(frame)

    def _gap(self, time: int | None) -> int:
        if time is None or self._scale is None:
            return 0
        shortest, self._shortest = self._shortest, _GAP_SECONDS
        if self._anchor is None:
            self._anchor = (time, self._done)
            return 0
        gap = round(self._anchor[1] + (time - self._anchor[0]) * self._scale) - self._done
        if abs(gap) <= shortest * self._rate:
            return 0
        longest = _LONGEST_GAP_SECONDS
        if self._seconds is not None:
            longest = self._seconds + 1 - self._done / self._rate
        if 0 < gap <= longest * self._rate:
            return gap
        # The clock has jumped; the sound goes on.
        self._anchor = (time, self._done)
        return 0

    def _send(self, frame: Any) -> None:
        kind, channels = frame.format.name, len(frame.layout.channels)
        planes = 1 if frame.format.is_packed else channels
        size = frame.samples * frame.format.bytes * (channels // planes)
        time = wire.NO_TIME if frame.pts is None else frame.pts
        head = wire.frame_head(
            time, self._done, frame.samples, frame.sample_rate, channels, kind, size * planes
        )
        self._out.write(head)
        for plane in frame.planes[:planes]:
            # FFmpeg pads planes.
            self._out.write(memoryview(plane)[:size])
