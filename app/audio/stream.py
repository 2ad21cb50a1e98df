"""Mono float32 samples at 16 kHz from a body, a block at a time.

`AudioStream` opens a descriptor with libsndfile, as raw samples if the request says so. It returns
blocks of at most about a second, converted by `conversion.py`. The audio is never in memory as a
whole, and sizes in a file's header are checked before any allocation. Every fault of the audio
raises `AudioError`. Worker thread. The stream does not close its descriptor.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import soundfile

from app.audio.conversion import Converter
from app.audio.mix import SpeechTest
from app.audio.patch import Patch, apply_patches
from app.audio.samples import SAMPLE_RATE as SAMPLE_RATE
from app.audio.samples import Samples as Samples
from app.audio.sniff import READABLE, Container, inspect
from app.messages import (
    AUDIO_TOO_LONG,
    BAD_AUDIO,
    BAD_FIELD,
    MAX_CHANNELS,
    MAX_SAMPLE_RATE,
    MAX_SPLIT_CHANNELS,
    MIN_SAMPLE_RATE,
    NO_SPACE,
    SAMPLE_BYTES,
    UNSUPPORTED_MEDIA_TYPE,
    Failure,
    RawFormat,
)

_BLOCK_VALUES = 262_144
"""Most values in one block, frames times channels: 1 MiB of float32."""

_RETRY_SECONDS = 60.0
"""Seconds until a retry: time for an operator or other requests to free disk space."""

_SUBTYPES = {"s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT", "u8": "PCM_U8"}

_NOT_OPENED_ENCODING = 4
"""libsndfile's SF_ERR_UNSUPPORTED_ENCODING (sndfile.h): a supported container with an unsupported
codec."""

_SEEK_FAILED = 39
"""libsndfile's "Internal psf_fseek() failed". soundfile seeks after each read to the position of
its end, which fails at the very end of a FLAC of unknown length."""

_UNKNOWN_FRAMES = 1 << 60
"""Frame counts from here on are libsndfile's value for a stream of unknown length."""


class AudioError(Exception):
    """The audio cannot be used; `failure` has the protocol's code and message."""

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.failure = Failure(code, message, retry_after)


Patcher = Callable[[tuple[Patch, ...]], int]
"""A function that applies patches to a private copy of the body and returns the copy's descriptor.
Raises `OSError` without space for a copy."""


