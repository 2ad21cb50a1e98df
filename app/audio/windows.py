"""From a stream of samples to windows of speech, at most 30 s each, cut in silence.

A `Windower` is pushed blocks and asked for the windows that are complete. It is always in one of
two moods. *Searching*: nothing heard since the last cut, so what goes by is looked at, chunk by
chunk, and dropped until speech is established; a recording without speech never reaches the engine
and cannot be turned into words that nobody said. *Collecting*: speech began, so everything is kept
until the window is full, and then cut where it is quietest near its end, or until the audio ends.

The voice activity detector is asked only where it matters: not about chunks that are plainly
silent by their level, not after speech is established, for a cut only around the quietest places,
and in a short recording first where it is loudest. Memory is one window and one block, whatever the
length of the recording. One Windower per request, on the worker thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.audio.stream import SAMPLE_RATE, Samples
from app.audio.vad import CHUNK, Detector

MAX_SECONDS = 30.0
"""Whisper's encoder takes 30 s of audio, no more (whisper.cpp: WHISPER_CHUNK_SIZE)."""

_CUT_FROM_SECONDS = 18.0
"""A full window is cut between here and its end: a pause to cut in comes at least every 12 s in
anything but a filibuster, and a cut much earlier would spend the encoder's 30 s on little audio."""

_ESTABLISHED_CHUNKS = 5
"""Speech is established after 160 ms in a row above the threshold. Measured with Silero 6.2 at 0.5:
every one of 125 clips of speech has at least 250 ms in a row, 12 clips of noise, music and silence
have at most 96 ms; the geometric mean of the two is 155 ms."""

_LEAD_IN_CHUNKS = 16
"""About half a second is kept before the chunk that established speech: soft beginnings score low,
and Whisper wants a breath of air before the first word."""

_SILENT_LEVEL = 10 ** (-65 / 20)
"""A chunk whose RMS (after taking its mean off) is under -65 dB of full scale holds no speech: the
noise floor of a cheap microphone lies at -60 to -50 dB, a whisper at a distance above that."""

_TAIL_CHUNKS = 16
"""Plain silence at a window's end beyond about half a second is taken off."""

_SHORT_SECONDS = 12.0
"""A recording up to this long is first looked at where it is loudest: of 75 such clips of speech 74
establish it there, the median within 5 chunks instead of 12 from the beginning, and no noise does.
That is 7 ms of a spoken command's answer."""

_LOUDEST_CHUNKS = 16
"""How far to listen there before falling back to a search from the beginning."""

_QUIET_SHARE = 10 ** (-24 / 20)
"""Of the loudest chunk's level. Softer beginnings of speech than that fit in the lead-in."""

_CUT_SPAN = 9
"""Chunks (288 ms) that are averaged to find a quiet place: longer than the closure of a plosive,
shorter than a pause between phrases."""

_CUT_TRIES = 3

_ABOUT_AS_QUIET = 2.0
"""Times the quietest level, 6 dB: within that a pause is as good as another."""


@dataclass(frozen=True, slots=True)
class Window:
    """Speech for the engine: `samples` float32, shape [n], C-contiguous, 16 kHz; `start` in seconds
    from the beginning of the audio."""

    start: float
    samples: Samples


