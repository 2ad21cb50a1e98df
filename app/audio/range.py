"""Bring samples into -1 to 1, a block at a time, without clipping what is whole.

Floating-point samples may lie beyond full scale undamaged, or be integers that nobody divided
(+-32768, +-8388608). `RangeKeeper` divides by the loudest level so far; a louder block lowers the
gain over a few milliseconds before its first sample that needs it. NaN, infinities and numbers
beyond 32-bit integers are damage and become 0. Single samples far beyond all others do not count:
they are clipped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.audio.samples import Samples

_DAMAGED = 2.0**32
"""Beyond the largest integer format; no scale of any format reaches it."""

_INTEGERS_FROM = 64.0
"""A peak beyond it, 36 dB over full scale, means integers: no mixer or codec overshoots so far.
Below it integers are known by having no fraction."""

_INTEGER_SCALES = (2.0**15, 2.0**23, 2.0**31)

_GLITCH_SHARE = 1e-3
_GLITCH_RATIO = 8.0
"""Up to a thousandth of a block's samples count as glitches if they are this much beyond the rest.
In 1 s of speech the peak is 3 to 5 times the level that a thousandth of the samples exceeds."""

_RAMP_SECONDS = 0.01

_DOUBTED_SECONDS = 3.0
"""Integers that stay within -1 to 1 for so long are none: the scale came from damage."""


class RangeKeeper:
    """Follows one stream of blocks, float32, shape [n, channels], at `rate` Hz."""

    def __init__(self, rate: int) -> None:
        self._ramp = max(1, int(_RAMP_SECONDS * rate))
        self._doubted = int(_DOUBTED_SECONDS * rate)
        self._scale = 1.0
        self._begun = False
        self._within = 0
        """Samples in a row within -1 to 1."""

    def keep(self, block: Samples) -> None:
        """Bring `block` into range, in place."""
        if not len(block):
            return
        least, most = float(block.min()), float(block.max())
        # False for NaN, which min and max pass on.
        begun, self._begun = self._begun, True
        inside = least >= -1.0 and most <= 1.0
        whole = _is_whole(block, least, most)
        if self._scale == 1.0 and inside and not whole:
            return
        block[~(np.abs(block) <= _DAMAGED)] = 0.0
        magnitude = np.abs(block).max(axis=1)
        peak = _peak(magnitude, self._scale)
        self._watch(peak, len(block))
        before = self._scale
        self._scale = max(before, _scale_of(peak, whole))
        if self._scale == before or not begun:
            block /= np.float32(self._scale)
        else:
            first = int(np.argmax(magnitude > before)) if peak > before else 0
            block /= self._falling(len(block), first, before)[:, None]
        np.clip(block, -1.0, 1.0, out=block)

    def _watch(self, peak: float, count: int) -> None:
        """Go back to full scale where integers were taken for what they are not."""
        self._within = self._within + count if 0.0 < peak <= 1.0 else 0
        if self._scale > _INTEGERS_FROM and self._within > self._doubted:
            self._scale = 1.0

    def _falling(self, count: int, first: int, before: float) -> npt.NDArray[np.float32]:
        """Divisors, shape [count]: from `before` to the scale, which they reach at `first`."""
        divisors = np.full(count, self._scale, dtype=np.float32)
        begin = max(0, first - self._ramp)
        divisors[:begin] = before
        # Even in decibels.
        divisors[begin:first] = np.geomspace(before, self._scale, first - begin, endpoint=False)
        return divisors


def _peak(magnitude: Samples, scale: float) -> float:
    """The greatest magnitude that is no glitch."""
    peak = float(magnitude.max())
    if peak <= scale:
        return peak
    glitches = int(len(magnitude) * _GLITCH_SHARE) + 1
    if glitches >= len(magnitude):
        return peak
    rest = np.partition(magnitude, -glitches - 1)[-glitches - 1]
    usual = max(float(rest), scale)
    within = magnitude[magnitude <= _GLITCH_RATIO * usual]
    return float(within.max())


def _scale_of(peak: float, whole: bool) -> float:
    """The divisor for samples up to `peak`."""
    if peak == 0.0 or (peak <= _INTEGERS_FROM and not whole):
        return max(1.0, peak)
    return next(scale for scale in (*_INTEGER_SCALES, _DAMAGED) if peak <= scale)


def _is_whole(block: Samples, least: float, most: float) -> bool:
    """Whether the samples are integers: the noise before speech may be a few steps only."""
    # Two numbers tell of nearly every other block.
    if not (np.isfinite(least) and np.isfinite(most)) or least % 1.0 or most % 1.0:
        return False
    return bool(least < most and np.array_equal(block, np.rint(block)))
