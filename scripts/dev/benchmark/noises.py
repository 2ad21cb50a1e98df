"""Noise floors of cheap microphones and of rooms, without speech.

Each maker in `NOISES` takes seconds, a rate in Hz and a `numpy.random.Generator` and returns
float32, shape [n], with its peak at 1. `benchmark.degrade.gained` sets the level.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Random = np.random.Generator
Maker = Callable[[float, int, Random], Samples]

NOISES: dict[str, Maker] = {}
"""The makers by name; the decorator below fills it."""


def _named(name: str) -> Callable[[Callable[[int, int, Random], Floats]], Maker]:
    """Register a maker of noise, shape [n]. The registered function scales its peak to 1."""

    def register(make: Callable[[int, int, Random], Floats]) -> Maker:
        def maker(seconds: float, rate: int, random: Random) -> Samples:
            made = make(int(seconds * rate), rate, random)
            peak = float(np.abs(made).max(initial=0.0))
            return (made / peak if peak > 0 else made).astype(np.float32)

        NOISES[name] = maker
        return maker

    return register


def _time(count: int, rate: int) -> Floats:
    return np.arange(count, dtype=np.float64) / rate


def _coloured(count: int, rate: int, random: Random, slope: float) -> Floats:
    """Gaussian noise whose power falls with frequency to the `slope`; RMS 1."""
    hertz = np.maximum(np.fft.rfftfreq(count, 1 / rate), 20.0)
    made = np.fft.irfft(np.fft.rfft(random.standard_normal(count)) * hertz ** (-slope / 2), count)
    return np.asarray(made / max(float(made.std()), 1e-12))


def _band(count: int, rate: int, random: Random, low: float, high: float) -> Floats:
    """Gaussian noise from `low` to `high` Hz; RMS 1."""
    hertz = np.fft.rfftfreq(count, 1 / rate)
    spectrum = np.fft.rfft(random.standard_normal(count)) * ((hertz >= low) & (hertz <= high))
    made = np.fft.irfft(spectrum, count)
    return np.asarray(made / max(float(made.std()), 1e-12))


def _harmonics(count: int, rate: int, random: Random, base: float) -> Floats:
    """Mains hum with falling harmonics, the odd ones stronger, like after a rectifier."""
    made = np.zeros(count)
    for order, phase in enumerate(random.uniform(0, 2 * np.pi, 12), start=1):
        strength = (1.0 if order % 2 else 0.4) / order
        made += strength * np.sin(2 * np.pi * base * order * _time(count, rate) + phase)
    return made


def _bursts(
    count: int,
    rate: int,
    random: Random,
    per_second: float,
    decay: float,
    band: tuple[float, float],
    spread: float = 6.0,
) -> Floats:
    """Decaying bursts of noise at random times; `decay` in seconds, levels `spread` dB apart."""
    made = np.zeros(count)
    length = int(6 * decay * rate)
    for begin in random.integers(0, max(1, count), int(per_second * count / rate) + 1):
        size = min(length, count - begin)
        shape = np.exp(-np.arange(size) / (decay * rate))
        burst = _band(length, rate, random, *band)[:size] * shape
        made[begin : begin + size] += burst * 10 ** (-random.uniform(0, spread) / 20)
    return made


@_named("white")
def _white(count: int, rate: int, random: Random) -> Floats:
    return random.standard_normal(count)


@_named("pink")
def _pink(count: int, rate: int, random: Random) -> Floats:
    return _coloured(count, rate, random, 1.0)


@_named("brown")
def _brown(count: int, rate: int, random: Random) -> Floats:
    return _coloured(count, rate, random, 2.0)


@_named("blue")
def _blue(count: int, rate: int, random: Random) -> Floats:
    return _coloured(count, rate, random, -1.0)


@_named("hum-50")
def _hum_50(count: int, rate: int, random: Random) -> Floats:
    return _harmonics(count, rate, random, 50.0)


@_named("hum-60")
def _hum_60(count: int, rate: int, random: Random) -> Floats:
    return _harmonics(count, rate, random, 60.0)


@_named("hum-and-hiss")
def _hum_and_hiss(count: int, rate: int, random: Random) -> Floats:
    return _harmonics(count, rate, random, 50.0) + 0.3 * random.standard_normal(count)


@_named("fan")
def _fan(count: int, rate: int, random: Random) -> Floats:
    time = _time(count, rate)
    blades = sum(np.sin(2 * np.pi * 23 * order * time) / order for order in range(1, 8))
    swing = 1 + 0.2 * np.sin(2 * np.pi * 1.7 * time)
    return np.asarray(swing * (_coloured(count, rate, random, 1.5) + 0.5 * blades))


@_named("engine")
def _engine(count: int, rate: int, random: Random) -> Floats:
    speed = 28 + 3 * np.sin(2 * np.pi * 0.15 * _time(count, rate))
    phase = 2 * np.pi * np.cumsum(speed) / rate
    firing = sum(np.sin(order * phase + order) / order for order in range(1, 20))
    return np.asarray(firing + 0.3 * _band(count, rate, random, 30, 1500))


@_named("rain")
def _rain(count: int, rate: int, random: Random) -> Floats:
    drops = _bursts(count, rate, random, 60, 0.004, (1000, rate / 2), 20)
    return _band(count, rate, random, 500, rate / 2) + 6 * drops


@_named("wind")
def _wind(count: int, rate: int, random: Random) -> Floats:
    time = _time(count, rate)
    points = np.arange(0, count / rate + 2, 0.7)
    gusts = np.interp(time, points, random.uniform(0.1, 1.0, len(points)))
    return np.asarray(gusts * _band(count, rate, random, 20, 400))


@_named("clicks")
def _clicks(count: int, rate: int, random: Random) -> Floats:
    return _bursts(count, rate, random, 2, 0.001, (500, rate / 2)) + 0.003 * random.standard_normal(
        count
    )


@_named("crackle")
def _crackle(count: int, rate: int, random: Random) -> Floats:
    return _bursts(count, rate, random, 25, 0.0006, (200, rate / 2), 30)


@_named("keyboard")
def _keyboard(count: int, rate: int, random: Random) -> Floats:
    keys = _bursts(count, rate, random, 7, 0.012, (300, rate / 2), 12)
    return keys + 0.01 * _coloured(count, rate, random, 1.0)


@_named("footsteps")
def _footsteps(count: int, rate: int, random: Random) -> Floats:
    steps = _bursts(count, rate, random, 2, 0.05, (40, 600), 6)
    return steps + 0.01 * _coloured(count, rate, random, 1.0)


@_named("dripping")
def _dripping(count: int, rate: int, random: Random) -> Floats:
    made = 0.003 * random.standard_normal(count)
    for begin in range(0, count, int(0.9 * rate)):
        time = _time(min(int(0.15 * rate), count - begin), rate)
        drop = np.sin(2 * np.pi * (1400 * time + 2500 * time**2)) * np.exp(-time / 0.03)
        made[begin : begin + len(time)] += drop
    return made


@_named("one-bit-dither")
def _one_bit(count: int, rate: int, random: Random) -> Floats:
    return np.rint(random.uniform(-1, 1, count)).astype(np.float64)


@_named("telephone-buzz")
def _telephone_buzz(count: int, rate: int, random: Random) -> Floats:
    """The 217 Hz frames of a GSM telephone beside a microphone, in groups."""
    time = _time(count, rate)
    pulses = ((time * 217) % 1 < 0.125).astype(np.float64)
    groups = ((time * 1.9) % 1 < 0.6).astype(np.float64)
    return pulses * groups - float(pulses.mean()) + 0.01 * random.standard_normal(count)


@_named("line-tone")
def _line_tone(count: int, rate: int, random: Random) -> Floats:
    """An engaged line: 425 Hz, half a second on and off (ITU-T E.180)."""
    time = _time(count, rate)
    on = (time % 1.0 < 0.5).astype(np.float64)
    return on * np.sin(2 * np.pi * 425 * time) + 0.005 * random.standard_normal(count)


@_named("bit-crushed")
def _bit_crushed(count: int, rate: int, random: Random) -> Floats:
    """Hum so quiet that the converter resolves it in three steps."""
    return np.rint(1.4 * np.sin(2 * np.pi * 50 * _time(count, rate))).astype(np.float64)


@_named("traffic")
def _traffic(count: int, rate: int, random: Random) -> Floats:
    time = _time(count, rate)
    passing = sum(np.exp(-(((time - at) / 1.2) ** 2)) for at in random.uniform(0, count / rate, 4))
    return np.asarray((0.1 + passing) * _band(count, rate, random, 40, 1200))


@_named("rustle")
def _rustle(count: int, rate: int, random: Random) -> Floats:
    """Clothes that rub against a microphone."""
    rubs = _bursts(count, rate, random, 3, 0.08, (100, 3000), 15)
    return rubs + 0.02 * random.standard_normal(count)
