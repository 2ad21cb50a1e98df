"""The decoding of a job's windows, one after the other.

A `WindowDecoder` holds what one window leaves to the next: the carried text, the language, and the
counts for the outcome. Files and live audio share it. `decode` changes nothing, and `accept` takes
its result; live audio decodes on a copy (`fork`) while it is not certain that an utterance is
complete. Worker thread.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from app.audio.level import amplified
from app.audio.stream import Samples
from app.audio.windows import Window
from app.decoding.break_times import SoundBreaks
from app.decoding.certainty import is_sure
from app.decoding.cue_layout import CHANNEL_LABEL_COLUMNS, lay_out
from app.decoding.hypothesis import Hypothesis, compression
from app.decoding.transcriber import DecodeOptions, Transcriber
from app.messages import Request, Segment, Word
from app.worker.job_settings import JobSettings
from app.worker.language import SpokenLanguage

_RESUME_SECONDS = 1.0
"""A hypothesis that ends this much before its window does may have missed speech."""

_CARRIED_CHARACTERS = 200
"""Most characters of preceding text: more than the tokens that a prompt takes of it."""

_CARRY_MIN_LOGPROB = -0.7
_CARRY_MAX_COMPRESSION = 2.0
"""A window's text goes into the next prompt only if it is more probable and less repetitive
than the limits for accepting a hypothesis require: a loop in a prompt causes another loop."""


class WindowDecoder:
    """Decodes the windows of `request` in their order."""

    def __init__(self, request: Request, engine: Transcriber, settings: JobSettings) -> None:
        self._request = request
        self._engine = engine
        self._settings = settings
        self._carried = ""
        self.language = SpokenLanguage(request, settings.language, settings.languages)
        self.encoder_context = 0
        """The largest encoder context of a window."""
        self.passes = 0
        """Number of decodes."""
        self.second_passes = 0
        """Number of decodes that repeated a window."""

    def fork(self, request: Request, carries: bool) -> WindowDecoder:
        """Return a copy that continues from here with `request`, and with the carried text if it
        `carries`. It changes nothing here."""
        twin = copy.copy(self)
        twin._request = request
        twin._carried = self._carried if carries else ""
        before = self._request
        if (request.language, request.languages) == (before.language, before.languages):
            twin.language = self.language.fork()
        else:
            settings = self._settings
            twin.language = SpokenLanguage(request, settings.language, settings.languages)
        return twin

    def decode(
        self, samples: Samples, *, only_sure: bool = False, doubtful: bool = False
    ) -> Hypothesis:
        """Return the hypothesis of a window: float32, shape [n], 16 kHz, at most 30 s.

        With `only_sure` the decoder must be sure of the words; a `doubtful` window is one in which
        the detector found no speech. Raises `EngineError` and `EngineAborted`.
        """
        request = self._request
        options = DecodeOptions(
            translate=request.task == "translate",
            # With a prompt the decoder tends to hallucinate the prompt's words in noise.
            prompt="" if doubtful else request.prompt or self._settings.prompt,
            carried="" if doubtful else self._carried[-_CARRIED_CHARACTERS:],
            words=request.word_timestamps,
            temperature=request.temperature,
            only_sure=only_sure or doubtful,
            tokens=request.logprobs,
        )
        hypothesis = self._engine.transcribe(amplified(samples), self.language.options(options))
        if doubtful and not is_sure(hypothesis):
            hypothesis = replace(hypothesis, segments=())
        return hypothesis

    def decode_partial(self, samples: Samples, language: str | None) -> Hypothesis:
        """Return the hypothesis of the beginning of a window, empty if it is not plausible;
        `language` is that of the window, None if it is not known. Raises as `decode` does."""
        request = self._request
        options = DecodeOptions(
            translate=request.task == "translate",
            prompt=request.prompt or self._settings.prompt,
            # The times are not used, but without words the engine would load the model again.
            words=request.word_timestamps,
            partial=True,
        )
        options = self.language.options(options)
        if language is not None:
            options = replace(options, language=language)
        return self._engine.transcribe(amplified(samples), options)

    def guess_language(self, samples: Samples) -> None:
        """Take the most probable language of a window in which no words were found. Raises as
        `decode` does."""
        hypothesis = self.decode_partial(samples, None)
        self.language.guess(hypothesis)
        self.passes += hypothesis.passes

    def accept(self, hypothesis: Hypothesis, window: Window) -> list[Segment]:
        """Take the hypothesis of `window`. Return its segments, or cues if the request asks for
        them, with times from the beginning of the audio."""
        self.language.note(hypothesis)
        self.encoder_context = max(self.encoder_context, hypothesis.encoder_context)
        self.passes += hypothesis.passes
        self.second_passes += hypothesis.passes - 1
        self._carried = _worth_carrying(hypothesis)
        shown = hypothesis.segments if self._settings.keep_markers else hypothesis.spoken
        return [
            self.language.tagged(_shifted(segment, window.start), hypothesis)
            for segment in self._cues(shown, window.samples)
        ]

    def _cues(self, segments: tuple[Segment, ...], samples: Samples) -> tuple[Segment, ...]:
        layout = self._request.cues
        if layout is None:
            return segments
        times = SoundBreaks(samples)
        label = CHANNEL_LABEL_COLUMNS if self._request.channel_mode == "split" else 0
        return tuple(cue for segment in segments for cue in lay_out(segment, layout, times, label))


def resume_at(hypothesis: Hypothesis, length: float) -> float | None:
    """Return the second of a window of `length` seconds from which it is searched again, because
    Whisper stopped in its middle; None if it did not."""
    if hypothesis.segments and hypothesis.end <= length - _RESUME_SECONDS:
        # Advance at least one second, so that every decode makes progress.
        return min(length, max(hypothesis.end, _RESUME_SECONDS))
    return None


def _worth_carrying(hypothesis: Hypothesis) -> str:
    text = hypothesis.text
    sure = hypothesis.logprob >= _CARRY_MIN_LOGPROB
    return text if text and sure and compression(text) <= _CARRY_MAX_COMPRESSION else ""


def _shifted(segment: Segment, seconds: float) -> Segment:
    """Return the segment with times from the beginning of the audio instead of the window's."""

    def shift(word: Word) -> Word:
        return replace(word, start=word.start + seconds, end=word.end + seconds)

    words = None if segment.words is None else tuple(shift(word) for word in segment.words)
    start, end = segment.start + seconds, segment.end + seconds
    return replace(segment, start=start, end=end, words=words)