class Windower:
    """Cuts one stream. `threshold` is the probability that counts as speech; 0 takes everything."""

    def __init__(self, detector: Detector, threshold: float) -> None:
        self._detector = detector
        self._threshold = threshold
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
            return None
        full = int(MAX_SECONDS * SAMPLE_RATE)
        if len(self._buffer) >= full:
            return self._take(self._find_cut(self._buffer[:full]))
        if self._ended and len(self._buffer):
            return self._take(len(self._buffer))
        return None

    def resume(self, seconds: float) -> None:
        """The last window was used only up to `seconds` from its beginning: search the rest again,
        as if it had never been looked at."""
        rest = self._taken[int(seconds * SAMPLE_RATE) :]
        self._buffer = np.concatenate((rest, self._buffer))
        self._start -= len(rest)
        self._forget()

    @property
    def exhausted(self) -> bool:
        """True when there can be no further window."""
        return self._ended and not len(self._buffer)

    def _search(self) -> bool:
        """Look for the beginning of speech and drop what lies before it."""
        # The body is complete, so waiting for a short recording's end delays nothing.
        if self._start == 0 and len(self._buffer) <= _SHORT_SECONDS * SAMPLE_RATE:
            if not self._ended:
                return False
            if self._is_loudest_speech():
                self._collecting = True
                self._drop(_leading_quiet(self._buffer))
                return True
        while self._searched < len(self._buffer):
            chunk = self._buffer[self._searched : self._searched + CHUNK]
            if len(chunk) < CHUNK and not self._ended:
                break
            self._searched += len(chunk)
            self._run = self._run + 1 if self._is_speech(chunk) else 0
            if self._run == _ESTABLISHED_CHUNKS:
                self._collecting = True
                break
        lead = _LEAD_IN_CHUNKS + (_ESTABLISHED_CHUNKS if self._collecting else self._run)
        self._drop(max(0, self._searched - lead * CHUNK))
        if self._ended and not self._collecting:
            self._drop(len(self._buffer))
        return self._collecting

    def _is_loudest_speech(self) -> bool:
        levels = _levels(self._buffer)
        if len(levels) < _ESTABLISHED_CHUNKS:
            return False
        sums = np.convolve(levels, np.ones(_ESTABLISHED_CHUNKS), mode="valid")
        begin = int(sums.argmax()) * CHUNK
        run = 0
        for at in range(begin, min(begin + _LOUDEST_CHUNKS * CHUNK, len(self._buffer)), CHUNK):
            run = run + 1 if self._is_speech(self._buffer[at : at + CHUNK]) else 0
            if run == _ESTABLISHED_CHUNKS:
                return True
        self._detector.reset()
        return False

    def _is_speech(self, chunk: Samples) -> bool:
        centred = chunk - chunk.mean()
        if float(np.sqrt(np.mean(centred * centred))) < _SILENT_LEVEL:
            return False
        return self._detector.probability(centred) >= self._threshold

    def _drop(self, count: int) -> None:
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
        self._searched = 0
        self._run = 0
        self._collecting = self._threshold <= 0
        self._detector.reset()

    def _find_cut(self, samples: Samples) -> int:
        """The middle of the last quiet stretch near the end that the detector takes for a pause."""
        first = int(_CUT_FROM_SECONDS * SAMPLE_RATE) // CHUNK
        levels = _levels(samples)[first:]
        smooth = np.convolve(levels, np.full(_CUT_SPAN, 1 / _CUT_SPAN), mode="valid")
        best: int | None = None
        for _ in range(_CUT_TRIES):
            least = smooth.min()
            if not np.isfinite(least):
                break
            # The last one that is about as quiet as the quietest: fuller windows are fewer.
            quietest = int(
                np.flatnonzero(smooth <= max(least * _ABOUT_AS_QUIET, _SILENT_LEVEL))[-1]
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
        loud = sum(
            self._is_speech(samples[at : at + CHUNK]) for at in range(0, len(samples), CHUNK)
        )
        return loud <= _CUT_SPAN // 3


def _levels(samples: Samples) -> npt.NDArray[np.float64]:
    """RMS of each whole chunk after taking its mean off; shape [len(samples) // CHUNK]."""
    chunks = samples[: len(samples) // CHUNK * CHUNK].reshape(-1, CHUNK)
    levels: npt.NDArray[np.float64] = chunks.std(axis=1).astype(np.float64)
    return levels


def _leading_quiet(samples: Samples) -> int:
    """Samples at the beginning that are far quieter than the rest, beyond the lead-in that is
    kept: the detector has only heard the loudest part, and does not know where speech begins."""
    levels = _levels(samples)
    loud = np.flatnonzero(levels >= max(_SILENT_LEVEL, float(levels.max()) * _QUIET_SHARE))
    first = int(loud[0]) if len(loud) else 0
    return max(0, (first - _LEAD_IN_CHUNKS) * CHUNK)


def _trailing_silence(samples: Samples) -> int:
    """Samples of plain silence at the end, beyond the tail that is kept."""
    levels = _levels(samples)
    loud = np.flatnonzero(levels >= _SILENT_LEVEL)
    last = int(loud[-1]) + 1 if len(loud) else 0
    return max(0, (len(levels) - last - _TAIL_CHUNKS) * CHUNK)
