"""Files and raw samples that libsndfile reads, as a `Source`.

libsndfile is opened by descriptor: on a Python object it goes through cffi callbacks, which a
process without writable-executable memory cannot have. Worker thread. The descriptor stays open.
"""

from __future__ import annotations

import os

import numpy as np
import soundfile

from app.audio.audio_error import AudioError
from app.audio.samples import Samples
from app.messages import BAD_AUDIO, UNSUPPORTED_MEDIA_TYPE, RawFormat

_SUBTYPES = {
    "s16": "PCM_16",
    "s24": "PCM_24",
    "s32": "PCM_32",
    "f32": "FLOAT",
    "u8": "PCM_U8",
    "ulaw": "ULAW",
    "alaw": "ALAW",
    "gsm": "GSM610",
}

_NOT_OPENED_ENCODING = 4
"""libsndfile's SF_ERR_UNSUPPORTED_ENCODING (sndfile.h): a supported container with an unsupported
codec."""

_SEEK_FAILED = 39
"""libsndfile's "Internal psf_fseek() failed". soundfile seeks after each read to the position of
its end, which fails at the very end of a FLAC of unknown length."""

_END_SECONDS = 0.1
"""An Ogg may be shorter than it states: without the flag of the last page libsndfile misses the
delay of the codec."""

_UNKNOWN_FRAMES = 1 << 60
"""Frame counts from here on are libsndfile's value for a stream of unknown length."""


class SoundFile:
    """An opened file of libsndfile; the interface of `app.audio.source.Source`."""

    def __init__(self, file: soundfile.SoundFile, owned: int | None = None) -> None:
        self._file = file
        self._owned = owned
        self._broken = False
        self._count = 0
        """Frames so far."""
        self.truncated = False
        self.rate, self.channels = int(file.samplerate), int(file.channels)
        declared = file.frames
        self.frames: int | None = declared if 0 < declared < _UNKNOWN_FRAMES else None
        self._is_ogg = file.format == "OGG"
        # The frame count of an MP3, also in a WAV, is an estimate, sufficient for the scheduler.
        is_estimate = file.subtype.startswith("MPEG")
        missing = round(_END_SECONDS * self.rate) if self._is_ogg else 0
        self.least_frames = 0 if is_estimate else max(0, (self.frames or 0) - missing)

    def read(self, buffer: Samples) -> Samples:
        if self._broken:
            return buffer[:0]
        # After an error soundfile does not report the number of frames that it wrote before. A
        # frame that is still NaN in every channel was not written.
        buffer.fill(np.nan)
        try:
            block: Samples = self._file.read(out=buffer)
        except soundfile.LibsndfileError as error:
            # A FLAC is truncated in the middle of a frame: keep the frames before it.
            self._broken = True
            untouched = np.isnan(buffer).all(axis=1)
            block = buffer[: int(untouched.argmax()) if untouched.any() else None]
            self._count += len(block)
            self.truncated = not self._is_end(error.code)
            return block
        self._count += len(block)
        return block

    def _is_end(self, code: int) -> bool:
        """Return whether an error only means that the file is over."""
        if self._is_ogg and self.frames is not None:
            return self._count >= self.least_frames
        return self.frames is None and code == _SEEK_FAILED

    def close(self) -> None:
        self._file.close()
        if self._owned is not None:
            os.close(self._owned)
            self._owned = None


def open_file(descriptor: int, name: str, owned: bool = False) -> SoundFile:
    """Open a file; `name` is its container's. With `owned` the descriptor is closed with it. Raises
    `AudioError`."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        file = soundfile.SoundFile(descriptor, closefd=False)
        return SoundFile(file, descriptor if owned else None)
    except soundfile.LibsndfileError as error:
        if error.code == _NOT_OPENED_ENCODING:
            message = f"the codec of the {name} file is not supported; convert the audio to another"
            raise AudioError(UNSUPPORTED_MEDIA_TYPE, message) from None
        reason = error.error_string.strip().rstrip(".")
        raise AudioError(BAD_AUDIO, f"the {name} file cannot be read: {reason}") from None


def open_raw(descriptor: int, raw: RawFormat) -> SoundFile:
    """Open samples without a header."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    file = soundfile.SoundFile(
        descriptor,
        closefd=False,
        format="RAW",
        subtype=_SUBTYPES[raw.encoding],
        samplerate=raw.sample_rate,
        channels=raw.channels,
        endian="BIG" if raw.byteorder == "big" else "LITTLE",
    )
    return SoundFile(file)
