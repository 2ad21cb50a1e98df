"""From a stream of samples to windows of speech, at most 30 s each, cut in silence.

A `Windower` is pushed blocks and asked for the windows that are complete. It is always in one of
two moods. *Searching*: nothing heard since the last cut, so what goes by is looked at, chunk by
chunk, and dropped until speech is established; a recording without speech never reaches the engine
and cannot be turned into words that nobody said. *Collecting*: speech began, so everything is kept
until the window is full, and then cut where it is quietest near its end, or until the audio ends.

The voice activity detector is asked only where it matters: not about chunks that are plainly
silent by their level, not after speech is established, for a cut only around the quietest places,
and in a short recording first where it is loudest. Where it found no speech in the whole recording,
the most promising stretch is given at the end, as a window that says so
(`app/audio/second_look.py`). Memory is one window and one block, and until speech is found that
stretch, whatever the length of the recording. One Windower per request, on the worker thread.
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
"""A full window is cut between here and its end: a pause to cut in comes at least every 12 s in
anything but a filibuster, and a cut much earlier would spend the encoder's 30 s on little audio."""

_LEAD_IN_CHUNKS = 16
"""About half a second is kept before the chunk that established speech: soft beginnings score low,
and Whisper wants a breath of air before the first word."""

_TAIL_CHUNKS = 16
"""Plain silence at a window's end beyond about half a second is taken off."""

_SHORT_SECONDS = 12.0
"""A recording up to this long is first looked at where it is loudest (`app/audio/probe.py`). That
takes 7 ms off the answer to a spoken command."""

_QUIET_SHARE = 10 ** (-24 / 20)
"""Of the loudest chunk's level. Softer beginnings of speech than that fit in the lead-in."""

_CUT_SPAN = 9
"""Chunks (288 ms) that are averaged to find a quiet place: longer than the closure of a plosive,
shorter than a pause between phrases."""

_CUT_TRIES = 3

_PAUSE_CHUNKS = 13
"""Without speech in a row (0.4 s): a pause between two who talk rather than between two words."""

_LEAST_BETWEEN_PAUSES = 2 * SAMPLE_RATE
"""Samples of a window that a pause ends. A language is heard in 2 s (docs/lab-book.md,
"Languages")."""

_ABOUT_AS_QUIET = 2.0
"""Times the quietest level, 6 dB: within that a pause is as good as another."""


@dataclass(frozen=True, slots=True)
class Window:
    """Speech for the engine: `samples` float32, shape [n], C-contiguous, 16 kHz; `start` in seconds
    from the beginning of the audio. A `doubtful` window is all that there is of a recording in
    which the detector found no speech."""

    start: float
    samples: Samples
    doubtful: bool = False


