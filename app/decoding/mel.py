"""The log mel spectrogram of a window, as whisper.cpp computes it, in a tenth of its time.

whisper.cpp transforms each frame with a recursive function of its own. This module uses numpy's
transform and gives whisper.cpp the result. The values are those of openai/whisper's
log_mel_spectrogram: frames of 25 ms every 10 ms, powers, mel filters, a logarithm, and a range of 8
decades below the maximum. They differ from whisper.cpp's by the rounding of 32-bit numbers
(docs/lab-book.md, "Mel spectrogram"). Worker thread.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.audio.stream import Samples

Mel = npt.NDArray[np.float32]

FRAME, STEP = 400, 160
"""Samples in a frame, and from one frame to the next (whisper.h: WHISPER_N_FFT and
WHISPER_HOP_LENGTH)."""

FRAME_MILLISECONDS = 10
"""Milliseconds from one frame to the next."""

FRAMES_PER_POSITION = 2
"""The encoder halves the number of frames."""

_HALF = FRAME // 2
_HEADER = struct.Struct("<I11i2i")
"""The head of a ggml file: the magic number, eleven sizes, and the shape of the mel filters."""

_LEAST_POWER = 1e-10
_RANGE = 8.0
"""Decades below the maximum that are kept."""

_MOST_PRODUCTS = 1 << 18
"""Most multiplications in one matrix product. OpenBLAS divides larger ones between threads, which
would compete with the engine's."""

_WINDOW = (0.5 * (1.0 - np.cos(2.0 * np.pi * np.arange(FRAME) / FRAME))).astype(np.float32)
"""The periodic Hann window."""


@dataclass(frozen=True, slots=True)
class MelFilters:
    """The mel filters of one model, transposed: float32, shape [bins, bands]."""

    weights: Mel

    def spectrogram(self, samples: Samples, positions: int) -> tuple[Mel, int]:
        """Return the spectrogram for an encoder with `positions`, and the number of frames that
        lie within the samples.

        `samples` are float32, shape [n], n > 200, 16 kHz. The spectrogram is float32, shape
        [bands, 2 * positions], C-contiguous. It is cut there, or continued as silence.
        """
        count = (len(samples) + _HALF) // STEP + 1
        padded = np.zeros((count - 1) * STEP + FRAME, dtype=np.float32)
        padded[:_HALF] = samples[_HALF:0:-1]
        kept = samples[: len(padded) - _HALF]
        padded[_HALF : _HALF + len(kept)] = kept
        frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::STEP]
        bins, bands = self.weights.shape
        width = FRAMES_PER_POSITION * positions
        found = np.full((max(count, width), bands), _LEAST_POWER, dtype=np.float32)
        rows = max(1, _MOST_PRODUCTS // (bins * bands))
        for at in range(0, count, rows):
            transformed = np.fft.rfft(frames[at : at + rows] * _WINDOW)
            power = (transformed.real**2 + transformed.imag**2).astype(np.float32)
            np.matmul(power, self.weights, out=found[at : at + len(power)])
        np.maximum(found, _LEAST_POWER, out=found)
        np.log10(found, out=found)
        np.maximum(found, found.max() - _RANGE, out=found)
        found += 4.0
        found /= 4.0
        within = 1 + (len(samples) - _HALF) // STEP
        return np.ascontiguousarray(found[:width].T), within


def read_filters(descriptor: int) -> MelFilters:
    """Read the mel filters of a ggml file that whisper.cpp has accepted. Raises `OSError`."""
    *_, bands, bins = _HEADER.unpack(os.pread(descriptor, _HEADER.size, 0))
    data = os.pread(descriptor, 4 * bands * bins, _HEADER.size)
    weights = np.frombuffer(data, dtype="<f4").reshape(bands, bins)
    return MelFilters(np.ascontiguousarray(weights.T, dtype=np.float32))
