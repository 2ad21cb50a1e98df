"""Bring samples into the range -1 to 1, a block at a time, without clipping intact ones.

Floating-point samples may exceed full scale undamaged, or may be undivided integers (+-32768,
+-8388608). `RangeKeeper` divides by the loudest level so far. A louder block lowers the gain over a
few milliseconds before the first sample that requires it. NaN, infinities and numbers beyond 32-bit
integers are damage and become 0. Single samples far beyond all others are clipped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.audio.samples import Samples

_DAMAGED = 2.0**32
"""Largest undamaged magnitude: beyond the scale of every integer format."""

_INTEGERS_FROM = 64.0
"""Highest peak of samples that are not integers: 36 dB over full scale, more than any mixer or
codec overshoots. Integers with a lower peak are identified by the absence of fractions."""

_INTEGER_SCALES = (2.0**15, 2.0**23, 2.0**31)

_GLITCH_SHARE = 1e-3
_GLITCH_RATIO = 8.0
"""Greatest share of a block's samples that are glitches, and their least ratio to the rest. In 1 s
of speech the peak is 3 to 5 times the level that a thousandth of the samples exceeds."""

_RAMP_SECONDS = 0.01

_DOUBTED_SECONDS = 3.0
"""Seconds within -1 to 1 after which samples are no longer treated as integers: the scale was then
the result of damage."""


class RangeKeeper:
    """The gain of one stream of blocks, float32, shape [n, channels], at `rate` Hz."""

    def __init__(self, rate: int) -> None:
        self._ramp = max(1, int(_RAMP_SECONDS * rate))
        self._doubted = int(_DOUBTED_SECONDS * rate)
        self._scale = 1.0
        self._begun = False
        self._within = 0
        """Number of successive samples within -1 to 1."""

    def keep(self, block: Samples) -> None:
        """Bring `block` into range, in place."""
        if not len(block):
            return
        least, most = float(block.min()), float(block.max())
        # False for NaN, which min and max return.
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
        """Return to full scale if samples were wrongly treated as integers."""
        self._within = self._within + count if 0.0 < peak <= 1.0 else 0
        if self._scale > _INTEGERS_FROM and self._within > self._doubted:
            self._scale = 1.0

    def _falling(self, count: int, first: int, before: float) -> npt.NDArray[np.float32]:
        """Return divisors, shape [count], from `before` to the scale, which they reach at
        `first`."""
        divisors = np.full(count, self._scale, dtype=np.float32)
        begin = max(0, first - self._ramp)
        divisors[:begin] = before
        # Linear in decibels.
        divisors[begin:first] = np.geomspace(before, self._scale, first - begin, endpoint=False)
        return divisors


def _peak(magnitude: Samples, scale: float) -> float:
    """Return the greatest magnitude that is not a glitch."""
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
    """Return the divisor for samples up to `peak`."""
    if peak == 0.0 or (peak <= _INTEGERS_FROM and not whole):
        return max(1.0, peak)
    return next(scale for scale in (*_INTEGER_SCALES, _DAMAGED) if peak <= scale)


def _is_whole(block: Samples, least: float, most: float) -> bool:
    """Return whether the samples are integers; noise before speech may be a few steps only."""
    # Two numbers suffice for nearly every block of fractions.
    if not (np.isfinite(least) and np.isfinite(most)) or least % 1.0 or most % 1.0:
        return False
    return bool(least < most and np.array_equal(block, np.rint(block)))