class Windower:
    """Cuts one stream. `threshold` is the probability that counts as speech; 0 takes everything.
    `at_pauses` ends windows at pauses, too, for speech that may go on in another language."""

    def __init__(self, detector: Detector, threshold: float, at_pauses: bool = False) -> None:
        self._detector = LevelledDetector(detector)
        self._at_pauses = at_pauses
        self._listened = 0
        """Samples of the window that were listened to for a pause."""
        self._quiet = 0
        """Chunks in a row that held no speech then."""
        self._threshold = threshold
        self._candidate: Candidate | None = Candidate() if threshold > 0 else None
        """None once there was a window."""
        self._heard: list[float] = []
        """The detector's answers for the chunks of the buffer that were searched."""
        self._buffer: Samples = np.empty(0, dtype=np.float32)
        self._start = 0
        """Where in the stream the buffer begins, in samples."""
        self._searched = 0
        """Samples of the buffer that were already looked at while searching."""
        self._run = 0
        """Chunks in a row above the threshold."""
        self._collecting = False
        self._ended = False
        self._taken = self._buffer
        self._forget()

    def push(self, block: Samples) -> None:
        """Take the next samples."""
        self._buffer = np.concatenate((self._buffer, block))

    def end(self) -> None:
        """The audio has ended; what is left makes the last windows."""
        self._ended = True

    def next(self) -> Window | None:
        """The next complete window, or None until more is pushed."""
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
        """The last window was used only up to `seconds` from its beginning: search the rest again,
        as if it had never been looked at."""
        rest = self._taken[round(seconds * SAMPLE_RATE) :]
        self._buffer = np.concatenate((rest, self._buffer))
        self._start -= len(rest)
        self._forget()

    @property
    def exhausted(self) -> bool:
        """True when there can be no further window."""
        return self._ended and not len(self._buffer) and self._candidate is None

    def _search(self) -> bool:
        """Look for the beginning of speech and drop what lies before it."""
        # The body is complete, so waiting for a short recording's end delays nothing.
        if self._start == 0 and len(self._buffer) <= _SHORT_SECONDS * SAMPLE_RATE:
            if not self._ended:
                return False
            if is_loudest_speech(self._detector, self._buffer, self._threshold):
                self._collect()
                self._drop(_leading_quiet(self._buffer))
                return True
        while self._searched < len(self._buffer):
            chunk = self._buffer[self._searched : self._searched + CHUNK]
            if len(chunk) < CHUNK and not self._ended:
                break
            self._searched += len(chunk)
            self._heard.append(self._detector.probability(chunk))
            self._run = self._run + 1 if self._heard[-1] >= self._threshold else 0
            if self._run == ESTABLISHED_CHUNKS:
                self._collect()
                break
        lead = _LEAD_IN_CHUNKS + (ESTABLISHED_CHUNKS if self._collecting else self._run)
        self._drop(max(0, self._searched - lead * CHUNK))
        if self._ended and not self._collecting:
            self._drop(len(self._buffer))
        return self._collecting

    def _collect(self) -> None:
        self._collecting = True
        self._candidate = None
        if self._at_pauses:
            self._detector.reset()

    def _second_look(self) -> Window | None:
        """The most promising stretch of a recording without speech, once."""
        candidate, self._candidate = self._candidate, None
        found = candidate.take() if candidate is not None else None
        if found is None:
            return None
        position, samples = found
        return Window(position / SAMPLE_RATE, samples, doubtful=True)

    def _drop(self, count: int) -> None:
        if self._candidate is not None:
            self._candidate.add(self._buffer[:count], self._heard[: -(-count // CHUNK)])
        del self._heard[: count // CHUNK]
        self._buffer = self._buffer[count:]
        self._searched -= count
        self._start += count

    def _take(self, count: int) -> Window:
        samples = self._buffer[:count]
        kept = count - _trailing_silence(samples)
        window = Window(self._start / SAMPLE_RATE, np.ascontiguousarray(samples[:kept]))
        self._taken = samples
        # A copy, so that the rest does not keep alive the window that is given away.
        self._buffer = self._buffer[count:].copy()
        self._start += count
        self._forget()
        return window

    def _forget(self) -> None:
        self._heard.clear()
        self._searched = 0
        self._run = 0
        self._listened = 0
        self._quiet = 0
        self._collecting = self._threshold <= 0
        self._detector.reset()

    def _find_pause(self, most: int) -> int | None:
        """The middle of the first pause in what is collected, up to `most` samples."""
        while self._listened + CHUNK <= min(len(self._buffer), most):
            chunk = self._buffer[self._listened : self._listened + CHUNK]
            self._listened += CHUNK
            is_speech = self._detector.probability(chunk) >= self._threshold
            self._quiet = 0 if is_speech else self._quiet + 1
            if self._quiet >= _PAUSE_CHUNKS and self._listened >= _LEAST_BETWEEN_PAUSES:
                return self._listened - self._quiet * CHUNK // 2
        return None

    def _find_cut(self, samples: Samples) -> int:
        """The middle of the last quiet stretch near the end that the detector takes for a pause."""
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
            # The last one that is about as quiet as the quietest: fuller windows are fewer.
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
    """Samples at the beginning that are far quieter than the rest, beyond the lead-in that is
    kept: the detector has only heard the loudest part, and does not know where speech begins."""
    levels = chunk_levels(samples)
    least = max(silence_floor(loudest(levels)), float(levels.max()) * _QUIET_SHARE)
    loud = np.flatnonzero(levels >= least)
    first = int(loud[0]) if len(loud) else 0
    return max(0, (first - _LEAD_IN_CHUNKS) * CHUNK)


def _trailing_silence(samples: Samples) -> int:
    """Samples of plain silence at the end, beyond the tail that is kept."""
    levels = chunk_levels(samples)
    loud = np.flatnonzero(levels >= silence_floor(loudest(levels)))
    last = int(loud[-1]) + 1 if len(loud) else 0
    return max(0, (len(levels) - last - _TAIL_CHUNKS) * CHUNK)
