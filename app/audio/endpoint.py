"""Endpoints: where utterances of live audio begin, pause, go on and end.

Pure and without samples: probabilities of speech and levels of successive chunks in, events out.
All positions are samples of the 16 kHz stream, and everything depends on them alone, never on
packets or on a clock. One `Endpointer` per stream. It has two states:

- *Waiting*: no utterance is open. Speech is established by `ESTABLISHED_CHUNKS` successive chunks
  above the threshold, and the utterance begins a lead-in before the first of them.
- *Open*: speech continues while chunks reach the lower of two thresholds. Below it a pause begins,
  and `RESUMED_CHUNKS` successive chunks above the higher threshold end it.

The extent of an utterance follows from its end of speech alone: it ends `TAIL` samples after that,
or at the end of the audio or at a cut if they come earlier. So all decodes with the same end of
speech have the same samples, whenever they are made. Utterances never overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.audio.level import loudest, silence_floor
from app.audio.probe import ESTABLISHED_CHUNKS
from app.audio.samples import SAMPLE_RATE
from app.audio.vad import CHUNK
from app.live import LiveOptions

DEFAULT_THRESHOLD = 0.5
"""The threshold of a stream on a node whose own is 0, which accepts everything."""

RESUMED_CHUNKS = 2
"""Successive chunks above the threshold after a pause that count as speech again."""

TAIL = SAMPLE_RATE // 4
"""Samples after the end of speech that belong to the utterance."""

PAUSES = (SAMPLE_RATE // 4, SAMPLE_RATE * 2 // 5, SAMPLE_RATE * 3 // 5)
"""Samples without speech until a `Pause`: one step further with each pause that was none."""

_OUT_SHARE = 0.7
"""The lower threshold as a share of the higher."""

_CUT_IN_PAUSE_FROM = 12 * SAMPLE_RATE
_CUT_PAUSE = 5 * CHUNK
_QUIETEST_FROM = 18 * SAMPLE_RATE
_LONGEST = 30 * SAMPLE_RATE
"""Lengths of an open utterance: from the first on it is cut in a pause of the second (160 ms). With
the last, which is the most that Whisper's encoder takes, at its quietest place after the third."""

_CUT_SPAN = 9
"""Chunks (288 ms) that are averaged to find a quiet place."""

_ABOUT_AS_QUIET = 2.0
"""Places within this factor (6 dB) of the quietest level are equally good."""


@dataclass(frozen=True, slots=True)
class Extent:
    """An utterance: samples `start` to `end` are decoded, and its speech, as far as the detector
    found it, is `speech_start` to `speech_end`."""

    start: int
    end: int
    speech_start: int
    speech_end: int


@dataclass(frozen=True, slots=True)
class Began:
    """An utterance is open; it begins at the sample `start`, which includes the lead-in."""

    start: int


@dataclass(frozen=True, slots=True)
class Pause:
    """The speaker pauses: `extent` is the utterance if this is its end."""

    extent: Extent


@dataclass(frozen=True, slots=True)
class Resumed:
    """Speech goes on: the extent of the last `Pause` is not the utterance."""


@dataclass(frozen=True, slots=True)
class Complete:
    """The utterance is complete, and none is open."""

    extent: Extent


@dataclass(frozen=True, slots=True)
class Cut:
    """Long speech was cut: `extent` is complete, and the rest becomes the next utterance."""

    extent: Extent


Event = Began | Pause | Resumed | Complete | Cut


@dataclass(frozen=True, slots=True)
class _Chunk:
    start: int
    end: int
    probability: float
    level: float


