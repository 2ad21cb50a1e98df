"""The mix of several channels: those with speech, in phase, without the others.

A plain mean cancels channels of opposite phase, and a tone or a timecode on one channel masks the
speech on another. `Mixer` inverts channels that are opposite to the loudest one. If the channels
differ, it applies a speech test to each. As soon as one has speech, channels without speech in the
last half minute are left out. A second speaker who is much quieter, on a separate channel, is
amplified. Similar channels cost two products per block, and the mix of identical ones is their
plain mean.

Weights change over 50 ms. If channels differ, the mixer holds two seconds back, so that the change
precedes the speech that caused it. Memory is at most these and a block, 4 MiB and 1 MiB of samples,
for any number of channels. Worker thread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import soxr

from app.audio.samples import SAMPLE_RATE, Samples

SpeechTest = Callable[[Samples], bool]
"""A test whether float32 samples, shape [n], at 16 kHz, contain speech."""

Values = npt.NDArray[np.float64]

_HOLD_SECONDS = 2.0
_HOLD_VALUES = 1 << 20
_FADE_SECONDS = 0.05

_ALIKE = 0.9
"""Lowest correlation of two channels with the same content."""

_OPPOSITE = -0.3
"""Highest correlation at which a channel is inverted. The sign of channels with different content
does not matter: two voices or noises correlate by less than 0.2 over a second."""

_ACTIVE_SHARE = 1e-6
"""Lowest power of an active channel, as a share of the loudest one's: -60 dB. A quieter channel
does not affect the mix."""

_MEMORY_SECONDS = 3.0
"""Time constant of the correlations, in seconds."""

_SPOKEN_SECONDS, _ASK_AGAIN_SECONDS = 30.0, 10.0
"""Seconds for which a channel stays in the mix after speech, and after which it is tested again."""

_MOST_RAISED = 10.0
"""Greatest amplification of a quiet speaker: 20 dB."""


class Mixer:
    """The mixer of one stream of blocks at `rate` Hz. Without `speaks` it leaves no channel out."""

    def __init__(self, rate: int, channels: int, speaks: SpeechTest | None = None) -> None:
        self._rate = rate
        self._channels = channels
        self._speaks = speaks
        self._hold = min(int(_HOLD_SECONDS * rate), _HOLD_VALUES // channels)
        self._fade = max(1, int(_FADE_SECONDS * rate))
        self._held: Samples = np.empty((0, channels), dtype=np.float32)
        self._unasked = 0
        """Number of held frames that have not been tested."""
        self._frames = 0
        self._products: Values = np.zeros((channels, channels))
        self._signs: Values = np.ones(channels)
        self._spoke: Values = np.full(channels, -np.inf)
        """Frame at which each channel was last found to contain speech."""
        self._own: Values = np.zeros(channels)
        """Power of each channel's own speaker, measured while it is the loudest; 0 if unknown."""
        self._plain: Values = np.full(channels, 1 / channels)
        self._weights = self._plain
        self._first = True
        self._differs = False

    def mix(self, block: Samples) -> Samples:
        """Return the next samples of those held back and `block`: float32, shape [m]. `block` has
        the shape [n, channels]."""
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
            # Permanent: channels that differ once are tested from then on.
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
        """Return the samples held back, at the end of the stream; shape [m]."""
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
        """Return each channel's power, [channels], and the correlations, [channels, channels]."""
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
        """Test which active channels contain speech; note the power of each loudest speaker."""
        now = power_of(pending)
        answers: dict[int, bool] = {}
        for channel in np.flatnonzero(active):
            # The loudest channel is tested until it has had speech while it was the loudest.
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
        """Return the weight of each channel; the magnitudes have the sum 1."""
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
    # A single frame reveals nearly all channels that are not identical.
    return bool(
        np.ptp(block[len(block) // 2]) == 0.0
        and all(np.array_equal(first, channel) for channel in block.T[1:])
    )


def _mean(block: Samples) -> Samples:
    if block.shape[1] == 2:
        # This equals the mean along the axis bit for bit, in a tenth of its time.
        half: Samples = (block[:, 0] + block[:, 1]) / np.float32(2)
        return half
    mean: Samples = block.mean(axis=1)
    return mean


def power_of(samples: Samples) -> Values:
    """Return the mean square of each channel of samples [n, channels]; shape [channels]."""
    return np.asarray(np.einsum("ij,ij->j", samples, samples) / len(samples), dtype=np.float64)
