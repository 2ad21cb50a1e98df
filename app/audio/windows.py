"""Cutting of a stream of samples into windows of speech, at most 30 s each, in silence.

Push blocks into a `Windower`, and take complete windows from it. It has two states:

- *Searching*: no speech since the last cut. The detector examines each chunk, and the `Windower`
  drops chunks until speech is established. Silence never reaches the engine, which would make words
  of it that nobody said.
- *Collecting*: speech has begun. The `Windower` keeps everything until the window is full or the
  audio ends. A full window is cut at its quietest place near its end.

The voice activity detector runs only on chunks that need it. It skips chunks that are plainly
silent by their level. After speech is established it runs only with `at_pauses`. For a cut it
examines only the quietest places. In a short recording it examines the loudest place first.

If it found no speech in the whole recording, the `Windower` returns the most promising stretch as a
`doubtful` window (`app/audio/second_look.py`). The memory is one window and one block, plus that
stretch until speech is found. It does not depend on the length of the recording. There is one
`Windower` per request, on the worker thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.audio.level import LevelledDetector, chunk_levels, loudest, silence_floor
from app.audio.probe import ESTABLISHED_CHUNKS, is_loudest_speech
from app.audio.samples import SAMPLE_RATE, Samples
from app.audio.second_look import Candidate
from app.audio.vad import CHUNK, Detector

MAX_SECONDS = 30.0
"""Whisper's encoder takes 30 s of audio, no more (whisper.cpp: WHISPER_CHUNK_SIZE)."""

_CUT_FROM_SECONDS = 18.0
"""A full window is cut between here and its end. Ordinary speech has a pause at least every 12 s,
and a cut much earlier would spend the encoder's 30 s on little audio."""

_LEAD_IN_CHUNKS = 16
"""Chunks (about half a second) kept before the chunk that established speech. Soft beginnings score
low, and Whisper decodes better with a short pause before the first word."""

_TAIL_CHUNKS = 16
"""Plain silence at a window's end beyond this many chunks (about half a second) is removed."""

_SHORT_SECONDS = 12.0
"""In a recording up to this long the loudest place is examined first (`app/audio/probe.py`). This
shortens the response to a spoken command."""

_QUIET_SHARE = 10 ** (-24 / 20)
"""Fraction of the loudest chunk's level below which a beginning counts as quiet. Softer beginnings
of speech fit in the lead-in."""

_CUT_SPAN = 9
"""Chunks (288 ms) that are averaged to find a quiet place: longer than the closure of a plosive,
shorter than a pause between phrases."""

_CUT_TRIES = 3
"""Quiet places that the detector examines for one cut."""

_PAUSE_CHUNKS = 13
"""Chunks in a row without speech (0.4 s) that count as a pause between speakers."""

_LEAST_BETWEEN_PAUSES = 2 * SAMPLE_RATE
"""A window shorter than this many samples does not end at a pause. Two seconds suffice to recognise
a language (docs/lab-book.md, "Languages")."""

_ABOUT_AS_QUIET = 2.0
"""Pauses within this factor (6 dB) of the quietest level are equally good."""


@dataclass(frozen=True, slots=True)
class Window:
    """Speech for the engine: `samples` float32, shape [n], C-contiguous, 16 kHz; `start` in seconds
    from the beginning of the audio. A `doubtful` window is the only window of a recording in which
    the detector found no speech."""

    start: float
    samples: Samples
    doubtful: bool = False


