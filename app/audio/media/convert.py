"""Decoded frames as float32 samples at the rate and channels of a file's first frame.

The parameters of a stream may change on the way: an advertisement in a recorded broadcast is mono,
or two files were joined. Pure but for soxr. Worker thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from app.audio.media.wire import SAMPLE_TYPES, Frame
from app.audio.samples import Samples


class FrameConverter:
    """Converts frames to `rate` Hz and `channels`."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._channels = channels
        self._other_rate = rate
        self._resampler: soxr.ResampleStream | None = None

    def convert(self, frame: Frame) -> Samples:
        """Return the samples: float32, shape [n, channels]."""
        samples = _with_channels(_floats(frame), self._channels)
        if frame.rate == self._rate:
            return samples
        if self._resampler is None or frame.rate != self._other_rate:
            self._other_rate = frame.rate
            self._resampler = soxr.ResampleStream(
                frame.rate, self._rate, self._channels, dtype="float32"
            )
        resampled: Samples = self._resampler.resample_chunk(np.ascontiguousarray(samples))
        return resampled.reshape(-1, self._channels)


def _floats(frame: Frame) -> Samples:
    kind = frame.kind.removesuffix("p")
    flat: npt.NDArray[Any] = np.frombuffer(frame.data, SAMPLE_TYPES[kind])
    if frame.kind.endswith("p"):
        samples = flat.reshape(frame.channels, frame.count).T
    else:
        samples = flat.reshape(frame.count, frame.channels)
    if samples.dtype.kind == "f":
        whole: Samples = samples.astype(np.float32)
        return whole
    full_scale = float(1 << (8 * samples.dtype.itemsize - 1))
    floats: npt.NDArray[Any] = samples.astype(
        np.float64 if samples.dtype.itemsize > 2 else np.float32
    )
    # Unsigned samples have their zero at half of the range.
    floats -= full_scale if samples.dtype.kind == "u" else 0.0
    floats /= full_scale
    scaled: Samples = floats.astype(np.float32, copy=False)
    return scaled


def _with_channels(samples: Samples, channels: int) -> Samples:
    count = samples.shape[1]
    if count == channels:
        return samples
    if count == 1:
        return np.repeat(samples, channels, axis=1)
    if count > channels:
        return np.repeat(samples.mean(axis=1, keepdims=True), channels, axis=1)
    # A track that gains channels, from mono to stereo, keeps those that it has.
    return np.concatenate([samples, np.repeat(samples[:, :1], channels - count, axis=1)], axis=1)
