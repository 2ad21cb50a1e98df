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
from app.audio.extract import Extractor
from app.audio.mix import SpeechTest
from app.audio.opening import Means, Patcher, open_body
from app.audio.samples import SAMPLE_RATE as SAMPLE_RATE
from app.audio.samples import Samples as Samples
from app.audio.source import OpenMedia, Source
from app.limits import MAX_CHANNELS, MAX_SAMPLE_RATE, MAX_SPLIT_CHANNELS, MIN_SAMPLE_RATE
from app.messages import AUDIO_TOO_LONG, BAD_AUDIO, BAD_FIELD, RawFormat

_BLOCK_VALUES = 262_144
"""Most values in one block, frames times channels: 1 MiB of float32."""


class AudioStream:
    """One body as blocks of samples.

    `descriptor` has `size` bytes; `raw` describes them if they are samples without a header;
    `max_seconds` is the longest audio accepted; `patch` applies patches, or they are applied in
    place; `extract` takes parts of the body, or they are held in memory; `speaks` is the speech
    test for mixing. With a `channel`, counted from 0, the stream has only that channel, and the
    seconds of all channels together are limited. `media` opens files that libsndfile does not
    read; without it they are rejected. Raises `AudioError` if the body cannot be opened, and
    `OSError`.
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
        extract: Extractor | None = None,
    ) -> None:
        opened = open_body(descriptor, size, raw, max_seconds, Means(patch, extract, media))
        self._source = opened.first
        self._further = opened.further
        self._truncated = opened.truncated
        self._is_single = opened.is_single
        self.channels = opened.channels
        """Number of channels of the file, even if the stream has only one of them."""
        self._speaks = speaks
        self._channel = channel
        self._max_seconds = max_seconds
        self._seconds_before = 0.0
        """Seconds of the sources before this one."""
        self._ended = False
        try:
            self._check(self._source)
            self._begin()
        except AudioError:
            self.close()
            raise

    @property
    def truncated(self) -> bool:
        """True as soon as the file is found to be truncated."""
        return self._truncated or self._source.truncated

    @property
    def seconds(self) -> float:
        """Seconds of audio decoded so far."""
        return self._seconds_before + self._frames / self._source.rate

    @property
    def declared_seconds(self) -> float | None:
        """Seconds of audio by the header; None if it has no plausible length, or several."""
        frames = self._source.frames if self._is_single else None
        return None if frames is None else frames / self._source.rate

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
        if len(block):
            if self._is_absent:
                block[:] = 0.0
            return self._converter.convert(block)
        self._truncated = self.truncated or self._frames < self._source.least_frames
        rest = self._converter.end()
        if not self._go_on():
            self._end()
        return rest

    def close(self) -> None:
        self._source.close()

    def _begin(self) -> None:
        """Prepare the conversion of the present source."""
        rate, channels = self._source.rate, self._source.channels
        limit = self._max_seconds if self._channel is None else self._max_seconds / self.channels
        self._max_frames = int((limit - self._seconds_before) * rate)
        if self._source.least_frames > self._max_frames:
            raise self._too_long()
        self._frames = 0
        # A link of a split recording can have fewer channels than another.
        self._is_absent = self._channel is not None and self._channel >= channels
        channel = 0 if self._is_absent else self._channel
        block = max(1, min(rate, _BLOCK_VALUES // channels))
        self._buffer = np.empty((block, channels), dtype=np.float32)
        self._converter = Converter(rate, channels, self._speaks, channel)

    def _check(self, source: Source) -> None:
        rate, channels = source.rate, source.channels
        if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE or not 1 <= channels <= MAX_CHANNELS:
            message = (
                f"{rate} Hz with {channels} channels is not supported; send "
                f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz, 1 to {MAX_CHANNELS} channels"
            )
            raise AudioError(BAD_AUDIO, message)
        if self._channel is not None and self.channels > MAX_SPLIT_CHANNELS:
            message = f"channel-mode: split takes at most {MAX_SPLIT_CHANNELS} channels"
            raise AudioError(BAD_FIELD, f"{message}, and this audio has {self.channels}")

    def _go_on(self) -> bool:
        """Begin the next source; return False if there is none."""
        for source in self._further:
            if source is None:
                self._truncated = True
                continue
            self._seconds_before = self.seconds
            self._source.close()
            self._source = source
            self._check(source)
            self._begin()
            return True
        return False

    def _end(self) -> None:
        self._ended = True
        if self.seconds == 0:
            raise AudioError(
                BAD_AUDIO, "the file contains no audio that can be decoded; send another file"
            )

    def _too_long(self) -> AudioError:
        limit = self._max_seconds
        message = f"the audio is longer than the limit of {limit:g} s"
        if self._channel is not None and self.channels > 1:
            message += f"; each of its {self.channels} channels counts"
        return AudioError(AUDIO_TOO_LONG, message)
