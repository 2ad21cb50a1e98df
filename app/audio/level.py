"""Levels of chunks, and a detector that hears quiet speech as if it were loud.

A recording may lie anywhere from full scale down to -70 dB, Silero's detector hears no speech under
about -60 dB, and Whisper mishears it from about -50 dB down. `LevelledDetector` follows the loudest
of the last seconds and amplifies quiet chunks for the detector; `amplified` does so once for a
window for the engine. Levels are RMS after taking the mean off, 1.0 for full scale. Figures are in
docs/lab-book.md ("Levels, channels and range"). Worker thread.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.audio.samples import SAMPLE_RATE, Samples
from app.audio.vad import CHUNK, Detector

Levels = npt.NDArray[np.float64]

_LOUD = 10 ** (-30 / 20)
"""Quieter recordings are amplified to this. Silero hears speech as well at -50 dB as at -20."""

_SPEECH = 10 ** (-20 / 20)
_TOO_QUIET = 10 ** (-35 / 20)
"""The loudest chunks of 82 clips of speech lie at -31 dB and above, so that all pass unchanged."""

_MOST_GAIN = 10 ** (60 / 20)

_LOUDEST_CHUNK = 10 ** (-12 / 20)
"""No chunk is amplified beyond this, so that a first loud chunk after noise is not clipped."""

_SILENT = 10 ** (-65 / 20)
_SILENT_BELOW_LOUDEST = 10 ** (-45 / 20)
_DIGITAL_SILENCE = 10 ** (-100 / 20)
"""A chunk is silent under -65 dB, in quiet recordings under 45 dB below the loudest, and always
under the rounding noise of 16 bits (-101 dB: a step of 2 ** -15 divided by the root of 12)."""

_DECAY = 10 ** (-6 / 20 * CHUNK / SAMPLE_RATE)
"""Decay of the level for each chunk, 6 dB a second. A slammed door hides speech 30 dB below it for
no more than 5 s, and no speech that the detector hears without amplification."""

_STEADY_CHUNKS, _SLOW_CHUNKS = 3, 31
"""Chunks (0.1 s and 1 s): changes of level between 1 and 8 Hz are the rhythm of syllables."""

_STEADY_DECIBELS = 1.5
"""Noise whose level moves less in that band is steady: white, coloured, hum and hiss move by 0.1 to
0.5 dB, clean whispers by 4.7 or more; the geometric mean is 1.5."""


def chunk_levels(samples: Samples) -> Levels:
    """The level of each whole chunk; shape [len(samples) // CHUNK]."""
    chunks = samples[: len(samples) // CHUNK * CHUNK].reshape(-1, CHUNK)
    levels: Levels = chunks.std(axis=1).astype(np.float64)
    return levels


def loudest(levels: Levels) -> float:
    """The loudest level that lasts: the maximum of the medians of three chunks in a row, so that a
    click does not count. 0 for no levels."""
    if len(levels) < 3:
        return float(levels.min(initial=np.inf)) if len(levels) else 0.0
    one, two, three = levels[:-2], levels[1:-1], levels[2:]
    medians = np.maximum(np.minimum(one, two), np.minimum(np.maximum(one, two), three))
    return float(medians.max())


def silence_floor(loudest_level: float) -> float:
    """The level under which a chunk of a recording is silent."""
    return max(_DIGITAL_SILENCE, min(_SILENT, loudest_level * _SILENT_BELOW_LOUDEST))


def amplified(samples: Samples) -> Samples:
    """A window for the engine, float32, shape [n]: as it is, or with its loudest chunks at -20 dB
    where they are under -35."""
    loudest_level = loudest(chunk_levels(samples))
    if loudest_level >= _TOO_QUIET:
        return samples
    peak = float(np.abs(samples).max(initial=0.0))
    gain = min(_MOST_GAIN, _SPEECH / max(loudest_level, _DIGITAL_SILENCE), 1 / max(peak, 1e-9))
    louder: Samples = samples * np.float32(gain)
    return louder


def is_steady(samples: Samples) -> bool:
    """Whether the level moves too little, at the rhythm of syllables, for there to be speech.

    The difference of neighbouring samples is measured: rumble, whose level in 32 ms is a matter of
    chance, would otherwise move by several dB.
    """
    levels = chunk_levels(np.diff(samples, prepend=samples[:1]))
    if not len(levels):
        return True
    decibels = 20 * np.log10(np.maximum(levels, _DIGITAL_SILENCE / 10))
    moving = _smooth(decibels, _STEADY_CHUNKS) - _smooth(decibels, _SLOW_CHUNKS)
    return float(moving.std()) < _STEADY_DECIBELS


def _smooth(values: Levels, count: int) -> Levels:
    count = min(count, len(values))
    padded = np.pad(values, (count // 2, count - 1 - count // 2), mode="edge")
    return np.convolve(padded, np.full(count, 1 / count), mode="valid")


class LevelledDetector:
    """Asks a detector about chunks that may hold speech, amplified where the recording is quiet."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._loudest = 0.0
        self._last: tuple[float, float] | None = None
        """The levels of the two chunks before."""

    def reset(self) -> None:
        """Forget the sound that was heard; the level of the recording stays."""
        self._detector.reset()

    def expect(self, loudest_level: float) -> None:
        """Take the loudest level of the recording from a measurement."""
        self._loudest = loudest_level
        self._last = None

    def probability(self, chunk: Samples) -> float:
        """0 to 1 for the next chunk, float32, shape [n], 1 <= n <= CHUNK; 0 if it is silent."""
        centred = chunk - chunk.mean()
        level = float(np.sqrt(np.mean(centred * centred)))
        before = self._last or (level, level)
        lasting = sorted((*before, level))[1]
        self._last = (before[1], level)
        self._loudest = max(self._loudest * _DECAY, lasting)
        if level < silence_floor(self._loudest):
            return 0.0
        gain = min(_MOST_GAIN, _LOUD / max(self._loudest, _DIGITAL_SILENCE))
        gain = min(gain, _LOUDEST_CHUNK / level)
        if gain > 1.0:
            centred = centred * np.float32(gain)
        return self._detector.probability(centred)
