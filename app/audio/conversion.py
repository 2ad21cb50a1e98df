"""Conversion of blocks of samples to mono at 16 kHz.

`Converter` brings blocks into range (`range.py`), removes a constant offset (`offset.py`), mixes
the channels (`mix.py`) and resamples with soxr's stream resampler. Files and live audio share it.
Its result depends on the sizes of the blocks, so live audio is given blocks of a fixed size.
Worker thread.
"""

from __future__ import annotations

import soxr

from app.audio.mix import Mixer, SpeechTest
from app.audio.offset import OffsetRemover
from app.audio.range import RangeKeeper
from app.audio.samples import SAMPLE_RATE, Samples


class Converter:
    """The conversion of one stream of blocks at `rate` Hz with `channels` channels.

    `speaks` is the speech test for mixing. With a `channel`, counted from 0, the result is that
    channel alone.
    """

    def __init__(
        self,
        rate: int,
        channels: int,
        speaks: SpeechTest | None = None,
        channel: int | None = None,
    ) -> None:
        self._channel = channel
        self._range = RangeKeeper(rate)
        mixed = channels if channel is None else 1
        self._offset = OffsetRemover(rate, mixed)
        self._mixer = Mixer(rate, mixed, speaks)
        self._resampler = (
            None
            if rate == SAMPLE_RATE
            else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        )

    def convert(self, block: Samples) -> Samples:
        """Return the next samples, float32, shape [m], m >= 0, 16 kHz, -1 to 1. `block` has the
        shape [n, channels] and is changed in place."""
        # Before mixing, so that one faulty channel neither attenuates nor masks the others.
        self._range.keep(block)
        if self._channel is not None:
            block = block[:, self._channel : self._channel + 1]
        self._offset.remove(block)
        return self._resample(self._mixer.mix(block))

    def end(self) -> Samples:
        """Return the last samples, which the mixer and the resampler held back; shape [m]."""
        return self._resample(self._mixer.flush(), last=True)

    def _resample(self, mono: Samples, last: bool = False) -> Samples:
        if self._resampler is None:
            return mono
        resampled: Samples = self._resampler.resample_chunk(mono, last=last)
        return resampled