class Endpointer:
    """The endpoints of one stream. `threshold` is the node's, for options that have none."""

    def __init__(self, options: LiveOptions, threshold: float) -> None:
        self._default = threshold or DEFAULT_THRESHOLD
        self._next = options
        self._position = 0
        self._floor = 0
        """The first sample that belongs to no utterance before."""
        self._run = 0
        """Successive chunks above the threshold."""
        self._run_start = 0
        self._open: int | None = None
        """The start of the open utterance."""
        self._chunks: list[_Chunk] = []
        """The chunks of the open utterance since its speech began, or of the present run."""
        self._speech_start = self._speech_end = 0
        self._resumptions = 0
        """Number of `Resumed` in the open utterance."""
        self._is_paused = False
        """Whether no speech followed the last `Pause`."""
        self._close()

    @property
    def keep_from(self) -> int:
        """The first sample that the open or the next utterance may contain."""
        if self._open is not None:
            return self._open
        return self._earliest(self._run_start if self._run else self._position)

    @property
    def extent(self) -> Extent | None:
        """The open utterance if this is its end of speech; None if none is open."""
        return None if self._open is None else self._extent(self._speech_end + TAIL)

    def configure(self, options: LiveOptions) -> None:
        """Use `options` for the utterances that begin from now on."""
        self._next = options
        if self._open is None:
            self._close()

    def hear(self, probability: float, level: float, size: int = CHUNK) -> list[Event]:
        """Return the events of the next chunk of `size` samples; `level` is its RMS."""
        return self._hear(_Chunk(self._position, self._position + size, probability, level))

    def end(self) -> list[Event]:
        """Complete the open utterance here: the audio ends, or the client commits it."""
        events: list[Event] = []
        if (extent := self.extent) is not None:
            events.append(Complete(extent))
        self.clear()
        return events

    def clear(self) -> None:
        """Drop the open utterance, and keep no audio so far for the next."""
        self._close()
        self._run = 0
        self._floor = self._position

    def _hear(self, chunk: _Chunk) -> list[Event]:
        self._position = chunk.end
        if chunk.probability < self._threshold:
            self._run = 0
        else:
            self._run_start = self._run_start if self._run else chunk.start
            self._run += 1
        if self._open is None:
            return self._wait(chunk)
        self._chunks.append(chunk)
        events = self._follow(chunk)
        return events or self._cut()

    def _wait(self, chunk: _Chunk) -> list[Event]:
        self._chunks = [*self._chunks, chunk] if self._run else []
        if self._run < ESTABLISHED_CHUNKS:
            return []
        self._open = self._earliest(self._run_start)
        self._speech_start, self._speech_end = self._run_start, chunk.end
        return [Began(self._open)]

    def _follow(self, chunk: _Chunk) -> list[Event]:
        """Follow the speech of the open utterance, and its pauses."""
        is_pause = chunk.start - self._speech_end >= TAIL
        if is_pause:
            is_speech = self._run >= RESUMED_CHUNKS
        else:
            is_speech = chunk.probability >= self._threshold * _OUT_SHARE
        if is_speech:
            self._speech_end = chunk.end
            if self._is_paused:
                self._is_paused = False
                self._resumptions += 1
                return [Resumed()]
            return []
        quiet = chunk.end - self._speech_end
        if self._end_pause is not None and quiet >= self._end_pause:
            return [Complete(self._finish(self._speech_end + TAIL))]
        if self._is_paused or self._resumptions >= len(PAUSES):
            return []
        if quiet >= PAUSES[self._resumptions]:
            self._is_paused = True
            return [Pause(self._extent(self._speech_end + TAIL))]
        return []

    def _cut(self) -> list[Event]:
        """Cut the open utterance if it is long enough for this place."""
        assert self._open is not None
        length, quiet = self._position - self._open, self._position - self._speech_end
        if length >= _CUT_IN_PAUSE_FROM and quiet >= _CUT_PAUSE:
            middle = self._speech_end + (quiet // CHUNK + 1) // 2 * CHUNK
            return self._cut_at(self._speech_end + TAIL if quiet >= TAIL else middle)
        if length > _LONGEST - CHUNK:
            return self._cut_at(_quietest(self._chunks, self._open, self._threshold))
        return []

    def _cut_at(self, cut: int) -> list[Event]:
        chunks = [chunk for chunk in self._chunks if chunk.start >= cut]
        events: list[Event] = [Cut(self._finish(cut))]
        # The chunks after the cut are the beginning of the next utterance.
        self._run = 0
        for chunk in chunks:
            events += self._hear(chunk)
        return events

    def _finish(self, end: int) -> Extent:
        extent = self._extent(end)
        self._floor = extent.end
        self._close()
        return extent

    def _close(self) -> None:
        options = self._next
        self._threshold = options.threshold or self._default
        self._lead_in = int(options.lead_in * SAMPLE_RATE)
        self._end_pause = (
            None if options.end_pause is None else int(options.end_pause * SAMPLE_RATE)
        )
        self._open = None
        self._chunks = []
        self._speech_start = self._speech_end = 0
        self._resumptions = 0
        self._is_paused = False

    def _earliest(self, speech: int) -> int:
        """Return the start of an utterance whose speech begins at the sample `speech`."""
        return max(self._floor, speech - self._lead_in)

    def _extent(self, end: int) -> Extent:
        assert self._open is not None
        end = min(end, self._position)
        return Extent(self._open, end, self._speech_start, min(self._speech_end, end))


def _quietest(chunks: list[_Chunk], start: int, threshold: float) -> int:
    """Return the middle of the last quiet place of a full utterance, without speech if possible."""
    levels = np.array([chunk.level for chunk in chunks])
    floor = silence_floor(loudest(levels))
    first = next(at for at, chunk in enumerate(chunks) if chunk.start - start >= _QUIETEST_FROM)
    kernel = np.full(_CUT_SPAN, 1 / _CUT_SPAN)
    smooth = np.convolve(levels[first:], kernel, mode="valid")
    spoken = [chunk.probability >= threshold for chunk in chunks[first:]]
    is_pause = np.convolve(spoken, kernel, mode="valid") <= 1 / 3
    if is_pause.any():
        smooth[~is_pause] = np.inf
    enough = max(float(smooth.min()) * _ABOUT_AS_QUIET, floor)
    # The last place that is about as quiet as the quietest, because longer utterances mean fewer
    # decodes.
    place = int(np.flatnonzero(smooth <= enough)[-1])
    return chunks[first + place + _CUT_SPAN // 2].end