class Windower:
    """Cuts one stream. `threshold` is the probability that counts as speech; 0 accepts everything.
    `at_pauses` also ends windows at pauses, so that the next window can have another language.
    Without `second_look` there is no doubtful window."""

    def __init__(
        self,
        detector: Detector,
        threshold: float,
        at_pauses: bool = False,
        second_look: bool = True,
    ) -> None:
        self._detector = LevelledDetector(detector)
        self._at_pauses = at_pauses
        self._pause_searched = 0
        """Samples of the window that were searched for a pause."""
        self._quiet = 0
        """Chunks in a row without speech, up to there."""
        self._threshold = threshold
        self._candidate = Candidate() if threshold > 0 and second_look else None
        """The most promising stretch without speech; None after the first window."""
        self._probabilities: list[float] = []
        """The detector's probabilities for the chunks of the buffer that were searched."""
        self._buffer: Samples = np.empty(0, dtype=np.float32)
        self._start = 0
        """Position of the buffer in the stream, in samples."""
        self._searched = 0
        """Samples of the buffer that were examined while searching."""
        self._speech_run = 0
        """Chunks in a row above the threshold."""
        self._collecting = False
        self._ended = False
        self._taken = self._buffer
        """The samples of the last window, for `resume`."""
        self._reset_search()

    def push(self, block: Samples) -> None:
        """Append the next samples of the stream."""
        self._buffer = np.concatenate((self._buffer, block))

    def end(self) -> None:
        """Mark the end of the audio; the rest of the buffer becomes the last windows."""
        self._ended = True

    def next(self) -> Window | None:
        """Return the next complete window, or None if more samples are needed."""
        if not self._collecting and not self._search():
            return self._second_look() if self._ended else None
        full = int(MAX_SECONDS * SAMPLE_RATE)
        if self._at_pauses and (cut := self._find_pause(full)) is not None:
            return self._take(cut)
        if len(self._buffer) >= full:
            return self._take(self._find_cut(self._buffer[:full]))
        if self._ended and len(self._buffer):
            return self._take(len(self._buffer))
        return None

    def resume(self, seconds: float) -> None:
        """Return the last window's samples after `seconds` to the buffer, to be searched again."""
        rest = self._taken[round(seconds * SAMPLE_RATE) :]
        self._buffer = np.concatenate((rest, self._buffer))
        self._start -= len(rest)
        self._reset_search()

    @property
    def exhausted(self) -> bool:
        """True when there can be no further window."""
        return self._ended and not len(self._buffer) and self._candidate is None

    def _search(self) -> bool:
        """Search for the beginning of speech and drop the samples before it."""
        # The body is complete, so waiting for a short recording's end delays nothing.
        if self._start == 0 and len(self._buffer) <= _SHORT_SECONDS * SAMPLE_RATE:
            if not self._ended:
                return False
            if is_loudest_speech(self._detector, self._buffer, self._threshold):
                self._start_collecting()
                self._drop(_leading_quiet(self._buffer))
                return True
        while self._searched < len(self._buffer):
            chunk = self._buffer[self._searched : self._searched + CHUNK]
            if len(chunk) < CHUNK and not self._ended:
                break
            self._searched += len(chunk)
            self._probabilities.append(self._detector.probability(chunk))
            self._speech_run = (
                self._speech_run + 1 if self._probabilities[-1] >= self._threshold else 0
            )
            if self._speech_run == ESTABLISHED_CHUNKS:
                self._start_collecting()
                break
        lead = _LEAD_IN_CHUNKS + (ESTABLISHED_CHUNKS if self._collecting else self._speech_run)
        self._drop(max(0, self._searched - lead * CHUNK))
        if self._ended and not self._collecting:
            self._drop(len(self._buffer))
        return self._collecting

    def _start_collecting(self) -> None:
        self._collecting = True
        self._candidate = None
        if self._at_pauses:
            self._detector.reset()

    def _second_look(self) -> Window | None:
        """Return the most promising stretch of a recording without speech, once."""
        candidate, self._candidate = self._candidate, None
        found = candidate.take() if candidate is not None else None
        if found is None:
            return None
        position, samples = found
        return Window(position / SAMPLE_RATE, samples, doubtful=True)

    def _drop(self, count: int) -> None:
        if self._candidate is not None:
            self._candidate.add(self._buffer[:count], self._probabilities[: -(-count // CHUNK)])
        del self._probabilities[: count // CHUNK]
        self._buffer = self._buffer[count:]
        self._searched -= count
        self._start += count

    def _take(self, count: int) -> Window:
        samples = self._buffer[:count]
        kept = count - _trailing_silence(samples)
        window = Window(self._start / SAMPLE_RATE, np.ascontiguousarray(samples[:kept]))
        self._taken = samples
        # A copy, so that the view does not keep the returned window's memory alive.
        self._buffer = self._buffer[count:].copy()
        self._start += count
        self._reset_search()
        return window

    def _reset_search(self) -> None:
        self._probabilities.clear()
        self._searched = 0
        self._speech_run = 0
        self._pause_searched = 0
        self._quiet = 0
        self._collecting = self._threshold <= 0
        self._detector.reset()

    def _find_pause(self, most: int) -> int | None:
        """Return the middle of the first pause in the buffer, up to `most` samples."""
        while self._pause_searched + CHUNK <= min(len(self._buffer), most):
            chunk = self._buffer[self._pause_searched : self._pause_searched + CHUNK]
            self._pause_searched += CHUNK
            is_speech = self._detector.probability(chunk) >= self._threshold
            self._quiet = 0 if is_speech else self._quiet + 1
            if self._quiet >= _PAUSE_CHUNKS and self._pause_searched >= _LEAST_BETWEEN_PAUSES:
                return self._pause_searched - self._quiet * CHUNK // 2
        return None

    def _find_cut(self, samples: Samples) -> int:
        """Return the middle of the last quiet stretch near the end without speech."""
        first = int(_CUT_FROM_SECONDS * SAMPLE_RATE) // CHUNK
        levels = chunk_levels(samples)
        loud = loudest(levels)
        self._detector.expect(loud)
        levels = levels[first:]
        smooth = np.convolve(levels, np.full(_CUT_SPAN, 1 / _CUT_SPAN), mode="valid")
        best: int | None = None
        for _ in range(_CUT_TRIES):
            least = smooth.min()
            if not np.isfinite(least):
                break
            # The last place that is about as quiet as the quietest, because longer windows mean
            # fewer decodes.
            quietest = int(
                np.flatnonzero(smooth <= max(least * _ABOUT_AS_QUIET, silence_floor(loud)))[-1]
            )
            begin = first + quietest
            cut = (begin + _CUT_SPAN // 2) * CHUNK
            best = cut if best is None else best
            if self._is_pause(samples[begin * CHUNK : (begin + _CUT_SPAN) * CHUNK]):
                return cut
            around = slice(max(0, quietest - _CUT_SPAN), quietest + _CUT_SPAN)
            smooth[around] = np.inf
        assert best is not None
        return best

    def _is_pause(self, samples: Samples) -> bool:
        self._detector.reset()
        spoken = sum(
            self._detector.probability(samples[at : at + CHUNK]) >= self._threshold
            for at in range(0, len(samples), CHUNK)
        )
        return spoken <= _CUT_SPAN // 3


def _leading_quiet(samples: Samples) -> int:
    """Return the number of samples at the beginning, without the lead-in, that are far quieter than
    the rest. The detector has examined only the loudest part."""
    levels = chunk_levels(samples)
    least = max(silence_floor(loudest(levels)), float(levels.max()) * _QUIET_SHARE)
    loud = np.flatnonzero(levels >= least)
    first = int(loud[0]) if len(loud) else 0
    return max(0, (first - _LEAD_IN_CHUNKS) * CHUNK)


def _trailing_silence(samples: Samples) -> int:
    """Return the number of samples of plain silence at the end, without the tail that is kept."""
    levels = chunk_levels(samples)
    loud = np.flatnonzero(levels >= silence_floor(loudest(levels)))
    last = int(loud[-1]) + 1 if len(loud) else 0
    return max(0, (len(levels) - last - _TAIL_CHUNKS) * CHUNK)
