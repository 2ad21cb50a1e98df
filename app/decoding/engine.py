"""The engine: decodes one window of speech into a hypothesis.

One thread owns an `Engine`: the worker's, or one of several. Nothing is carried from one call to
the next. whisper.cpp detects languages at the encoder context of the call before, so detection is a
step of its own here, at a context that this module chooses. `app/decoding/model_context.py` holds
the model, `app/decoding/parameters.py` sets whisper.cpp's parameters, and
`app/decoding/attempts.py` has the order of the attempts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from app.audio.stream import SAMPLE_RATE, Samples
from app.decoding import backends
from app.decoding.alignment import align
from app.decoding.attempts import Attempt, attempts, first_acceptable
from app.decoding.audio_evidence import AudioEvidence
from app.decoding.binding import pw
from app.decoding.context import FULL, EncoderContext, contexts_to_try, for_detection
from app.decoding.cues import fit
from app.decoding.decoded import Decoded
from app.decoding.engine_build import describe
from app.decoding.hypothesis import EXTRA_TOKENS, Hypothesis
from app.decoding.language_probe import LanguageWatch, confined
from app.decoding.model_context import LoadMode, ModelContext
from app.decoding.parameters import parameters
from app.decoding.prompt import PromptEncoder
from app.decoding.raw_decoder import RawDecoderError
from app.decoding.timestamps import LONG_SECONDS, Vocabulary, place
from app.decoding.tokens import SegmentBuilder
from app.decoding.transcriber import DecodeOptions, EngineAborted, EngineError, GivenUp

MIN_SAMPLES = SAMPLE_RATE
"""Shorter windows are padded with silence: whisper.cpp ignores audio below 0.1 s and reads out of
bounds below about 200 samples, and Whisper was not trained on fragments."""

_log = structlog.get_logger("engine")


class _OtherLanguage(Exception):
    """The window is in another language than the one it was decoded in."""


class Engine:
    """A loaded model.

    `path` must have been verified (`app/model_files/catalog.py`): whisper.cpp crashes on a corrupt
    file. Raises `EngineError` if whisper.cpp cannot load it, `OSError` if it cannot be opened.
    """

    def __init__(self, path: Path, name: str, threads: int, context: EncoderContext) -> None:
        self._threads = threads
        self._setting = context
        self._aborting = False
        self._giving_up = False
        self._watch: LanguageWatch | None = None
        # For short windows: flash attention if all windows take the whole encoder.
        usual = LoadMode(flash=contexts_to_try(1.0, context)[0] >= FULL)
        self._model = ModelContext(path, name, threads, usual)
        self._prompts = PromptEncoder(
            self._model.token_bytes, self._model.end_of_text, self._model.first_timestamp
        )
        self.info = self._model.info

    def warm_up(self) -> None:
        """Touch weights, buffers and threads, so that the first command does not wait for them.

        Call it on the thread that transcribes: libgomp keeps a team of threads for each thread that
        has ever used one, and if there are more threads than cores it makes them sleep at barriers
        (docs/lab-book.md, "Threads").
        """
        silence = np.zeros(MIN_SAMPLES, dtype=np.float32)
        attempt = Attempt(contexts_to_try(1.0, self._setting)[0], "", most_tokens=EXTRA_TOKENS)
        self._decode(silence, 1.0, DecodeOptions(), attempt)

    def transcribe(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        """Decode one window: float32, shape [n], 16 kHz, at most 30 s; any n from 0 up.

        Raises `EngineError` if whisper.cpp fails, `EngineAborted`, and `GivenUp`.
        """
        self._model.use_threads(options.threads or self._threads)
        seconds = len(samples) / SAMPLE_RATE
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if len(samples) < MIN_SAMPLES:
            samples = np.pad(samples, (0, MIN_SAMPLES - len(samples)))
        if not self.info.multilingual:
            # Many clients always send auto; here there is nothing to detect.
            options = replace(options, language="en")
        if options.language != "auto":
            return self._best(samples, seconds, options)
        expected = options.expected_language
        if expected is not None and self._model.language_probe() is not None:
            return self._expect(expected, samples, seconds, options)
        language, probability = self._detect(samples, seconds, options)
        carried = options.carried if expected in (None, language) else ""
        options = replace(options, language=language, carried=carried)
        hypothesis = self._best(samples, seconds, options)
        return replace(hypothesis, language_probability=probability)

    def first_attempt(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        """Decode a window of at least 1 s once, like `transcribe` but whatever the result is: the
        same work for every build, which `scripts/build_engine` compares."""
        seconds = len(samples) / SAMPLE_RATE
        first = next(attempts(seconds, options, self._setting, self._model.most_tokens))
        return self._decode(samples, seconds, options, first)

    def _best(self, samples: Samples, seconds: float, options: DecodeOptions) -> Hypothesis:
        hypothesis = first_acceptable(
            attempts(seconds, options, self._setting, self._model.most_tokens),
            seconds,
            lambda attempt: self._decode(samples, seconds, options, attempt),
            AudioEvidence(samples[: round(seconds * SAMPLE_RATE)]),
            options.only_sure or options.partial,
        )
        # The times of a partial are of no use.
        return hypothesis if options.partial else self._timed(hypothesis, samples, seconds, options)

    def _expect(
        self, expected: str, samples: Samples, seconds: float, options: DecodeOptions
    ) -> Hypothesis:
        """Decode in the `expected` language. If the first encoder pass shows that another language
        is spoken, stop before the decoder begins, and decode in that language."""
        watch = LanguageWatch(self._hear, expected, options.languages, seconds)
        self._watch = watch
        try:
            hypothesis = self._best(samples, seconds, replace(options, language=expected))
        except _OtherLanguage:
            self._watch = None
            options = replace(options, language=watch.language, carried="")
            hypothesis = self._best(samples, seconds, options)
        finally:
            self._watch = None
        return replace(hypothesis, language_probability=watch.probability)

    def rest(self) -> None:
        """Prepare for a short window and release memory, because no job is left.

        The next window loads the model again after a failure here, and reports it.
        """
        with contextlib.suppress(EngineError):
            self._model.prepare_usual()

    def abort(self) -> None:
        """Make the decode in progress, and any later one, end soon. May be called on any thread.

        The wheel ends its pass of encoder or decoder first; an engine with our patches does not.
        """
        self._aborting = True
        self._model.stop.set()

    def give_up(self) -> None:
        """Make decodes end soon with `GivenUp`, until `resume`. May be called on any thread."""
        self._giving_up = True
        self._model.stop.set()

    def resume(self) -> None:
        """Let decodes begin again. No decode is in progress."""
        self._giving_up = False
        if not self._aborting:
            self._model.stop.clear()

    def close(self) -> None:
        """Free the model; the engine is of no use afterwards."""
        self._model.close()

    def _detect(
        self, samples: Samples, seconds: float, options: DecodeOptions
    ) -> tuple[str, float | None]:
        """Return the language of a window, of those in `options` if there are any, and its
        probability. Takes one encoder pass."""
        among = options.languages
        # Detection has no context parameter: it runs at the context that the call before has set.
        # The first run sets it and, at 0.1 s of audio, ends before the encoder.
        context = for_detection(seconds, self._setting)
        silence = np.zeros(MIN_SAMPLES, dtype=np.float32)
        params = self._parameters(DecodeOptions(), Attempt(context, ""))
        params.duration_ms = 100
        self._run(params, silence, options.words)
        params.duration_ms = 0
        params.language = "auto"
        params.detect_language = True
        self._model.detected_probability = None
        self._run(params, samples, options.words)
        probe = self._model.language_probe() if among else None
        if probe is not None:
            heard = confined(probe.read(), among)
            language = max(heard, key=heard.__getitem__)
            return language, heard[language]
        language = self._model.detected_language()
        if among and language not in among:
            return among[0], None
        return language, self._model.detected_probability

    def _hear(self) -> dict[str, float]:
        probe = self._model.language_probe()
        return {} if probe is None else probe.hear()

    def _after_pass(self) -> bool:
        """Return whether to stop. whisper.cpp calls it after each pass of encoder and decoder."""
        if (stops := self._aborting or self._giving_up) or self._watch is None:
            return stops
        # Called from within whisper.cpp, which no exception may cross.
        try:
            return self._watch.listen()
        except Exception:
            _log.exception("the language of a window was not checked")
            self._watch = None
            return False

    def _decode(
        self, samples: Samples, seconds: float, options: DecodeOptions, attempt: Attempt
    ) -> Hypothesis:
        prompt = self._prompts.encode(attempt.prompt, attempt.carried, attempt.prompt_tokens)
        params = self._parameters(options, attempt, prompt)
        self._run(params, samples, options.words, reseed=attempt.temperature > 0)
        decoded = self._model.decoded()
        builder = SegmentBuilder(seconds, options.language, options.words, options.tokens)
        segments = builder.build(decoded)
        return Hypothesis(
            segments=segments,
            language=options.language,
            logprob=float(np.mean(builder.logprobs)) if builder.logprobs else 0.0,
            end=segments[-1].end if segments else seconds,
            limited=builder.count >= (params.max_tokens or self._model.most_tokens),
            encoder_context=attempt.context,
            decoded=decoded,
        )

    def _timed(
        self, hypothesis: Hypothesis, samples: Samples, seconds: float, options: DecodeOptions
    ) -> Hypothesis:
        """Return `hypothesis` with short segments and with words placed at their speech. Its end
        moves only for words after it, because the rest of the window may be decoded again from
        there."""
        segments = hypothesis.segments
        until = min(seconds, hypothesis.end)
        if self._model.raw is not None and any(
            segment.end - segment.start > LONG_SECONDS for segment in segments
        ):
            vocabulary = Vocabulary(self._model.start_of_text(options), self._model.first_timestamp)
            tokens, raw = hypothesis.decoded.tokens, self._model.raw
            try:
                placed = place(tokens, until, options.language, vocabulary, raw)
                builder = SegmentBuilder(until, options.language, options.words, options.tokens)
                segments = builder.build(Decoded(placed))
            except RawDecoderError:
                if self._giving_up:
                    raise GivenUp from None
        moved = [word.end for segment in segments for word in segment.words or ()]
        segments = fit(segments, samples[: round(until * SAMPLE_RATE)])
        if not moved:
            return replace(hypothesis, segments=segments)
        # Words move to the places where they were spoken, and the ends of their segments follow.
        segments = align(
            segments, moved, samples[: round(seconds * SAMPLE_RATE)], self._model.heads.lag
        )
        return replace(hypothesis, segments=segments, end=max(hypothesis.end, segments[-1].end))

    def _run(
        self, params: Any, samples: Samples, aligned: bool = False, reseed: bool = False
    ) -> None:
        if self._giving_up:
            raise GivenUp
        mode = LoadMode(flash=params.audio_ctx >= FULL and not aligned, aligned=aligned)
        self._model.prepare(mode, reseed)
        code = self._model.run(params, samples)
        if self._aborting:
            raise EngineAborted
        if self._giving_up:
            raise GivenUp
        if self._watch is not None and self._watch.changed:
            raise _OtherLanguage
        if code != 0:
            raise EngineError(f"whisper.cpp failed with code {code}: {self._model.last_error}")

    def _parameters(
        self, options: DecodeOptions, attempt: Attempt, prompt: Sequence[int] = ()
    ) -> Any:
        most = self._model.most_tokens
        return parameters(options, attempt, prompt, self._model.threads, most, self._after_pass)


def system_info() -> str:
    """Return the instructions that the engine was built for, as whisper.cpp reports them."""
    return str(pw.whisper_print_system_info()).strip()


def build() -> str:
    """Return the engine's source in a few words, and which of its CPU libraries is in use."""
    chosen = backends.load(Path(pw.__file__))
    return describe(Path(pw.__file__)) + (f", {chosen}" if chosen else "")
