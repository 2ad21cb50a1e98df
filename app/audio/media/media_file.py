"""A file that FFmpeg decodes in a child process, as a `Source`.

The child can be stopped and started again between two reads, because only a few may run at one
time (`slots.py`). The source remembers the last frame that it received, and the next child
continues behind it. Worker thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from app.audio.audio_error import AudioError
from app.audio.media import wire
from app.audio.media.convert import FrameConverter
from app.audio.media.process import Child, ChildError
from app.audio.media.slots import Slots
from app.audio.samples import Samples
from app.messages import BAD_AUDIO, UNSUPPORTED_MEDIA_TYPE

_STATED_SHARE = 0.98
_STATED_SECONDS = 1.0
"""A file that states its length has at least this share of it, less these seconds."""


class MediaFile:
    """A file in the container `name`; the interface of `app.audio.source.Source`.

    `start` starts a child at a place. It is called at once, and by the first read after `suspend`;
    `slots` then stops the child of another file. `exact` is true if the length in the header is
    that of the track.
    """

    def __init__(
        self,
        name: str,
        exact: bool,
        truncated: bool,
        start: Callable[[wire.Resume | None], Child],
        slots: Slots,
    ) -> None:
        self._name = name
        self._start = start
        self._slots = slots
        self._child: Child | None = None
        self._place: wire.Resume | None = None
        self._frames = 0
        self._left = np.empty((0, 1), dtype=np.float32)
        self._silence = 0
        self._has_begun = False
        self._position = 0.0
        self._ended = False
        self.truncated = truncated
        try:
            with slots.reading(self):
                opened = self._open()
        except (ChildError, wire.WireError) as error:
            self.close()
            raise self._failed(error) from None
        except (AudioError, OSError):
            self.close()
            raise
        self.rate, self.channels = opened.rate, opened.channels
        self._converter = FrameConverter(self.rate, self.channels)
        declared = 0 if opened.seconds is None else int(opened.seconds * self.rate)
        self.frames = declared or None
        stated = int(declared * _STATED_SHARE - _STATED_SECONDS * self.rate)
        self.least_frames = max(0, stated) if exact else 0

    @property
    def pid(self) -> int | None:
        """The process id of the child; None if none runs."""
        return None if self._child is None else self._child.pid

    def read(self, buffer: Samples) -> Samples:
        """Return the next samples; see `Source.read`. Raises `AudioError`."""
        filled = 0
        try:
            while filled < len(buffer) and self._has_samples():
                filled += self._copy(buffer[filled:])
        except (ChildError, wire.WireError) as error:
            self.close()
            raise self._failed(error) from None
        self._position += filled / self.rate
        return buffer[:filled]

    def suspend(self) -> None:
        """Stop the child; the next read starts another."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def close(self) -> None:
        self._ended = True
        self._slots.release(self)
        self.suspend()

    def _open(self) -> wire.Opened:
        """Start a child at the beginning of the file."""
        self._child = self._start(None)
        kind, payload = self._child.receive(0.0)
        if kind != wire.OPENED:
            raise self._unusable(kind, payload)
        return wire.read_opened(payload)

    def _receive(self) -> tuple[bytes, bytearray]:
        with self._slots.reading(self):
            if self._child is None and self._place is None:
                self._open()
            elif self._child is None:
                self._child = self._start(self._place)
            assert self._child is not None
            return self._child.receive(self._position)

    def _has_samples(self) -> bool:
        """Make samples or silence available; False at the end."""
        while not (len(self._left) or self._silence):
            if self._ended:
                return False
            kind, payload = self._receive()
            if kind == wire.SAMPLES:
                frame = wire.read_frame(payload)
                self._frames += 1
                self._place = wire.Resume(frame.time, self._frames, frame.done, 0, self.rate)
                self._left = self._converter.convert(frame)
            elif kind == wire.SILENCE:
                self._take_silence(wire.read_silence(payload))
            elif kind == wire.ENDED:
                self.close()
            else:
                raise self._unusable(kind, payload)
        return True

    def _take_silence(self, count: int) -> None:
        if self._place is not None:
            self._place = replace(self._place, gap=self._place.gap + count)
        elif self._has_begun:
            return  # another child repeats the silence before the first frame
        self._has_begun = True
        self._silence = count

    def _copy(self, buffer: Samples) -> int:
        """Move samples that are available into `buffer`; return their number."""
        if self._silence:
            count = min(self._silence, len(buffer))
            buffer[:count] = 0.0
            self._silence -= count
        else:
            count = min(len(self._left), len(buffer))
            buffer[:count] = self._left[:count]
            self._left = self._left[count:]
        return count

    def _unusable(self, kind: bytes, payload: bytearray) -> AudioError:
        """Return the error for a message other than samples. Raises `WireError`."""
        if kind != wire.FAILED:
            raise wire.WireError("kind")
        failed = wire.read_failed(payload)
        self.close()
        if failed.reason == "codec":
            message = (
                f"the codec {failed.detail} of the {self._name} file is not supported; convert the"
                " audio to another"
            )
            return AudioError(UNSUPPORTED_MEDIA_TYPE, message)
        if failed.reason == "track":
            message = f"the {self._name} file has no track of sound; send another file"
            return AudioError(BAD_AUDIO, message)
        if self.truncated and self._place is None:
            return self._failed("it breaks off before its index; send the whole file")
        return self._failed(failed.detail or "it is damaged")

    def _failed(self, reason: object) -> AudioError:
        if isinstance(reason, wire.WireError):
            reason = "its decoder failed"
        return AudioError(BAD_AUDIO, f"the {self._name} file cannot be read: {reason}")
