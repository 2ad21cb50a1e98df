"""The audio of one live job: the bytes that were received, and the listener that hears them.

Bytes are heard in blocks, so that the job can stop after each: it may have no place, or the engine
may be behind. The listener's events are reduced to what the job needs: beginnings of utterances,
complete utterances, and the open one while its speaker pauses. Worker thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from app.audio.endpoint import Began, Complete, Cut, Event, Extent, Pause, Resumed
from app.audio.listener import BLOCK_SECONDS, Listener
from app.audio.samples import Samples
from app.live import LiveOptions
from app.worker.live.job import LiveJob

Heard = Began | Extent
"""The beginning of an utterance, or a complete utterance."""


class LiveAudio:
    """The audio of `job`, heard by `listener`."""

    def __init__(self, job: LiveJob, listener: Listener) -> None:
        self._listener = listener
        self._rate = job.frame_bytes * job.raw.sample_rate
        self._block = max(1, round(BLOCK_SECONDS * job.raw.sample_rate)) * job.frame_bytes
        self._pending = bytearray()
        self.received_bytes = 0
        self.heard_bytes = 0
        """Bytes that were heard, or dropped."""
        self.paused: Extent | None = None
        """The open utterance, if its speaker pauses so that it may be complete."""
        self.resumptions = 0
        """Pauses after which the speech went on, in all utterances."""

    @property
    def has_block(self) -> bool:
        """Whether there are enough bytes to hear."""
        return len(self._pending) >= self._block

    @property
    def extent(self) -> Extent | None:
        """The open utterance if its speech is over now; None if none is open."""
        return self._listener.extent

    @property
    def position(self) -> int:
        """Number of samples that were heard, at 16 kHz."""
        return self._listener.position

    @property
    def is_truncated(self) -> bool:
        """Whether the bytes end within a sample."""
        return self._listener.is_truncated

    @property
    def seconds(self) -> float:
        """Seconds of audio that was heard."""
        return self._listener.seconds

    @property
    def held_seconds(self) -> float:
        """Seconds of audio that are kept for utterances."""
        return self._listener.held_seconds

    @property
    def unheard_seconds(self) -> float:
        return len(self._pending) / self._rate

    def add(self, data: bytes) -> None:
        """Append the next bytes; they may end within a sample."""
        self._pending += data
        self.received_bytes += len(data)

    def hear(self) -> Iterator[Heard]:
        """Hear the next block."""
        return self._note(self._listener.hear(self._next(self._block)))

    def commit(self) -> Iterator[Heard]:
        """Hear the rest, and complete the open utterance."""
        yield from self._note(self._listener.hear(self._next(len(self._pending))))
        yield from self._note(self._listener.commit())

    def end(self) -> Iterator[Heard]:
        """Hear the rest, and complete the open utterance at the end of the audio."""
        yield from self._note(self._listener.hear(self._next(len(self._pending))))
        yield from self._note(self._listener.end())

    def clear(self) -> None:
        """Drop the rest, the open utterance, and what belongs to none."""
        self._listener.hear(self._next(len(self._pending)))
        self._listener.clear()
        self.paused = None

    def configure(self, options: LiveOptions) -> None:
        """Use `options` for the utterances that begin from now on."""
        self._listener.configure(options)

    def samples(self, extent: Extent) -> Samples:
        """Return the samples of an utterance that is open or not released: float32, shape [n]."""
        return self._listener.samples(extent)

    def release(self, extent: Extent) -> None:
        """Forget the samples of a complete utterance."""
        self._listener.release(extent)

    def _next(self, size: int) -> bytes:
        data = bytes(self._pending[:size])
        del self._pending[:size]
        self.heard_bytes += len(data)
        return data

    def _note(self, events: Iterable[Event]) -> Iterator[Heard]:
        for event in events:
            if isinstance(event, Pause):
                self.paused = event.extent
                continue
            self.paused = None
            if isinstance(event, Resumed):
                self.resumptions += 1
            elif isinstance(event, Complete | Cut):
                yield event.extent
            else:
                yield event
