"""G.711, the companded 8-bit samples of telephony, as tables: 256 linear samples for each law.

libsndfile reads files with the same values; these are for streams, which it cannot read. Pure.
Source: ITU-T G.711, tables 1a (A-law) and 2a (mu-law), scaled to 16 bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float32]

_SCALE = np.float32(2**15)

_ULAW_BIAS = 132
"""33, added before the logarithm is taken, at the scale of 16 bits."""


def ulaw_table() -> Table:
    """Return the sample of each mu-law byte, float32, -1 to 1, shape [256]."""
    code = ~np.arange(256) & 255
    mantissa, exponent = code & 15, code >> 4 & 7
    magnitude = ((mantissa << 3) + _ULAW_BIAS << exponent) - _ULAW_BIAS
    return _signed(magnitude, code < 128)


def alaw_table() -> Table:
    """Return the sample of each A-law byte, float32, -1 to 1, shape [256]."""
    code = np.arange(256) ^ 0x55
    mantissa, exponent = code & 15, code >> 4 & 7
    # The lowest segment has no leading 1; all samples are in the middle of their interval.
    leading = np.where(exponent > 0, 256, 0)
    magnitude = (mantissa << 4) + leading + 8 << np.maximum(exponent, 1) - 1
    return _signed(magnitude, code >= 128)


def _signed(magnitude: npt.NDArray[np.int64], is_positive: npt.NDArray[np.bool_]) -> Table:
    table: Table = np.where(is_positive, magnitude, -magnitude).astype(np.float32) / _SCALE
    return table


TABLES = {"ulaw": ulaw_table(), "alaw": alaw_table()}