class AudioStream:
    """One body as blocks of samples.

    `descriptor` has `size` bytes; `raw` describes them if they are samples without a header;
    `max_seconds` is the longest audio accepted; `patch` applies patches, or they are applied in
    place; `speaks` is the speech test for mixing. With a `channel`, counted from 0, the stream has
    only that channel, and the seconds of all channels together are limited. Raises `AudioError` if
    the body cannot be opened.
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
    ) -> None:
        if size == 0:
            raise AudioError(BAD_AUDIO, "the body is empty")
        self.truncated = False
        """True as soon as the file is found to be truncated."""
        if raw is not None:
            self._file = _open_raw(descriptor, raw)
            self.truncated = size % (SAMPLE_BYTES[raw.encoding] * raw.channels) != 0
        else:
            container = inspect(descriptor, size)
            if container is None or not container.readable:
                found = "not recognised" if container is None else f"recognised as {container.name}"
                kinds = ", ".join(sorted(READABLE))
                message = f"the audio was {found}; this node reads {kinds} and raw samples"
                raise AudioError(UNSUPPORTED_MEDIA_TYPE, message)
            self.truncated = container.truncated
            self._file = _open(_patched(descriptor, container, patch), container.name)
        rate, channels = int(self._file.samplerate), int(self._file.channels)
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
        declared = self._file.frames
        # An MP3's frame count is an estimate from its bit rate, sufficient for the scheduler.
        self._is_estimate = self._file.format == "MP3"
        self._declared = declared if 0 < declared < _UNKNOWN_FRAMES else None
        surely = self._declared is not None and not self._is_estimate
        if surely and declared > self._max_frames:
            raise self._too_long()
        self._frames = 0
        self._ended = False
        self._broken = False
        block = max(1, min(rate, _BLOCK_VALUES // channels))
        self._buffer = np.empty((block, channels), dtype=np.float32)
        self._converter = Converter(rate, channels, speaks, channel)

    @property
    def seconds(self) -> float:
        """Seconds of audio decoded so far."""
        return float(self._frames / self._rate)

    @property
    def declared_seconds(self) -> float | None:
        """Seconds of audio by the header; None if it has no plausible length."""
        return None if self._declared is None else self._declared / self._rate

    def read(self) -> Samples | None:
        """Return the next block: float32, shape [n], n >= 0, 16 kHz, -1 to 1; None at the end.

        Raises `AudioError` if no audio could be decoded, or more than the limit.
        """
        if self._ended:
            return None
        block = self._buffer[:0] if self._broken else self._decode()
        self._frames += len(block)
        if self._frames > self._max_frames:
            raise self._too_long()
        last = len(block) == 0
        if last:
            self._end()
        return self._converter.end() if last else self._converter.convert(block)

    def close(self) -> None:
        self._file.close()

    def _decode(self) -> Samples:
        # After an error soundfile does not report the number of frames that it wrote before. A
        # frame that is still NaN in every channel was not written.
        self._buffer.fill(np.nan)
        try:
            block: Samples = self._file.read(out=self._buffer)
        except soundfile.LibsndfileError as error:
            # A FLAC is truncated in the middle of a frame: keep the frames before it.
            self._broken = True
            if self._declared is not None or error.code != _SEEK_FAILED:
                self.truncated = True
            untouched = np.isnan(self._buffer).all(axis=1)
            return self._buffer[: int(untouched.argmax()) if untouched.any() else None]
        return block

    def _end(self) -> None:
        self._ended = True
        if self._frames == 0:
            raise AudioError(
                BAD_AUDIO, "the file contains no audio that can be decoded; send another file"
            )
        if self._declared is not None and not self._is_estimate:
            self.truncated = self.truncated or self._frames < self._declared

    def _too_long(self) -> AudioError:
        limit = self._max_seconds
        message = f"the audio is longer than the limit of {limit:g} s"
        if self._is_split and self.channels > 1:
            message += f"; each of its {self.channels} channels counts"
        return AudioError(AUDIO_TOO_LONG, message)


def _patched(descriptor: int, container: Container, patch: Patcher | None) -> int:
    """Return a descriptor of the file as the decoder needs it."""
    if not container.patches:
        return descriptor
    try:
        if patch is not None:
            return patch(container.patches)
        apply_patches(descriptor, container.patches)
    except OSError as error:
        message = f"no space to repair a copy of the {container.name} file: {error.strerror}"
        raise AudioError(NO_SPACE, message, _RETRY_SECONDS) from None
    return descriptor


def _open(descriptor: int, name: str) -> soundfile.SoundFile:
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        return soundfile.SoundFile(descriptor, closefd=False)
    except soundfile.LibsndfileError as error:
        if error.code == _NOT_OPENED_ENCODING:
            message = f"the codec of the {name} file is not supported; convert the audio to another"
            raise AudioError(UNSUPPORTED_MEDIA_TYPE, message) from None
        reason = error.error_string.strip().rstrip(".")
        raise AudioError(BAD_AUDIO, f"the {name} file cannot be read: {reason}") from None


def _open_raw(descriptor: int, raw: RawFormat) -> soundfile.SoundFile:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return soundfile.SoundFile(
        descriptor,
        closefd=False,
        format="RAW",
        subtype=_SUBTYPES[raw.encoding],
        samplerate=raw.sample_rate,
        channels=raw.channels,
        endian="BIG" if raw.byteorder == "big" else "LITTLE",
    )
