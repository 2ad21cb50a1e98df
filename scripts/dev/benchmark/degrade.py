"""Ways to degrade a recording: level, bit depth, offset, whispering, channels, repetition, noise.

Pure functions of float32 samples within -1 to 1, shape [n] unless a function says otherwise. A
function that draws random numbers takes a `numpy.random.Generator`, so equal seeds give equal
results. Levels are in dB of full scale: a constant of 1.0 has 0 dB. Noise is in `noises.py`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_CHUNK_SECONDS = 0.032
_ACTIVE_DB = 20.0
"""Chunks within this distance of the loudest one count as active speech."""

_LPC_SECONDS, _LPC_HOP_SECONDS = 0.03, 0.01
_PREEMPHASIS = 0.95

_TIMECODE_BITS, _TIMECODE_FRAMES = 80, 25
"""SMPTE 12M linear timecode: 80 bits a frame, 25 frames a second in Europe."""

_TIMECODE_SYNC = (0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1)


def decibels(ratio: float) -> float:
    """Convert an amplitude ratio to dB; minus infinity for 0."""
    return 20 * float(np.log10(ratio)) if ratio > 0 else -np.inf


def amplitude(level: float) -> float:
    """Convert a level in dB to an amplitude ratio."""
    return float(10 ** (level / 20))


def speech_level(samples: Samples, rate: int) -> float:
    """The RMS level in dB of the active part, without pauses (ITU-T P.56)."""
    size = max(1, int(_CHUNK_SECONDS * rate))
    chunks = samples[: len(samples) // size * size].reshape(-1, size)
    power = chunks.astype(np.float64).var(axis=1)
    if not power.any():
        return -np.inf
    active = power[power >= power.max() * 10 ** (-_ACTIVE_DB / 10)]
    return decibels(float(np.sqrt(active.mean())))


def at_level(samples: Samples, rate: int, level: float) -> Samples:
    """The samples with their active part at `level` dB. Nothing is clipped."""
    return gained(samples, level - speech_level(samples, rate))


def gained(samples: Samples, level: float) -> Samples:
    """Amplify by `level` dB. Nothing is clipped."""
    return (samples * amplitude(level)).astype(np.float32)


def clipped(samples: Samples) -> Samples:
    """The part of the samples that an integer format can hold."""
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


def quantised(samples: Samples, bits: int) -> Samples:
    """Round to `bits` bits without dither, as a plain recorder does."""
    steps = 2 ** (bits - 1)
    whole = np.clip(np.rint(samples.astype(np.float64) * steps), -steps, steps - 1)
    return (whole / steps).astype(np.float32)


def offset(samples: Samples, amount: float) -> Samples:
    """Add a constant and make room for it, so that nothing is clipped."""
    room = 1.0 - abs(amount)
    peak = float(np.abs(samples).max(initial=0.0))
    return (samples * min(1.0, room / max(peak, 1e-9)) + amount).astype(np.float32)


def telephone(samples: Samples, rate: int) -> Samples:
    """Keep 300 to 3400 Hz, the band of a telephone (ITU-T G.712)."""
    spectrum = np.fft.rfft(samples.astype(np.float64))
    hertz = np.fft.rfftfreq(len(samples), 1 / rate)
    kept = np.fft.irfft(spectrum * ((hertz >= 300) & (hertz <= 3400)), len(samples))
    return kept.astype(np.float32)


def whispered(samples: Samples, rate: int, random: np.random.Generator) -> Samples:
    """Turn speech into a whisper: keep the filter of the vocal tract, and excite it with noise.

    Linear prediction over windows of 30 ms (autocorrelation method, Makhoul 1975), resynthesised
    from white noise with each window's residual energy. A pre-emphasis without its inverse removes
    the spectral tilt of the voice source, which a whisper lacks. The peak is unchanged.
    """
    order = 2 + rate // 1000
    size, hop = int(_LPC_SECONDS * rate), int(_LPC_HOP_SECONDS * rate)
    window = np.hanning(size)
    bright = np.append(samples[:1], samples[1:] - _PREEMPHASIS * samples[:-1]).astype(np.float64)
    padded = np.pad(bright, (size, 2 * size))
    excitation = random.standard_normal(len(padded))
    made = np.zeros(len(padded) + size)
    for begin in range(0, len(padded) - size, hop):
        taps, energy = _prediction(padded[begin : begin + size] * window, order)
        excited = excitation[begin : begin + size] * window * np.sqrt(energy / size)
        # Twice the length, so that resonances ring out beyond their window.
        made[begin : begin + 2 * size] += _resonate(taps, excited, 2 * size)
    voice = made[size : size + len(samples)]
    peak = float(np.abs(voice).max(initial=0.0))
    wanted = float(np.abs(samples).max(initial=0.0))
    return (voice * (wanted / peak if peak > 0 else 1.0)).astype(np.float32)


def _prediction(frame: Floats, order: int) -> tuple[Floats, float]:
    """Levinson-Durbin recursion: the polynomial, shape [order + 1], and the residual energy."""
    lags = np.array([frame[lag:] @ frame[: len(frame) - lag] for lag in range(order + 1)])
    # White noise at -40 dB keeps the filter of a tone stable.
    energy = float(lags[0]) * 1.0001 + 1e-12
    taps = np.zeros(order + 1)
    taps[0] = 1.0
    for count in range(1, order + 1):
        reflection = -float(taps[:count] @ lags[count:0:-1]) / energy
        taps[1 : count + 1] = taps[1 : count + 1] + reflection * taps[count - 1 :: -1]
        energy *= 1 - reflection**2
    return taps, max(energy, 0.0)


def _resonate(taps: Floats, excitation: Floats, count: int) -> Floats:
    """The first `count` samples of the all-pole filter's output, computed by frequency."""
    size = 4 * count
    spectrum = np.fft.rfft(excitation, size) / np.fft.rfft(taps, size)
    return np.fft.irfft(spectrum, size)[:count].astype(np.float64)


