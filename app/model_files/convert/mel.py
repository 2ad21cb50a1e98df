"""The mel filter bank of a Whisper file: Slaney's, 0 to 8 kHz, for a 400-point FFT.

Source of the definition: librosa.filters.mel (sr 16000, n_fft 400, htk false, norm slaney),
with which OpenAI made the table in whisper/assets/mel_filters.npz. The steps and number formats
below reproduce the bytes of that table.
"""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 16000  # Hz
FFT = 400  # samples, 25 ms
# Slaney's scale: linear up to 1 kHz (200/3 Hz a mel), logarithmic above (27 steps to 6.4 kHz).
LINEAR_HZ = 200.0 / 3.0
KNEE_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27.0


def filters(n_mels: int) -> np.ndarray:
    """Return the filter bank for `n_mels` bands (80 or 128): float32 [n_mels, 201]."""
    bins = np.fft.rfftfreq(FFT, 1.0 / SAMPLE_RATE)
    edges = _hz(np.linspace(0.0, _mel(SAMPLE_RATE / 2), n_mels + 2))
    width = np.diff(edges)
    ramps = edges[:, None] - bins[None, :]
    # Triangles in float64, stored as float32; then the area norm is multiplied in place.
    bank = np.empty((n_mels, bins.size), np.float32)
    for band in range(n_mels):
        rise = -ramps[band] / width[band]
        fall = ramps[band + 2] / width[band + 1]
        bank[band] = np.maximum(0.0, np.minimum(rise, fall))
    bank *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    # The rise of the lowest band is -0.0 at 0 Hz, and whether a maximum with 0.0 keeps that
    # sign differs between versions of numpy: upstream's files have +0.0 there.
    bank[bank == 0.0] = 0.0
    return bank


def _mel(hz: float) -> float:
    if hz < KNEE_HZ:
        return hz / LINEAR_HZ
    return float(KNEE_HZ / LINEAR_HZ + np.log(hz / KNEE_HZ) / LOG_STEP)


def _hz(mel: np.ndarray) -> np.ndarray:
    knee = KNEE_HZ / LINEAR_HZ
    return np.where(mel < knee, mel * LINEAR_HZ, KNEE_HZ * np.exp(LOG_STEP * (mel - knee)))
