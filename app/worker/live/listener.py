"""The ears of one live job: bytes of raw samples in, utterances out.

A `Listener` converts the bytes in blocks of a fixed size, so that any split of the bytes gives the
same samples, asks the detector about each chunk, and keeps the samples that an utterance may still
contain: at most the longest utterance. Worker thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.audio.conversion import Converter
from app.audio.endpoint import Began, Endpointer, Event, Extent, Pause, Resumed
from app.audio.level import LevelledDetector
from app.audio.mix import SpeechTest
from app.audio.raw_samples import RawSamples
from app.audio.samples import SAMPLE_RATE, Samples
from app.audio.vad import CHUNK, Detector
from app.live import LiveOptions
from app.messages import SAMPLE_BYTES, RawFormat

_BLOCK_SECONDS = 0.064
"""Two chunks. Shorter blocks cost more processor time, longer ones delay every event."""


@dataclass(frozen=True, slots=True)
class Speech:
    """The audio of an utterance: `samples` float32, shape [n], 16 kHz, are those of `extent`."""

    extent: Extent
    samples: Samples

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


Heard = Began | Speech
"""The beginning of an utterance, and a complete one."""


def block_bytes(raw: RawFormat) -> int:
    """Return the number of bytes that are heard at once."""
    frames = max(1, round(_BLOCK_SECONDS * raw.sample_rate))
    return frames * SAMPLE_BYTES[raw.encoding] * raw.channels


class Listener:
    """Hears one live job. `threshold` is the node's; `speaks` is the speech test for mixing.

    `hear` while `is_ready`, since it stops after each event, before `flush`, `end` or `clear`."""

    def __init__(
        self,
        raw: RawFormat,
        options: LiveOptions,
        detector: Detector,
        threshold: float,
        speaks: SpeechTest,
    ) -> None:
        self._raw = raw
        self._block = block_bytes(raw)
        self._pending = bytearray()
        self._frames = RawSamples(raw)
        self._converter = Converter(raw.sample_rate, raw.channels, speaks)
        detector.reset()
        self._detector = LevelledDetector(detector)
        self._endpointer = Endpointer(options, threshold)
        self._rest: Samples = np.empty(0, dtype=np.float32)
        """Samples of an incomplete chunk."""
        self._chunks: deque[Samples] = deque()
        """The chunks that an utterance may still contain."""
        self._kept_from = 0
        """Position of the first of them."""
        self._heard = 0
        """Position after the last of them."""
        self._bytes = 0
        self.heard_bytes = 0
        """Bytes that were heard, or dropped."""
        self._events: deque[Heard] = deque()
        self.is_paused = False
        """Whether the speaker of the open utterance pauses, so that it may be complete."""
        self.resumptions = 0
        """Pauses after which the speech went on, in all utterances."""

    @property
    def is_ready(self) -> bool:
        """Whether there is a block to hear, or an event to return."""
        return bool(self._events) or len(self._pending) >= self._block

    @property
    def seconds(self) -> float:
        """Seconds of audio so far, as a file of these bytes would have."""
        frame = SAMPLE_BYTES[self._raw.encoding] * self._raw.channels
        return self._bytes // frame / self._raw.sample_rate

    @property
    def held(self) -> int:
        """Number of samples that are kept."""
        return self._heard - self._kept_from

    @property
    def is_incomplete(self) -> bool:
        """Whether the bytes so far end within a sample."""
        return self._bytes % (SAMPLE_BYTES[self._raw.encoding] * self._raw.channels) != 0

    @property
    def extent(self) -> Extent | None:
        """The open utterance if its speech is over now; None if none is open."""
        return self._endpointer.extent

    def speech(self) -> Speech | None:
        """Return the open utterance if its speech is over now, with its samples."""
        extent = self._endpointer.extent
        return None if extent is None else self._cut_out(extent)

    def add(self, data: bytes) -> None:
        """Append the next bytes; they may end within a sample."""
        self._pending += data
        self._bytes += len(data)

    def hear(self, most: int) -> Heard | None:
        """Hear a block, and further ones up to about `most` bytes and up to the next event, which
        is returned."""
        until = self.heard_bytes + most
        while not self._events and len(self._pending) >= self._block:
            self._hear_block()
            if self.heard_bytes >= until:
                break
        return self._next()

    def flush(self) -> Iterator[Heard]:
        """Hear all that is pending, and complete the open utterance: the client commits it."""
        self._flush(last=False)
        yield from self._complete()

    def end(self) -> Iterator[Heard]:
        """Hear all that is pending, and complete the open utterance: the audio is over."""
        self._flush(last=True)
        yield from self._complete()

    def clear(self) -> None:
        """Drop the open utterance, and all audio so far."""
        self._flush(last=False)
        self._events.clear()
        self._endpointer.clear()
        self.is_paused = False
        self._forget()

    def configure(self, options: LiveOptions) -> None:
        """Use `options` for the utterances that begin from now on."""
        self._endpointer.configure(options)

    def _hear_block(self) -> None:
        data = bytes(self._pending[: self._block])
        del self._pending[: self._block]
        self.heard_bytes += len(data)
        self._listen(self._converter.convert(self._frames.read(data)))

    def _flush(self, last: bool) -> None:
        """Hear the pending bytes and the incomplete chunk."""
        if self._pending:
            self._hear_block()
        if last:
            self._listen(self._converter.end())
        if len(self._rest):
            chunk, self._rest = self._rest, self._rest[:0]
            self._hear_chunk(chunk)

    def _complete(self) -> Iterator[Heard]:
        for event in self._endpointer.end():
            self._take(event)
        self._forget()
        while (heard := self._next()) is not None:
            yield heard

    def _listen(self, samples: Samples) -> None:
        samples = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        whole = len(samples) // CHUNK * CHUNK
        for at in range(0, whole, CHUNK):
            self._hear_chunk(samples[at : at + CHUNK])
        # A copy, because a view would keep the whole block.
        self._rest = samples[whole:].copy()

    def _hear_chunk(self, chunk: Samples) -> None:
        self._chunks.append(chunk)
        self._heard += len(chunk)
        probability = self._detector.probability(chunk)
        for event in self._endpointer.hear(probability, self._detector.level, len(chunk)):
            self._take(event)
        self._forget()

    def _take(self, event: Event) -> None:
        if isinstance(event, Pause):
            self.is_paused = True
        elif isinstance(event, Resumed):
            self.is_paused = False
            self.resumptions += 1
        elif isinstance(event, Began):
            self._events.append(event)
        else:
            self.is_paused = False
            self._events.append(self._cut_out(event.extent))

    def _next(self) -> Heard | None:
        return self._events.popleft() if self._events else None

    def _cut_out(self, extent: Extent) -> Speech:
        """Return the samples of `extent`, which are still kept."""
        samples = np.concatenate(self._chunks)
        at = self._kept_from
        return Speech(extent, samples[extent.start - at : extent.end - at].copy())

    def _forget(self) -> None:
        """Drop the chunks that no utterance can contain."""
        keep_from = self._endpointer.keep_from
        while self._chunks and self._kept_from + len(self._chunks[0]) <= keep_from:
            self._kept_from += len(self._chunks.popleft())
