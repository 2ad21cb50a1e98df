"""One request in the worker: its body is opened, cut and transcribed turn by turn.

A `Job` is a request handed from the loop to the worker; a `Transcription` is the worker's state for
it. `Transcription.turn` does one piece of work, at most one window for the engine and a minute of
audio without speech, and returns the new segments. This module does not deal with threads or other
jobs. Worker thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np

from app.audio.extract import Parts
from app.audio.mix import SpeechTest
from app.audio.patch import Patch
from app.audio.raw_format import bytes_per_second
from app.audio.stream import SAMPLE_RATE, AudioStream, Samples
from app.audio.vad import Detector
from app.audio.windows import MAX_SECONDS, Window, Windower
from app.decoding.hypothesis import Hypothesis, join
from app.decoding.transcriber import GivenUp, Transcriber
from app.messages import Request, Segment, Transcript
from app.worker.job_settings import JobSettings as JobSettings
from app.worker.window_decoder import WindowDecoder, resume_at

_TURN_SECONDS = 60.0
"""Most audio without speech that one turn scans; scanning it takes about as long as decoding one
window."""

_BYTES_PER_SECOND = 16_000
"""Assumed bytes per second of a file that is not open yet: half the rate of 16 kHz 16-bit PCM,
about that of FLAC."""


class JobBody(Interface):
    """The audio of a job, as `app/storage/body.py` makes it: complete, and used only by the
    worker."""

    size: int

    def fileno(self) -> int: ...

    def patch(self, patches: tuple[Patch, ...]) -> int: ...

    def extract(self, parts: Parts, most: int) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """A complete request, from the loop to the worker. The worker closes `body`."""

    number: int
    connection: int
    request: Request
    body: JobBody
    queued_at: float
    """`time.monotonic()` when the body was complete."""
    client: str = ""
    """The client's address; clients share the engine's time."""
    journal_entry: str = ""
    """The journal's name for the request, written to the crash marker before decoding."""
    suspect: bool = False
    """Nodes crashed while they worked on it, so nothing else is decoded beside it."""

    @property
    def guessed_seconds(self) -> float:
        """Estimated seconds of audio before the file is opened."""
        raw = self.request.raw
        if raw is None:
            return self.body.size / _BYTES_PER_SECOND
        seconds = self.body.size / bytes_per_second(raw)
        return seconds * raw.channels if self.request.channel_mode == "split" else seconds


class Transcription:
    """The work on one job, or on one `channel` of it, counted from 0. Raises `AudioError`,
    `EngineError` and `OSError`."""

    def __init__(
        self,
        job: Job,
        engine: Transcriber,
        detector: Detector,
        settings: JobSettings,
        speaks: SpeechTest | None = None,
        channel: int | None = None,
    ) -> None:
        self.job = job
        self._settings = settings
        self._started_at = time.monotonic()
        self._spent = 0.0
        request = job.request
        self._stream = AudioStream(
            job.body.fileno(),
            job.body.size,
            request.raw,
            settings.max_seconds,
            job.body.patch,
            speaks,
            channel,
            settings.media,
            job.body.extract,
        )
        self._decoder = WindowDecoder(request, engine, settings)
        is_multi = self._decoder.language.is_multi
        self._windower = Windower(detector, settings.vad_threshold, is_multi)
        self._ended = False
        self._given_up: Window | None = None
        """A window whose decode was given up, to be decoded again."""
        self._taken_until = 0.0
        """End, in seconds, of the last window of which a part was returned to the windower."""
        self.segments: list[Segment] = []
        self._beginning: list[Samples] = []
        """The first blocks, if only the language is wanted: also of audio without words."""
        self._kept = 0
        """Samples in them."""

    @property
    def channels(self) -> int:
        """Number of channels of the file, even if this job transcribes only one of them."""
        return self._stream.channels

    @property
    def length(self) -> float:
        """Estimated seconds of audio."""
        guessed = self.job.guessed_seconds
        if self.job.request.channel_mode == "split":
            guessed /= self.channels
        return self._stream.declared_seconds or guessed

    @property
    def seconds_left(self) -> float:
        """Estimated seconds of audio that are not transcribed yet."""
        return max(0.0, self.length - self._stream.seconds)

    def turn(self) -> tuple[list[Segment], bool]:
        """Do one piece of work. Return the new segments, and whether the job is done."""
        started = time.monotonic()
        window = self._given_up or self._next_window()
        try:
            segments = self._transcribe(window) if window is not None else []
            if self._beginning and (segments or self._windower.exhausted):
                self._guess_language()
            self._given_up = None
        except GivenUp:
            self._given_up = window
            return [], False
        finally:
            self._spent += time.monotonic() - started
        self.segments += segments
        enough = self.job.request.detect_only and bool(segments)
        return segments, enough or self._windower.exhausted

    def transcript(self) -> Transcript:
        """Return the transcript; call it after the last turn."""
        language, probability = self._decoder.language.summary()
        return Transcript(
            text=join(self.segments),
            language=language,
            language_probability=probability,
            segments=tuple(self.segments),
            audio_seconds=self._stream.seconds,
            queue_seconds=self._started_at - self.job.queued_at,
            processing_seconds=self._spent,
            model=self._settings.model,
            truncated=self._stream.truncated,
            encoder_context=self._decoder.encoder_context,
            passes=self._decoder.passes,
            second_passes=self._decoder.second_passes,
        )

    def close(self) -> None:
        self._stream.close()

    def _next_window(self) -> Window | None:
        until = self._stream.seconds + _TURN_SECONDS
        while (window := self._windower.next()) is None and self._stream.seconds < until:
            if self._ended:
                return None
            block = self._stream.read()
            if block is None:
                self._ended = True
                self._windower.end()
            else:
                self._windower.push(block)
                self._keep(block)
        return window

    def _keep(self, block: Samples) -> None:
        left = round(MAX_SECONDS * SAMPLE_RATE) - self._kept
        if self.job.request.detect_only and left > 0 and len(block):
            self._beginning.append(block[:left])
            self._kept += len(self._beginning[-1])

    def _guess_language(self) -> None:
        """Detect the language of the first 30 s, as whisper-asr-webservice does with all audio."""
        if self._decoder.language.last is None:
            self._decoder.guess_language(np.concatenate(self._beginning))

    def _transcribe(self, window: Window) -> list[Segment]:
        hypothesis = self._decoder.decode(
            window.samples, only_sure=self._is_repeat(window), doubtful=window.doubtful
        )
        self._return_rest(window, hypothesis)
        return self._decoder.accept(hypothesis, window)

    def _return_rest(self, window: Window, hypothesis: Hypothesis) -> None:
        """Return the rest of a window to the windower, if Whisper stopped in its middle."""
        length = len(window.samples) / SAMPLE_RATE
        at = None if window.doubtful else resume_at(hypothesis, length)
        if at is not None:
            self._windower.resume(at)
            self._taken_until = window.start + length

    def _is_repeat(self, window: Window) -> bool:
        """Return whether the window was already part of an earlier window. The decoder found no
        words there the first time, so a second decode must be sure of them."""
        return window.start + len(window.samples) / SAMPLE_RATE <= self._taken_until
