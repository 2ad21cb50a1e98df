"""The hearing of one live stream: bytes of raw samples in, endpoints and utterances' samples out.

`Listener` converts the bytes in blocks of a fixed size, lets the detector judge each chunk, and
hands the result to an `Endpointer`. So any split of the bytes gives the same events and samples. It
holds the samples from the oldest utterance on that was not released, or from the open one, or the
lead-in of the next. Worker thread.
"""

from __future__ import annotations

import numpy as np

from app.audio.conversion import Converter
from app.audio.endpoint import Complete, Cut, Endpointer, Event, Extent
from app.audio.held_samples import HeldSamples
from app.audio.level import LevelledDetector
from app.audio.mix import SpeechTest
from app.audio.raw_samples import RawSamples
from app.audio.samples import SAMPLE_RATE, Samples
from app.audio.vad import CHUNK, Detector
from app.live import LiveOptions
from app.messages import RawFormat

BLOCK_SECONDS = 0.064
"""Length of a block: two chunks."""


class Listener:
    """One stream in the format `raw`.

    `detector` is this stream's alone. It finds quiet speech as in files, but the loudest level of a
    stream is not known ahead: the gain follows the loudest level so far. `threshold` is the node's,
    for `options` without one. `speaks` is the speech test for mixing channels that differ; these
    are heard two seconds late.
    """

    def __init__(
        self,
        raw: RawFormat,
        detector: Detector,
        options: LiveOptions,
        threshold: float,
        speaks: SpeechTest | None = None,
    ) -> None:
        self._rate = raw.sample_rate
        self._raw = RawSamples(raw)
        self._block = max(1, round(BLOCK_SECONDS * raw.sample_rate))
        self._pending: Samples = np.empty((0, raw.channels), dtype=np.float32)
        """Frames of the block that is not full yet."""
        self._converter = Converter(raw.sample_rate, raw.channels, speaks)
        detector.reset()
        self._detector = LevelledDetector(detector, is_live=True)
        self._endpointer = Endpointer(options, threshold)
        self._held = HeldSamples()
        self._chunk: Samples = np.empty(0, dtype=np.float32)
        """Samples of the chunk that is not full yet."""
        self._waiting: list[Extent] = []
        """Utterances whose samples are still needed."""
        self._frames = 0

    @property
    def seconds(self) -> float:
        """Seconds of audio so far."""
        return self._frames / self._rate

    @property
    def is_truncated(self) -> bool:
        """Whether the bytes so far end within a frame."""
        return self._raw.is_incomplete

    @property
    def held_seconds(self) -> float:
        """Seconds of audio that are held in memory."""
        return (len(self._held) + len(self._chunk)) / SAMPLE_RATE

    @property
    def position(self) -> int:
        """Number of samples that were judged, at 16 kHz."""
        return self._held.end

    @property
    def extent(self) -> Extent | None:
        """The open utterance if its speech is over now; None if none is open."""
        return self._endpointer.extent

    def hear(self, data: bytes | memoryview) -> list[Event]:
        """Return the events of the next bytes. The utterance of each `Complete` and `Cut` is kept
        until it is released."""
        frames = self._raw.read(data)
        self._frames += len(frames)
        self._pending = np.concatenate((self._pending, frames)) if len(self._pending) else frames
        events: list[Event] = []
        while len(self._pending) >= self._block:
            block, self._pending = np.split(self._pending, [self._block])
            events += self._hear(self._converter.convert(block))
        self._pending = self._pending.copy()
        return events

    def commit(self) -> list[Event]:
        """Complete the open utterance with all audio so far; later audio belongs to the next."""
        return [*self._catch_up(), *self._note(self._endpointer.end())]

    def end(self) -> list[Event]:
        """Complete the open utterance at the end of the audio."""
        events = self._catch_up(last=True)
        return [*events, *self._note(self._endpointer.end())]

    def clear(self) -> None:
        """Drop the open utterance and the audio that no utterance contains."""
        waiting = self._waiting.copy()
        self._catch_up()
        self._endpointer.clear()
        self._waiting = waiting
        self._drop()

    def configure(self, options: LiveOptions) -> None:
        """Use `options` for the utterances that begin from now on."""
        self._endpointer.configure(options)

    def samples(self, extent: Extent) -> Samples:
        """Return the samples of an open or unreleased utterance: float32, shape [n], C-contiguous,
        a copy."""
        return self._held.slice(extent.start, extent.end)

    def release(self, extent: Extent) -> None:
        """Forget the samples of a complete utterance."""
        self._waiting.remove(extent)
        self._drop()

    def _catch_up(self, last: bool = False) -> list[Event]:
        """Hear what is left of a block and of a chunk."""
        events: list[Event] = []
        if len(self._pending):
            block, self._pending = self._pending, self._pending[:0]
            events += self._hear(self._converter.convert(block))
        if last:
            events += self._hear(self._converter.end())
        if len(self._chunk):
            chunk, self._chunk = self._chunk, self._chunk[:0]
            events += self._judge(chunk)
        return events

    def _hear(self, samples: Samples) -> list[Event]:
        samples = np.concatenate((self._chunk, samples))
        whole = len(samples) // CHUNK * CHUNK
        events: list[Event] = []
        for at in range(0, whole, CHUNK):
            events += self._judge(samples[at : at + CHUNK])
        self._chunk = samples[whole:].copy()
        return events

    def _judge(self, chunk: Samples) -> list[Event]:
        self._held.append(chunk)
        probability = self._detector.probability(chunk)
        events = self._note(self._endpointer.hear(probability, self._detector.level, len(chunk)))
        self._drop()
        return events

    def _note(self, events: list[Event]) -> list[Event]:
        self._waiting += [event.extent for event in events if isinstance(event, Complete | Cut)]
        return events

    def _drop(self) -> None:
        oldest = min((extent.start for extent in self._waiting), default=self._held.end)
        self._held.drop(min(oldest, self._endpointer.keep_from))
