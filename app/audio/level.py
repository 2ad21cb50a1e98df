"""Levels of chunks, and their amplification for the detector and the engine.

Recordings have levels from full scale down to -70 dB. Silero's detector finds no speech below about
-60 dB, and Whisper makes errors below about -50 dB. `LevelledDetector` follows the loudest level of
the last seconds and amplifies quiet chunks for the detector; `amplified` amplifies a whole window
for the engine. Levels are RMS without the mean, 1.0 for full scale. Figures: docs/lab-book.md
("Levels, channels and range"). Worker thread.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.audio.samples import SAMPLE_RATE, Samples
from app.audio.vad import CHUNK, Detector

Levels = npt.NDArray[np.float64]

_LOUD = 10 ** (-30 / 20)
"""Level to which quieter recordings are amplified for the detector. Silero detects speech at -50 dB
as well as at -20."""

_SPEECH = 10 ** (-20 / 20)
_TOO_QUIET = 10 ** (-35 / 20)
"""Levels for the engine: a window below the second is amplified to the first. The loudest chunks of
82 clips of speech have -31 dB and more, so all of them pass unchanged."""

_MOST_GAIN = 10 ** (60 / 20)

_LOUDEST_CHUNK = 10 ** (-12 / 20)
"""Highest level after amplification, so that a first loud chunk after noise is not clipped."""

_LIVE_LOUDEST = 10 ** (-55 / 20)
"""Lowest loudest level of live audio, which limits the gain to 25 dB. A higher gain of noise falls
when speech begins, and hides that from the detector: docs/lab-book.md, "Hearing live audio"."""

_SILENT = 10 ** (-65 / 20)
_SILENT_BELOW_LOUDEST = 10 ** (-45 / 20)
_DIGITAL_SILENCE = 10 ** (-100 / 20)
"""Levels below which a chunk is silent: -65 dB, in quiet recordings 45 dB below the loudest, and
always the rounding noise of 16 bits (-101 dB: a step of 2 ** -15 divided by the root of 12)."""

_DECAY = 10 ** (-6 / 20 * CHUNK / SAMPLE_RATE)
"""Decay of the loudest level per chunk: 6 dB a second. A slammed door masks speech 30 dB below it
for at most 5 s, and none that the detector finds without amplification."""

_STEADY_CHUNKS, _SLOW_CHUNKS = 3, 31
"""Lengths of the band-pass filter for levels, about 0.1 s and 1 s: syllables change the level at 1
to 8 Hz."""

_STEADY_DECIBELS = 1.5
"""Lowest standard deviation of the level in that band for speech: noise, hum and hiss have 0.1 to
0.5 dB, clean whispers 4.7 or more; the geometric mean is 1.5."""


def chunk_levels(samples: Samples) -> Levels:
    """Return the level of each whole chunk; shape [len(samples) // CHUNK]."""
    chunks = samples[: len(samples) // CHUNK * CHUNK].reshape(-1, CHUNK)
    levels: Levels = chunks.std(axis=1).astype(np.float64)
    return levels


def loudest(levels: Levels) -> float:
    """Return the loudest lasting level: the maximum of the medians of three successive chunks, so
    that a click does not count. 0 without levels."""
    if len(levels) < 3:
        return float(levels.min(initial=np.inf)) if len(levels) else 0.0
    one, two, three = levels[:-2], levels[1:-1], levels[2:]
    medians = np.maximum(np.minimum(one, two), np.minimum(np.maximum(one, two), three))
    return float(medians.max())


def silence_floor(loudest_level: float) -> float:
    """Return the level below which a chunk of a recording is silent."""
    return max(_DIGITAL_SILENCE, min(_SILENT, loudest_level * _SILENT_BELOW_LOUDEST))


def amplified(samples: Samples) -> Samples:
    """Return a window for the engine, float32, shape [n]: unchanged, or amplified to -20 dB if its
    loudest chunks are below -35."""
    loudest_level = loudest(chunk_levels(samples))
    if loudest_level >= _TOO_QUIET:
        return samples
    peak = float(np.abs(samples).max(initial=0.0))
    gain = min(_MOST_GAIN, _SPEECH / max(loudest_level, _DIGITAL_SILENCE), 1 / max(peak, 1e-9))
    louder: Samples = samples * np.float32(gain)
    return louder


def is_steady(samples: Samples) -> bool:
    """Return whether the level changes too little, at the rate of syllables, for speech.

    The difference of adjacent samples is measured: otherwise the level of rumble would change
    randomly by several dB from chunk to chunk.
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
    """A detector that skips silent chunks and amplifies those of a quiet recording.

    Live audio has no level that could be expected, and its first loud chunk decides when speech is
    found. So its gain is smaller, and no chunk is louder than those that follow.
    """

    def __init__(self, detector: Detector, is_live: bool = False) -> None:
        self._detector = detector
        self._least = _LIVE_LOUDEST if is_live else 0.0
        self._loudest_chunk = _LOUD if is_live else _LOUDEST_CHUNK
        self._loudest = 0.0
        self._last: tuple[float, float] | None = None
        """The levels of the previous two chunks."""
        self.level = 0.0
        """The level of the last chunk."""

    def reset(self) -> None:
        """Reset the detector; keep the level of the recording."""
        self._detector.reset()

    def expect(self, loudest_level: float) -> None:
        """Set the loudest level of the recording."""
        self._loudest = loudest_level
        self._last = None

    def probability(self, chunk: Samples) -> float:
        """Return 0 to 1 for the next chunk: float32, shape [n], 1 <= n <= CHUNK; 0 for silence."""
        centred = chunk - chunk.mean()
        level = self.level = float(np.sqrt(np.mean(centred * centred)))
        before = self._last or (level, level)
        lasting = sorted((*before, level))[1]
        self._last = (before[1], level)
        self._loudest = max(self._loudest * _DECAY, lasting, self._least)
        if level < silence_floor(self._loudest):
            return 0.0
        gain = min(_MOST_GAIN, _LOUD / max(self._loudest, _DIGITAL_SILENCE))
        gain = min(gain, self._loudest_chunk / level)
        if gain > 1.0:
            centred = centred * np.float32(gain)
        return self._detector.probability(centred)
