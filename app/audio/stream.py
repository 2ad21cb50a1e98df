"""Mono float32 samples at 16 kHz from a body, a block at a time.

`AudioStream` opens a descriptor (`opening.py`), as raw samples if the request says so. It returns
blocks of at most about a second, converted by `conversion.py`. The audio is never in memory as a
whole, and sizes in a file's header are checked before any allocation. Every fault of the audio
raises `AudioError`. Worker thread. The stream does not close its descriptor.
"""

from __future__ import annotations

import numpy as np

from app.audio.audio_error import AudioError as AudioError
from app.audio.conversion import Converter
from app.audio.mix import SpeechTest
from app.audio.opening import Patcher, open_source
from app.audio.samples import SAMPLE_RATE as SAMPLE_RATE
from app.audio.samples import Samples as Samples
from app.audio.source import OpenMedia
from app.messages import (
    AUDIO_TOO_LONG,
    BAD_AUDIO,
    BAD_FIELD,
    MAX_CHANNELS,
    MAX_SAMPLE_RATE,
    MAX_SPLIT_CHANNELS,
    MIN_SAMPLE_RATE,
    RawFormat,
)

_BLOCK_VALUES = 262_144
"""Most values in one block, frames times channels: 1 MiB of float32."""


class AudioStream:
    """One body as blocks of samples.

    `descriptor` has `size` bytes; `raw` describes them if they are samples without a header;
    `max_seconds` is the longest audio accepted; `patch` applies patches, or they are applied in
    place; `speaks` is the speech test for mixing. With a `channel`, counted from 0, the stream has
    only that channel, and the seconds of all channels together are limited. `media` opens files
    that libsndfile does not read; without it they are rejected. Raises `AudioError` if the body
    cannot be opened, and `OSError`.
    """

    def __init__(
        self,
        descriptor: int,
        size: int,
        raw: RawFormat | None,
        max_seconds: float,
        patch: Patcher | None = None,
        speaks: SpeechTest | None = None,
        channel: int | None = None,
        media: OpenMedia | None = None,
    ) -> None:
        self._source = open_source(descriptor, size, raw, max_seconds, patch, media)
        try:
            self._prepare(max_seconds, speaks, channel)
        except AudioError:
            self._source.close()
            raise

    def _prepare(self, max_seconds: float, speaks: SpeechTest | None, channel: int | None) -> None:
        """Check the format and build the steps from the file's samples to the node's."""
        rate, channels = self._source.rate, self._source.channels
        if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE or not 1 <= channels <= MAX_CHANNELS:
            message = (
                f"{rate} Hz with {channels} channels is not supported; send "
                f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz, 1 to {MAX_CHANNELS} channels"
            )
            raise AudioError(BAD_AUDIO, message)
        if channel is not None and channels > MAX_SPLIT_CHANNELS:
            message = f"channel-mode: split takes at most {MAX_SPLIT_CHANNELS} channels"
            raise AudioError(BAD_FIELD, f"{message}, and this audio has {channels}")
        self.channels = channels
        """Number of channels of the file, even if the stream has only one of them."""
        self._is_split = channel is not None
        self._rate = rate
        self._max_frames = int(max_seconds * rate)
        if channel is not None:
            self._max_frames //= channels
        self._max_seconds = max_seconds
        if self._source.least_frames > self._max_frames:
            raise self._too_long()
        self._frames = 0
        self._ended = False
        self._is_short = False
        block = max(1, min(rate, _BLOCK_VALUES // channels))
        self._buffer = np.empty((block, channels), dtype=np.float32)
        self._converter = Converter(rate, channels, speaks, channel)

    @property
    def truncated(self) -> bool:
        """True as soon as the file is found to be truncated."""
        return self._source.truncated or self._is_short

    @property
    def seconds(self) -> float:
        """Seconds of audio decoded so far."""
        return float(self._frames / self._rate)

    @property
    def declared_seconds(self) -> float | None:
        """Seconds of audio by the header; None if it has no plausible length."""
        return None if self._source.frames is None else self._source.frames / self._rate

    def read(self) -> Samples | None:
        """Return the next block: float32, shape [n], n >= 0, 16 kHz, -1 to 1; None at the end.

        Raises `AudioError` if no audio could be decoded, or more than the limit.
        """
        if self._ended:
            return None
        block = self._source.read(self._buffer)
        self._frames += len(block)
        if self._frames > self._max_frames:
            raise self._too_long()
        last = len(block) == 0
        if last:
            self._end()
        return self._converter.end() if last else self._converter.convert(block)

    def close(self) -> None:
        self._source.close()

    def _end(self) -> None:
        self._ended = True
        if self._frames == 0:
            raise AudioError(
                BAD_AUDIO, "the file contains no audio that can be decoded; send another file"
            )
        self._is_short = self._frames < self._source.least_frames

    def _too_long(self) -> AudioError:
        limit = self._max_seconds
        message = f"the audio is longer than the limit of {limit:g} s"
        if self._is_split and self.channels > 1:
            message += f"; each of its {self.channels} channels counts"
        return AudioError(AUDIO_TOO_LONG, message)