# Channels: [n] to [n, channels].


def side_by_side(*channels: Samples) -> Samples:
    """Join channels of any lengths, shape [n, channels]; short ones are padded with silence."""
    longest = max(len(channel) for channel in channels)
    padded = [np.pad(channel, (0, longest - len(channel))) for channel in channels]
    return np.stack(padded, axis=1).astype(np.float32)


def opposite_phase(samples: Samples) -> Samples:
    """Two channels that cancel when they are added."""
    return side_by_side(samples, -samples)


def surround(samples: Samples, around: Samples) -> Samples:
    """5.1 channels like a film: speech in the centre, `around` in the other five channels."""
    around = np.resize(around, len(samples)).astype(np.float32)
    shifts = [np.roll(around, 977 * number) for number in range(5)]
    left, right, bass, back_left, back_right = shifts
    return side_by_side(left, right, samples, bass * 0.3, back_left, back_right)


def tone(count: int, rate: int, hertz: float = 1000.0, level: float = -18.0) -> Samples:
    """A line-up tone with its peak at `level` dB."""
    wave = np.sin(2 * np.pi * hertz * np.arange(count) / rate)
    return (amplitude(level) * wave).astype(np.float32)


def timecode(count: int, rate: int, level: float = -10.0) -> Samples:
    """Linear timecode (SMPTE 12M) from 01:00:00:00 on: a square wave, biphase mark coded."""
    halves: list[float] = []
    state = 1.0
    for frame in range(int(count / rate * _TIMECODE_FRAMES) + 1):
        for bit in _timecode_bits(frame):
            state = -state
            halves.append(state)
            state = -state if bit else state
            halves.append(state)
    per_second = 2 * _TIMECODE_BITS * _TIMECODE_FRAMES
    at = (np.arange(count) * per_second // rate).astype(np.int64)
    return (amplitude(level) * np.array(halves)[at]).astype(np.float32)


def _timecode_bits(frame: int) -> tuple[int, ...]:
    seconds, frames = divmod(frame, _TIMECODE_FRAMES)
    minutes, seconds = divmod(seconds, 60)
    bits: list[int] = []
    for value, tens in ((frames, 2), (seconds, 3), (minutes, 3), (1, 2)):
        for digit, width in ((value % 10, 4), (value // 10, tens)):
            # Four user bits follow each digit; the flags beside the tens are 0.
            bits += [digit >> place & 1 if place < width else 0 for place in range(4)] + [0] * 4
    return (*bits, *_TIMECODE_SYNC)


# Longer recordings.


def repeated(samples: Samples, rate: int, times: int, gap_seconds: float) -> Samples:
    """Repeat the recording `times` times, with digital silence between."""
    gap = np.zeros(round(gap_seconds * rate), np.float32)
    return np.concatenate([samples, *[gap, samples] * (times - 1)]).astype(np.float32)


def surrounded(samples: Samples, rate: int, noise: Samples, seconds: float) -> Samples:
    """Add `seconds` of `noise` before and after; shorter noise is repeated."""
    whole = np.resize(noise, round(seconds * rate))
    return np.concatenate([whole, samples, whole]).astype(np.float32)


def mixed(samples: Samples, rate: int, noise: Samples, ratio: float) -> Samples:
    """Add `noise` at a level `ratio` dB below that of the speech."""
    whole = np.resize(noise, len(samples))
    return samples + at_level(whole, rate, speech_level(samples, rate) - ratio)
