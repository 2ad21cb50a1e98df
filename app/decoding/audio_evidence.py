"""Evidence from a window's audio: the amount of speech, and whether the audio repeats itself.

`app/decoding/faults.py` uses it when a text looks like a decoder loop: an honest repetition is in
the audio, a loop is not. Figures are in docs/lab-book.md ("Repetition"). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from app.audio.samples import SAMPLE_RATE, Samples

_HOP = SAMPLE_RATE // 50
"""20 ms, in samples."""

_WINDOW = 2 * _HOP

_LOUD_SHARE = 0.1
"""Fraction of the level of a window's loudest twentieth (-20 dB) from which a frame is loud, as in
`app/decoding/alignment.py`."""

_QUIET_PERCENT, _ABOVE_QUIET, _MOST_SHARE = 20, 1.5, 0.5
"""A loud frame is also 3.5 dB above the level that a fifth of the frames do not exceed, if that is
6 dB below the loudest. Steady noise resembles itself at every distance, so noise around a sentence
would count as copies, and as time for more text (docs/lab-book.md, "Repetition")."""

_BANDS, _LOWEST, _HIGHEST = 24, 100.0, 7_000.0
"""Number of mel bands, and their range in Hz: enough to distinguish the sounds of speech."""

_ALIKE = 0.6
"""Mean cosine between the spectra of two stretches from which they count as copies
(docs/lab-book.md, "Repetition")."""

_FLOOR = 1e-4
"""Fraction of the power of the loudest frames (-40 dB) that counts as silence."""

_SHORTEST_LAG = 15
"""Frames (0.3 s): at a shorter distance the same sound continues."""

_LEAST_OVERLAP = 0.3
"""Fraction of the loud frames that both stretches must share. Three copies at the distance of two
share a third, and a comparison of fewer frames finds chance likeness."""

_COMMON_ALIKE, _COMMON_SHARE = 0.5, 0.33
"""Cosine from which a frame is like another, and share of the loud frames that it must be like to
count as steady noise."""

Frames = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AudioEvidence:
    """Evidence from a window: `samples` float32, shape [n], 16 kHz. Computed when asked for."""

    samples: Samples

    @cached_property
    def loud_seconds(self) -> float:
        """Seconds of the window that are about as loud as its speech; 0 for no audio."""
        return float(self._loud.sum()) * _HOP / SAMPLE_RATE

    @cached_property
    def copies(self) -> int:
        """Number of times in a row that the window holds the same recording; 1 without a
        repetition."""
        frames, loud = self._spectra()
        loud = loud & ~_is_common(frames, loud)
        frames[~loud] = 0.0
        count = len(frames)
        if loud.sum() < 2 * _SHORTEST_LAG:
            return 1
        likeness = np.zeros(count)
        for lag in range(_SHORTEST_LAG, count - _SHORTEST_LAG):
            both = float(np.sqrt(loud[:-lag].sum() * loud[lag:].sum()))
            if both >= _LEAST_OVERLAP * loud.sum():
                products = np.einsum("ij,ij->", frames[:-lag], frames[lag:])
                likeness[lag] = float(products) / both
        alike = np.flatnonzero(likeness >= _ALIKE)
        if not len(alike):
            return 1
        # The first peak is the distance of neighbours; later ones are two or three copies away.
        first = alike[alike <= alike[0] + _SHORTEST_LAG]
        lag = int(first[likeness[first].argmax()])
        return count // lag + 1

    @cached_property
    def _frames(self) -> Frames:
        if len(self.samples) < _WINDOW:
            return np.empty((0, _WINDOW), dtype=np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(self.samples, _WINDOW)
        frames: Frames = windows[::_HOP].astype(np.float32)
        return frames

    @cached_property
    def _loud(self) -> npt.NDArray[np.bool_]:
        if not len(self._frames):
            return np.zeros(0, dtype=np.bool_)
        levels = self._frames.std(axis=1)
        loudest = float(np.percentile(levels, 95))
        quiet = float(np.percentile(levels, _QUIET_PERCENT)) * _ABOVE_QUIET
        least = max(loudest * _LOUD_SHARE, min(quiet, loudest * _MOST_SHARE))
        loud: npt.NDArray[np.bool_] = levels > least
        return loud

    def _spectra(self) -> tuple[Frames, npt.NDArray[np.bool_]]:
        """Log-mel spectra from the first loud frame to the last, without level and mean, of length
        1 (0 where it is not loud); shape [frames, bands]. And which of them are loud."""
        at = np.flatnonzero(self._loud)
        if len(at) < 2 * _SHORTEST_LAG:
            return np.empty((0, _BANDS), dtype=np.float32), np.zeros(0, dtype=np.bool_)
        span = slice(int(at[0]), int(at[-1]) + 1)
        loud = self._loud[span]
        power = np.abs(np.fft.rfft(self._frames[span] * np.hanning(_WINDOW))) ** 2 @ _MEL.T
        spectra = np.log(power + np.percentile(power[loud], 99) * _FLOOR + 1e-12)
        spectra -= spectra.mean(axis=1, keepdims=True)
        spectra -= spectra[loud].mean(axis=0)
        spectra /= np.linalg.norm(spectra, axis=1, keepdims=True) + 1e-9
        spectra[~loud] = 0.0
        return spectra.astype(np.float32), loud


def _is_common(frames: Frames, loud: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the frames that are like a good part of all loud ones: the steady noise around speech,
    which also comes back after it."""
    alike = frames @ frames.T >= _COMMON_ALIKE
    common: npt.NDArray[np.bool_] = alike.sum(axis=1) > _COMMON_SHARE * max(1, loud.sum())
    return common


def _mel_bands() -> npt.NDArray[np.float64]:
    """Triangles that are equally wide on the mel scale; shape [bands, bins of the spectrum]."""
    ends = 2595 * np.log10(1 + np.array([_LOWEST, _HIGHEST]) / 700)
    edges = 700 * (10 ** (np.linspace(ends[0], ends[1], _BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0.0, np.minimum(rising, falling))


_MEL = _mel_bands()
