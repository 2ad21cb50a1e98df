"""Mixing of several channels to one: those that carry speech, in phase, without the others.

A plain mean cancels channels of opposite phase, and a tone or a timecode on one channel hides the
speech on another. `Mixer` inverts channels of opposite phase to the loudest one. If channels
differ, it applies a speech test to each. Once any channel has had speech, it leaves out those that
had none for half a minute. It raises a second speaker who is much quieter on a separate channel.
Channels that are alike cost two products a block, and identical ones give their plain mean.

Weights change over 50 ms. If channels differ, the mixer holds back two seconds, so that the change
comes before the speech that caused it. Its memory is at most that and a block, 4 MiB and 1 MiB of
samples, whatever the number of channels. Worker thread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import soxr

from app.audio.samples import SAMPLE_RATE, Samples

SpeechTest = Callable[[Samples], bool]
"""Whether float32 samples, shape [n], at 16 kHz, hold speech."""

Values = npt.NDArray[np.float64]

_HOLD_SECONDS = 2.0
_HOLD_VALUES = 1 << 20
_FADE_SECONDS = 0.05

_ALIKE = 0.9
"""Correlation from which on two channels carry the same."""

_OPPOSITE = -0.3
"""Correlation from which on a channel is turned over. The sign of unlike channels does not matter:
two voices or noises correlate by less than 0.2 over a second."""

_ACTIVE_SHARE = 1e-6
"""Fraction of the power of the loudest channel (-60 dB) below which a channel is ignored."""

_MEMORY_SECONDS = 3.0
"""Time constant of the correlations."""

_SPOKEN_SECONDS, _ASK_AGAIN_SECONDS = 30.0, 10.0
"""A channel is kept for so long after speech, and asked again after so long."""

_MOST_RAISED = 10.0
"""20 dB."""


class Mixer:
    """Mixes one stream of blocks at `rate` Hz. Without `speaks` no channel is left out."""

    def __init__(self, rate: int, channels: int, speaks: SpeechTest | None = None) -> None:
        self._rate = rate
        self._channels = channels
        self._speaks = speaks
        self._hold = min(int(_HOLD_SECONDS * rate), _HOLD_VALUES // channels)
        self._fade = max(1, int(_FADE_SECONDS * rate))
        self._held: Samples = np.empty((0, channels), dtype=np.float32)
        self._unasked = 0
        """Frames of the held ones that no test has heard."""
        self._frames = 0
        self._products: Values = np.zeros((channels, channels))
        self._signs: Values = np.ones(channels)
        self._spoke: Values = np.full(channels, -np.inf)
        """When each channel was last found to speak, in frames."""
        self._own: Values = np.zeros(channels)
        """The power of speech that a channel had for itself; 0 for none."""
        self._plain: Values = np.full(channels, 1 / channels)
        self._weights = self._plain
        self._first = True
        self._differs = False

    def mix(self, block: Samples) -> Samples:
        """The next samples, float32, shape [m], of `block`, shape [n, channels], and of what was
        held back."""
        if self._channels == 1:
            only: Samples = block[:, 0].copy()
            return only
        if not len(block):
            return np.empty(0, dtype=np.float32)
        self._frames += len(block)
        usual = not self._differs and np.array_equal(self._weights, self._plain)
        if usual and _are_identical(block):
            self._first = False
            return _mean(block)
        power, correlation = self._correlate(block)
        active = power > max(1e-12, _ACTIVE_SHARE * float(power.max()))
        self._turn_over(power, correlation)
        if self._speaks is not None and not self._differs:
            # Once and for all: channels that differ in places are asked in all places.
            self._differs = bool((np.abs(correlation[np.ix_(active, active)]) < _ALIKE).any())
        if not self._differs:
            return self._apply(block)
        pending = np.concatenate((self._held, block))
        self._unasked += len(block)
        if self._unasked >= self._hold:
            self._ask(pending, power, correlation, active)
            self._unasked = 0
        ready = max(0, len(pending) - self._hold)
        self._held = pending[ready:].copy()
        return self._apply(pending[:ready])

    def flush(self) -> Samples:
        """The samples held back, at the end of the stream; shape [m]."""
        held, self._held = self._held, self._held[:0]
        if self._differs and self._unasked and len(held):
            power, correlation = self._correlations(self._products)
            active = power > max(1e-12, _ACTIVE_SHARE * float(power.max()))
            self._ask(held, power, correlation, active)
        return self._apply(held)

    def _correlate(self, block: Samples) -> tuple[Values, Values]:
        products = (block.T @ block).astype(np.float64) / len(block)
        share = 1 - float(np.exp(-len(block) / (_MEMORY_SECONDS * self._rate)))
        if not self._products.any():
            share = 1.0
        self._products += share * (products - self._products)
        return self._correlations(self._products)

    def _correlations(self, products: Values) -> tuple[Values, Values]:
        """The power of each channel, shape [channels], and correlations, [channels, channels]."""
        power = np.diag(products).copy()
        scale = np.sqrt(np.maximum(power, 1e-30))
        return power, products / np.outer(scale, scale)

    def _turn_over(self, power: Values, correlation: Values) -> None:
        loudest = int(power.argmax())
        towards = correlation[loudest]
        self._signs = np.where(towards < _OPPOSITE, -self._signs[loudest], self._signs)
        self._signs = np.where(towards > -_OPPOSITE, self._signs[loudest], self._signs)

    def _ask(
        self, pending: Samples, power: Values, correlation: Values, active: npt.NDArray[np.bool_]
    ) -> None:
        """Find out which active channels speak, and how loud a speaker of its own is."""
        now = power_of(pending)
        answers: dict[int, bool] = {}
        for channel in np.flatnonzero(active):
            # The loudest one is asked until it is known to have spoken while it was the loudest.
            unknown = channel == now.argmax() and not self._own[channel]
            if (
                not unknown
                and self._frames - self._spoke[channel] < _ASK_AGAIN_SECONDS * self._rate
            ):
                continue
            twin = next((one for one in answers if abs(correlation[one, channel]) > _ALIKE), None)
            spoken = answers[twin] if twin is not None else self._hears(pending[:, channel])
            answers[int(channel)] = spoken
            if spoken:
                self._spoke[channel] = self._frames
                if unknown:
                    self._own[channel] = now[channel]

    def _hears(self, samples: Samples) -> bool:
        assert self._speaks is not None
        if self._rate != SAMPLE_RATE:
            samples = soxr.resample(samples, self._rate, SAMPLE_RATE)
        return self._speaks(np.ascontiguousarray(samples, dtype=np.float32))

    def _wanted(self) -> Values:
        """The weight of each channel; their magnitudes add up to 1."""
        spoken = self._frames - self._spoke < _SPOKEN_SECONDS * self._rate
        strength = spoken.astype(np.float64) if spoken.any() else np.ones(self._channels)
        own = self._own * spoken
        if (own > 0).sum() > 1:
            raised = np.sqrt(own.max() / np.where(own > 0, own, own.max()))
            strength *= np.minimum(raised, _MOST_RAISED)
        wanted: Values = self._signs * strength / strength.sum()
        return wanted

    def _apply(self, block: Samples) -> Samples:
        if not len(block):
            return np.empty(0, dtype=np.float32)
        wanted = self._wanted()
        before = wanted if self._first else self._weights
        self._first = False
        self._weights = wanted
        if np.array_equal(wanted, self._plain) and np.array_equal(wanted, before):
            return _mean(block)
        mixed: Samples = block @ wanted.astype(np.float32)
        if not np.array_equal(wanted, before):
            count = min(self._fade, len(block))
            old = block[:count] @ before.astype(np.float32)
            share = np.linspace(0, 1, count, endpoint=False, dtype=np.float32)
            mixed[:count] = old + share * (mixed[:count] - old)
        return mixed


def _are_identical(block: Samples) -> bool:
    first = block[:, 0]
    # One sample tells of nearly all that are not.
    return bool(
        np.ptp(block[len(block) // 2]) == 0.0
        and all(np.array_equal(first, channel) for channel in block.T[1:])
    )


def _mean(block: Samples) -> Samples:
    if block.shape[1] == 2:
        # The same to the last bit as the mean along the axis, at a tenth of its time.
        half: Samples = (block[:, 0] + block[:, 1]) / np.float32(2)
        return half
    mean: Samples = block.mean(axis=1)
    return mean


def power_of(samples: Samples) -> Values:
    """The mean square of each channel of [n, channels]; shape [channels]."""
    return np.asarray(np.einsum("ij,ij->j", samples, samples) / len(samples), dtype=np.float64)
