"""One request on its way through the worker: its body opened, cut and transcribed turn by turn.

A `Job` is what the loop hands over. A `Transcription` is the worker's side of it: `turn()` does one
piece of work, at most one window for the engine and a minute of audio without speech, and says what
came of it. Nothing here knows of threads or of other jobs. Worker thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Protocol as Interface

from app.audio.level import amplified
from app.audio.mix import SpeechTest
from app.audio.patch import Patch
from app.audio.stream import SAMPLE_RATE, AudioStream
from app.audio.vad import Detector
from app.audio.windows import Window, Windower
from app.decoding.certainty import is_sure
from app.decoding.hypothesis import Hypothesis, compression, join
from app.decoding.transcriber import DecodeOptions, Transcriber
from app.messages import SAMPLE_BYTES, Request, Segment, Transcript, Word
from app.worker.language import SpokenLanguage

_TURN_SECONDS = 60.0
"""Audio without speech that one turn may go through: about as long to decode as a window takes."""

_BYTES_PER_SECOND = 16_000
"""To guess a length before the file is open: half of 16 kHz 16-bit PCM, about FLAC."""

_RESUME_SECONDS = 1.0
"""A hypothesis that ends this much before its window does may have left speech behind."""

_CARRIED_CHARACTERS = 600
"""Of the text before, about 150 of the 223 tokens a prompt may have; measured in
docs/lab-book.md."""

_CARRY_MIN_LOGPROB = -0.7
_CARRY_MAX_COMPRESSION = 2.0
"""A window's text goes into the next one's prompt only if it is surer and less repetitive than what
is merely let through: a loop that is carried on stays a loop."""


class JobBody(Interface):
    """The audio of a job, as `app/storage/body.py` makes it: complete, and the worker's alone."""

    size: int

    def fileno(self) -> int: ...

    def patch(self, patches: tuple[Patch, ...]) -> int: ...

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
    """Whose it is, by address: clients share the engine's time."""
    mark: str = ""
    """What the journal calls it, to know what was in the engine when a process died."""

    @property
    def guessed_seconds(self) -> float:
        """About how much audio this is, before it has been opened."""
        raw = self.request.raw
        if raw is None:
            return self.body.size / _BYTES_PER_SECOND
        frame = SAMPLE_BYTES[raw.encoding] * raw.channels
        seconds = self.body.size / (frame * raw.sample_rate)
        return seconds * raw.channels if self.request.channel_mode == "split" else seconds


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What holds for every job: `max_seconds` of audio, `vad_threshold` as `Windower` takes it,
    `language` and `prompt` where a request names none, the `model`'s full name, whether to keep
    markers of other sounds, such as "[Music]", and the `languages` that detection chooses from, all
    where there are none."""

    max_seconds: float
    vad_threshold: float
    language: str
    prompt: str
    model: str
    keep_markers: bool = False
    languages: tuple[str, ...] = ()


class Transcription:
    """The work on one job, or on one `channel` of it, counted from 0. Raises what audio and engine
    raise."""

    def __init__(
        self,
        job: Job,
        engine: Transcriber,
        detector: Detector,
        limits: JobSettings,
        speaks: SpeechTest | None = None,
        channel: int | None = None,
    ) -> None:
        self.job = job
        self._engine = engine
        self._limits = limits
        self._started_at = time.monotonic()
        self._spent = 0.0
        request = job.request
        self._stream = AudioStream(
            job.body.fileno(),
            job.body.size,
            request.raw,
            limits.max_seconds,
            job.body.patch,
            speaks,
            channel,
        )
        self._language = SpokenLanguage(request, limits.language, limits.languages)
        self._windower = Windower(detector, limits.vad_threshold, self._language.is_multi)
        self._ended = False
        self._carried = ""
        self._taken_until = 0.0
        """Where the last window ended that was taken back in part, in seconds."""
        self._encoder_context = 0
        self._passes = 0
        self._second_passes = 0
        self.segments: list[Segment] = []

    @property
    def channels(self) -> int:
        """Of the file, also where the work is on one of them."""
        return self._stream.channels

    @property
    def length(self) -> float:
        """About how much audio there is, in seconds."""
        guessed = self.job.guessed_seconds
        if self.job.request.channel_mode == "split":
            guessed /= self.channels
        return self._stream.declared_seconds or guessed

    @property
    def seconds_left(self) -> float:
        """About how much audio is still to come."""
        return max(0.0, self.length - self._stream.seconds)

    def turn(self) -> tuple[list[Segment], bool]:
        """Do one piece of work: the segments it gave, and whether the job is done."""
        started = time.monotonic()
        window = self._next_window()
        segments = self._transcribe(window) if window is not None else []
        self.segments += segments
        self._spent += time.monotonic() - started
        return segments, self._windower.exhausted

    def transcript(self) -> Transcript:
        """The whole, after the last turn."""
        language, probability = self._language.summary()
        return Transcript(
            text=join(self.segments),
            language=language,
            language_probability=probability,
            segments=tuple(self.segments),
            audio_seconds=self._stream.seconds,
            queue_seconds=self._started_at - self.job.queued_at,
            processing_seconds=self._spent,
            model=self._limits.model,
            truncated=self._stream.truncated,
            encoder_context=self._encoder_context,
            passes=self._passes,
            second_passes=self._second_passes,
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
        return window

    def _transcribe(self, window: Window) -> list[Segment]:
        request = self.job.request
        options = DecodeOptions(
            translate=request.task == "translate",
            # A prompt makes the decoder hear its words in noise.
            prompt="" if window.doubtful else request.prompt or self._limits.prompt,
            carried="" if window.doubtful else self._carried[-_CARRIED_CHARACTERS:],
            words=request.word_timestamps,
            temperature=request.temperature,
            only_sure=self._is_rest(window) or window.doubtful,
        )
        options = self._language.options(options)
        hypothesis = self._engine.transcribe(amplified(window.samples), options)
        if window.doubtful and not is_sure(hypothesis):
            hypothesis = replace(hypothesis, segments=())
        self._language.note(hypothesis)
        self._encoder_context = max(self._encoder_context, hypothesis.encoder_context)
        self._passes += hypothesis.passes
        self._second_passes += hypothesis.passes - 1
        self._carried = _worth_carrying(hypothesis)
        self._take_back(window, hypothesis)
        shown = hypothesis.segments if self._limits.keep_markers else hypothesis.spoken
        return [
            self._language.tagged(_shifted(segment, window.start), hypothesis) for segment in shown
        ]

    def _take_back(self, window: Window, hypothesis: Hypothesis) -> None:
        """Whisper sometimes stops in the middle of a window: let the rest be searched again."""
        length = len(window.samples) / SAMPLE_RATE
        if window.doubtful:
            return
        if hypothesis.segments and hypothesis.end <= length - _RESUME_SECONDS:
            # At least a second on, so that every turn gets somewhere.
            self._windower.resume(min(length, max(hypothesis.end, _RESUME_SECONDS)))
            self._taken_until = window.start + length

    def _is_rest(self, window: Window) -> bool:
        """Whether all of a window has been in one before. The decoder saw no more words there; a
        second look finds them, or makes them up from what is left of the last one."""
        return window.start + len(window.samples) / SAMPLE_RATE <= self._taken_until


def _worth_carrying(hypothesis: Hypothesis) -> str:
    text = hypothesis.text
    sure = hypothesis.logprob >= _CARRY_MIN_LOGPROB
    return text if text and sure and compression(text) <= _CARRY_MAX_COMPRESSION else ""


def _shifted(segment: Segment, seconds: float) -> Segment:
    """The segment's times from the beginning of the audio instead of the window's."""

    def shift(word: Word) -> Word:
        return replace(word, start=word.start + seconds, end=word.end + seconds)

    words = None if segment.words is None else tuple(shift(word) for word in segment.words)
    start, end = segment.start + seconds, segment.end + seconds
    return replace(segment, start=start, end=end, words=words)
