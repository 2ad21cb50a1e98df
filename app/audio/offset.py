"""Remove a constant offset from samples, a block at a time.

Some converters add a constant to every sample. Whisper scales its spectrum by its maximum, which
would then be the offset instead of speech. `OffsetRemover` follows the mean of each channel like a
one-pole low-pass filter and subtracts it. It begins with the first block's mean, so that the
beginning has no step. Samples with a relatively small mean pass unchanged, bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.audio.samples import Samples

_HOP_SECONDS = 0.02

_SECONDS = 0.1
"""The filter's time constant: 3 dB at 1.6 Hz, 0.01 dB at 40 Hz."""

_INAUDIBLE = 1e-4
"""Greatest offset that is ignored: -80 dB, less than the mean of the quietest intelligible
speech."""

_WORTH_IT = 0.1
"""Least offset that is removed, as a share of a block's RMS. The mean of speech over a second is
under 0.02."""


class OffsetRemover:
    """The filter of one stream of blocks, float32, shape [n, channels], at `rate` Hz."""

    def __init__(self, rate: int, channels: int) -> None:
        self._hop = max(1, int(_HOP_SECONDS * rate))
        self._keep = float(np.exp(-self._hop / (_SECONDS * rate)))
        self._mean: npt.NDArray[np.float32] | None = None
        """The followed mean, shape [channels]; None until an offset is found."""
        self._channels = channels

    def remove(self, block: Samples) -> None:
        """Remove the offset from `block`, in place."""
        if not len(block):
            return
        if self._mean is None:
            # By channel, which is faster than along the first of two axes.
            mean = np.array([channel.mean() for channel in block.T], dtype=np.float32)
            if np.abs(mean).max() < _INAUDIBLE:
                return
            power = np.array([channel @ channel for channel in block.T]) / len(block)
            if not (mean * mean > _WORTH_IT**2 * power).any():
                return
            self._mean = mean
        whole = len(block) // self._hop * self._hop
        for part, hop in ((block[:whole], self._hop), (block[whole:], len(block) - whole)):
            if len(part):
                part -= self._follow(part.reshape(-1, hop, self._channels))

    def _follow(self, hops: Samples) -> Samples:
        """Return the mean, shape [hops * samples, channels], which changes linearly within each of
        `hops`, shape [hops, samples, channels]."""
        assert self._mean is not None
        count, size, channels = hops.shape
        # A hop that the end of a block shortens changes the mean proportionally less.
        keep = self._keep ** (size / self._hop)
        means = np.empty((count + 1, channels), dtype=np.float32)
        means[0] = self._mean
        for at, mean in enumerate(hops.mean(axis=1)):
            means[at + 1] = keep * means[at] + (1 - keep) * mean
        self._mean = means[-1].copy()
        ramp = np.arange(size, dtype=np.float32)[:, None] / np.float32(size)
        moving: Samples = means[:-1, None] + (means[1:] - means[:-1])[:, None] * ramp
        return moving.reshape(-1, channels)
