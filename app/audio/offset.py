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
"""Least offset that is removed, as a share of the RMS. The mean of speech over a second is under
0.02."""

_LEAST_SECONDS = 0.25
"""Least audio that is judged at one time after the first block: the mean of a few hundred samples
is no offset."""


class OffsetRemover:
    """The filter of one stream of blocks, float32, shape [n, channels], at `rate` Hz."""

    def __init__(self, rate: int, channels: int) -> None:
        self._hop = max(1, int(_HOP_SECONDS * rate))
        self._keep = float(np.exp(-self._hop / (_SECONDS * rate)))
        self._mean: npt.NDArray[np.float32] | None = None
        """The followed mean, shape [channels]; None until an offset is found."""
        self._channels = channels
        self._least = int(_LEAST_SECONDS * rate)
        self._begun = False
        self._count = 0
        """Samples that are not judged yet, and below the sums of them and of their squares."""
        self._sums = np.zeros((2, channels))

    def remove(self, block: Samples) -> None:
        """Remove the offset from `block`, in place."""
        if not len(block):
            return
        if self._mean is None:
            self._mean = self._judge(block)
            if self._mean is None:
                return
        whole = len(block) // self._hop * self._hop
        for part, hop in ((block[:whole], self._hop), (block[whole:], len(block) - whole)):
            if len(part):
                part -= self._follow(part.reshape(-1, hop, self._channels))

    def _judge(self, block: Samples) -> npt.NDArray[np.float32] | None:
        """Return the mean of the samples since the last judgement if it is an offset."""
        self._count += len(block)
        # By channel, which is faster than along the first of two axes.
        self._sums[0] += [channel.sum(dtype=np.float64) for channel in block.T]
        self._sums[1] += [float(channel @ channel) for channel in block.T]
        begun, self._begun = self._begun, True
        if self._count < self._least and begun:
            return None
        mean, power = self._sums / self._count
        self._count = 0
        self._sums[:] = 0.0
        is_offset = (np.abs(mean) >= _INAUDIBLE) & (mean * mean > _WORTH_IT**2 * power)
        return mean.astype(np.float32) if is_offset.any() else None

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
