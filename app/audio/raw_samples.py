"""Samples of a raw format from bytes that arrive in pieces.

The result does not depend on the pieces: bytes of an incomplete frame wait for the rest. The scale
is libsndfile's, so that live audio has the same samples as a file. Worker thread.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.audio.g711 import TABLES
from app.audio.samples import Samples
from app.messages import SAMPLE_BYTES, RawFormat

_SCALES = {"s16": 2.0**15, "s24": 2.0**31, "s32": 2.0**31, "f32": 1.0, "u8": 2.0**7}
"""Divisors to full scale; samples of 24 bits are read into the upper bytes of 32."""


class RawSamples:
    """The samples of one stream of bytes, in an encoding of `SAMPLE_BYTES`."""

    def __init__(self, raw: RawFormat) -> None:
        self._raw = raw
        self._frame = SAMPLE_BYTES[raw.encoding] * raw.channels
        self._rest = b""

    @property
    def is_incomplete(self) -> bool:
        """Whether the bytes so far end within a frame."""
        return bool(self._rest)

    def read(self, data: bytes | memoryview) -> Samples:
        """Return the frames that `data` completes: float32, shape [n, channels], writable."""
        joined = b"".join((self._rest, data)) if self._rest else bytes(data)
        whole = len(joined) // self._frame * self._frame
        self._rest = joined[whole:]
        if self._raw.encoding in TABLES:
            codes = np.frombuffer(joined[:whole], dtype=np.uint8)
            return TABLES[self._raw.encoding][codes].reshape(-1, self._raw.channels)
        samples = self._values(joined[:whole]).astype(np.float32)
        if self._raw.encoding == "u8":
            samples -= np.float32(128)
        samples /= np.float32(_SCALES[self._raw.encoding])
        return samples.reshape(-1, self._raw.channels)

    def _values(self, data: bytes) -> npt.NDArray[np.generic]:
        """Return the numbers in the byte order of this machine, shape [n * channels]."""
        order = ">" if self._raw.byteorder == "big" else "<"
        if self._raw.encoding == "s24":
            widened = np.zeros((len(data) // 3, 4), dtype=np.uint8)
            # The lowest byte stays 0.
            columns = slice(0, 3) if order == ">" else slice(1, 4)
            widened[:, columns] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
            return widened.reshape(-1).view(np.dtype(f"{order}i4"))
        kind = {"s16": "i2", "s32": "i4", "f32": "f4", "u8": "u1"}[self._raw.encoding]
        return np.frombuffer(data, dtype=np.dtype(f"{order}{kind}"))
