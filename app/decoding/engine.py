"""One window of speech in, one hypothesis out: the only module that imports pywhispercpp.

It uses that package's binding `_pywhispercpp` rather than its `Model`: the binding gives
`whisper_full`'s return code, which `Model` throws away, so that a failure cannot pass for silence,
and it does not import requests, tqdm and platformdirs into a program that has no use for them.

One thread owns an `Engine` (the worker): two on one whisper.cpp context crash. Nothing is carried
from one call to the next. Every parameter that matters is set anew, on a fresh parameter object;
language detection, which whisper.cpp runs at whatever encoder context the call before left, is a
step of its own here, at a context of our choosing. The model is loaded again wherever its way of
loading has to change: flash attention, which reads beyond a reduced context into what earlier audio
left, is for the whole encoder, where it saves a third of the memory; whisper.cpp's alignment of
words, which excludes it, is for requests with word times; and whisper.cpp seeds its first decoder's
random generator at load only, so sampling above temperature 0 begins with a fresh one. What is
tried in which order, `app/decoding/attempts.py` says.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from app.audio.stream import SAMPLE_RATE, Samples
from app.decoding import backends
from app.decoding.alignment import align
from app.decoding.attempts import TEMPERATURE_STEP, Attempt, attempts, best
from app.decoding.context import FULL, EncoderContext, for_detection, ladder
from app.decoding.cues import fit
from app.decoding.decoded import TIMESTAMP_SECONDS, Decoded, Token
from app.decoding.engine_build import describe
from app.decoding.heads import Shape, alignment_heads
from app.decoding.hypothesis import EXTRA_TOKENS, Hypothesis
from app.decoding.language_probe import LanguageProbe, LanguageWatch, confined
from app.decoding.prompt import PromptEncoder
from app.decoding.raw_decoder import RawDecoder, RawDecoderError, attach
from app.decoding.sound import Sound
from app.decoding.timestamps import LONG_SECONDS, Vocabulary, place
from app.decoding.tokens import SegmentBuilder
from app.decoding.transcriber import DecodeOptions, EngineAborted, EngineError, ModelInfo

# libgomp reads its environment when it is loaded, so this stands before the import. With as many
# threads as processors and one busy neighbour, the default (spin a long time at every barrier) made
# a 3 s command 5 to 15 times slower, 1,000 spins 2 times, and alone it costs nothing; waiting
# passively costs half again as much alone. Figures in docs/lab-book.md.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import _pywhispercpp as pw

MIN_SAMPLES = SAMPLE_RATE
"""Shorter windows are padded with silence: whisper.cpp ignores what is under 0.1 s and reads out of
bounds under about 200 samples, and Whisper was not trained on fragments."""

_BEST_OF = 5
"""Samples drawn at each temperature above 0; openai/whisper's default."""

_SPARE_TOKENS = 2
"""whisper_full counts from 0, and ends in order only where it is stopped before its last token."""

_ERROR_LEVEL = 4
"""GGML_LOG_LEVEL_ERROR of ggml.h."""

_DETECTED = re.compile(r"auto-detected language: \w+ \(p = ([0-9.]+)\)")
"""The only place where whisper.cpp tells how sure it is."""

_log = structlog.get_logger("engine")


class _OtherLanguage(Exception):
    """The window is in another language than the one it was decoded in."""


@dataclass(frozen=True, slots=True)
class _Way:
    """How the model is loaded: with flash attention, or with alignment, or with neither."""

    flash: bool
    aligned: bool = False


class Engine:
    """A loaded model.

    `path` must have been verified (`app/model_files/catalog.py`): whisper.cpp crashes on a corrupt
    file. Raises `EngineError` if whisper.cpp cannot load it, `OSError` if it cannot be opened.
    """

    def __init__(self, path: Path, name: str, threads: int, context: EncoderContext) -> None:
        self._threads = threads
        self._setting = context
        self._aborting = False
        self._errors: list[str] = []
        self._detected_probability: float | None = None
        self._handle: Any = None
        self._probe: LanguageProbe | None = None
        self._probe_warned = False
        self._watch: LanguageWatch | None = None
        self._raw: RawDecoder | None = None
        self._raw_fault = ""
        self._usual = _Way(flash=ladder(1.0, context)[0] >= FULL)
        """For short windows: flash attention where all take the whole encoder."""
        self._way = self._usual
        # By descriptor, so that loading again finds the bytes that were verified, whatever happens
        # to the name meanwhile.
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # A Python callback left installed aborts the process at its end (status 134), also where
        # an exception ended it.
        atexit.register(pw.whisper_log_set, None)
        pw.whisper_log_set(self._take_log)
        try:
            backends.load(Path(pw.__file__))
            self._load(self._usual)
        except EngineError:
            self.close()
            raise
        self._first_timestamp = int(pw.whisper_token_beg(self._handle))
        self._end_of_text = int(pw.whisper_token_eot(self._handle))
        self._prompts = PromptEncoder(
            lambda token: bytes(pw.whisper_token_to_bytes(self._handle, token)),
            self._end_of_text,
            self._first_timestamp,
        )
        # whisper_full decodes at most this many tokens, text and timestamps, in one go.
        self._most_tokens = int(pw.whisper_model_n_text_ctx(self._handle)) // 2 - 4
        self._heads = alignment_heads(_shape(self._handle), name)
        self.info = _model_info(self._handle, name)

    def warm_up(self) -> None:
        """Touch what the first command would otherwise wait for: weights, buffers, threads.

        On the thread that transcribes: libgomp keeps a team of threads for each thread that ever
        used one, and once it counts more threads than cores none of them spins any more. Warmed up
        on the main thread, a command took 1.6 times as long (docs/lab-book.md, "Threads").
        """
        silence = np.zeros(MIN_SAMPLES, dtype=np.float32)
        attempt = Attempt(ladder(1.0, self._setting)[0], "", most_tokens=EXTRA_TOKENS)
        self._decode(silence, 1.0, DecodeOptions(), attempt)

    def transcribe(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        """Decode one window: float32, shape [n], 16 kHz, at most 30 s; any n from 0 up.

        Raises `EngineError` where whisper.cpp fails, `EngineAborted` after `abort()`.
        """
        seconds = len(samples) / SAMPLE_RATE
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if len(samples) < MIN_SAMPLES:
            samples = np.pad(samples, (0, MIN_SAMPLES - len(samples)))
        if options.language != "auto":
            return self._best(samples, seconds, options)
        expected = options.expected_language
        if expected is not None and self._language_probe() is not None:
            return self._expect(expected, samples, seconds, options)
        language, probability = self._detect(samples, seconds, options)
        carried = options.carried if expected in (None, language) else ""
        options = replace(options, language=language, carried=carried)
        hypothesis = self._best(samples, seconds, options)
        return replace(hypothesis, language_probability=probability)

    def _best(self, samples: Samples, seconds: float, options: DecodeOptions) -> Hypothesis:
        ways = attempts(seconds, options, self._setting, self._most_tokens)
        hypothesis = best(
            ways,
            seconds,
            lambda way: self._decode(samples, seconds, options, way),
            Sound(samples[: round(seconds * SAMPLE_RATE)]),
            options.only_sure,
        )
        return self._timed(hypothesis, samples, seconds, options)

    def _expect(
        self, expected: str, samples: Samples, seconds: float, options: DecodeOptions
    ) -> Hypothesis:
        """Decode in the `expected` language. Where the first encoder pass shows that another one is
        spoken, give up before the decoder has begun, and decode in that: one pass more."""
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
        """Nothing is to be decoded for now: be ready for a short window, and give memory back.

        A failure is for the next window to tell, which tries again.
        """
        if self._way != self._usual:
            with contextlib.suppress(EngineError):
                self._load(self._usual)

    def abort(self) -> None:
        """Make the decode in progress, and any later one, end soon. May be called on any thread."""
        self._aborting = True

    def close(self) -> None:
        """Free the model; the engine is of no use after."""
        self._free()
        pw.whisper_log_set(None)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _detect(
        self, samples: Samples, seconds: float, options: DecodeOptions
    ) -> tuple[str, float | None]:
        """The language of a window, of those in `options` if there are any, by one encoder pass of
        its own, with the model loaded as for its words."""
        among = options.languages
        # Detection has no context parameter: it runs at the one that the call before has set. This
        # call sets it and, at 0.1 s of audio, ends before the encoder.
        context = for_detection(seconds, self._setting)
        silence = np.zeros(MIN_SAMPLES, dtype=np.float32)
        params = self._parameters(DecodeOptions(), Attempt(context, ""))
        params.duration_ms = 100
        self._run(params, silence, options.words)
        params.duration_ms = 0
        params.language = "auto"
        params.detect_language = True
        self._detected_probability = None
        self._run(params, samples, options.words)
        probe = self._language_probe() if among else None
        if probe is not None:
            heard = confined(probe.read(), among)
            language = max(heard, key=heard.__getitem__)
            return language, heard[language]
        language = pw.whisper_lang_str(pw.whisper_full_lang_id(self._handle))
        if among and language not in among:
            return among[0], None
        return language, self._detected_probability

    def _language_probe(self) -> LanguageProbe | None:
        """Return the reader of all languages' probabilities; None, with one warning in the log, if
        this engine does not give them."""
        if self._probe is None and self._raw is not None:
            count = len(self.info.languages)
            self._probe = LanguageProbe(
                self._raw,
                pw.whisper_token_sot(self._handle),
                pw.whisper_token_lang(self._handle, 0),
                [pw.whisper_lang_str(index) for index in range(count)],
            )
        elif self._probe is None and self._handle is not None and not self._probe_warned:
            self._probe_warned = True
            _log.warning(
                "this engine reports only the most probable language; if that is not in"
                " --languages, the first language of the list is used",
                reason=self._raw_fault,
            )
        return self._probe

    def _hear(self) -> dict[str, float]:
        probe = self._language_probe()
        return {} if probe is None else probe.hear()

    def _after_pass(self) -> bool:
        """Called by whisper.cpp after each pass of encoder and decoder: whether to stop."""
        if self._aborting or self._watch is None:
            return self._aborting
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
        params = self._parameters(options, attempt)
        self._run(params, samples, options.words, reseed=attempt.temperature > 0)
        decoded = self._read()
        builder = SegmentBuilder(seconds, options.language, options.words)
        segments = builder.build(decoded)
        return Hypothesis(
            segments=segments,
            language=options.language,
            logprob=float(np.mean(builder.logprobs)) if builder.logprobs else 0.0,
            end=segments[-1].end if segments else seconds,
            limited=builder.count >= (params.max_tokens or self._most_tokens),
            encoder_context=attempt.context,
            decoded=decoded,
        )

    def _read(self) -> Decoded:
        """The tokens of the decode that whisper.cpp has just done."""
        tokens: list[Token] = []
        about: float | None = None
        for index in range(pw.whisper_full_n_segments(self._handle)):
            for position in range(pw.whisper_full_n_tokens(self._handle, index)):
                token = pw.whisper_full_get_token_data(self._handle, index, position)
                if token.id >= self._first_timestamp:
                    at = (token.id - self._first_timestamp) * TIMESTAMP_SECONDS
                    tokens.append(Token(token.id, at=at))
                elif token.id == self._end_of_text:
                    # `tid` is the timestamp that was the most probable in its place.
                    about = (token.tid - self._first_timestamp) * TIMESTAMP_SECONDS
                elif token.id < self._end_of_text:
                    text = pw.whisper_token_to_bytes(self._handle, token.id)
                    tokens.append(Token(token.id, text, token.plog, token.t_dtw / 100))
        return Decoded(tuple(tokens), about)

    def _timed(
        self, hypothesis: Hypothesis, samples: Samples, seconds: float, options: DecodeOptions
    ) -> Hypothesis:
        """`hypothesis` in segments that are short and beside their speech, its words in place. Its
        end stays but for words behind it, since the rest of the window may be decoded again from
        there."""
        segments = hypothesis.segments
        until = min(seconds, hypothesis.end)
        if self._raw is not None and any(
            segment.end - segment.start > LONG_SECONDS for segment in segments
        ):
            with contextlib.suppress(RawDecoderError):
                vocabulary = Vocabulary(self._start_of_text(options), self._first_timestamp)
                placed = place(
                    hypothesis.decoded.tokens, until, options.language, vocabulary, self._raw
                )
                builder = SegmentBuilder(until, options.language, options.words)
                segments = builder.build(Decoded(placed))
        moved = [word.end for segment in segments for word in segment.words or ()]
        segments = fit(segments, samples[: round(until * SAMPLE_RATE)])
        if not moved:
            return replace(hypothesis, segments=segments)
        # The words go where they were spoken, and take the ends of their segments with them.
        segments = align(segments, moved, samples[: round(seconds * SAMPLE_RATE)], self._heads.lag)
        return replace(hypothesis, segments=segments, end=max(hypothesis.end, segments[-1].end))

    def _start_of_text(self, options: DecodeOptions) -> tuple[int, ...]:
        """The tokens that whisper.cpp puts before any text."""
        start = int(pw.whisper_token_sot(self._handle))
        if not self.info.multilingual:
            return (start,)
        language = pw.whisper_token_lang(self._handle, pw.whisper_lang_id(options.language))
        translate, transcribe = pw.whisper_token_translate, pw.whisper_token_transcribe
        task = (translate if options.translate else transcribe)(self._handle)
        return start, int(language), int(task)

    def _run(
        self, params: Any, samples: Samples, aligned: bool = False, reseed: bool = False
    ) -> None:
        way = _Way(flash=params.audio_ctx >= FULL and not aligned, aligned=aligned)
        # There is no model where loading it again failed, for want of memory most likely.
        if self._handle is None or reseed or way != self._way:
            self._load(way)
        self._errors.clear()
        code = pw.whisper_full(self._handle, params, samples, len(samples))
        if self._aborting:
            raise EngineAborted
        if self._watch is not None and self._watch.changed:
            raise _OtherLanguage
        if code != 0:
            raise EngineError(f"whisper.cpp failed with code {code}: {self._last_error()}")

    def _parameters(self, options: DecodeOptions, attempt: Attempt) -> Any:
        params = pw.whisper_full_default_params(pw.WHISPER_SAMPLING_GREEDY)
        params.n_threads = self._threads
        params.language = options.language
        params.detect_language = False
        params.translate = options.translate
        params.no_context = True
        params.set_prompt_tokens(
            self._prompts.encode(
                attempt.prompt, attempt.carried, attempt.prompt_tokens, attempt.context < FULL
            )
        )
        params.audio_ctx = attempt.context
        # One segment, whose timestamps are read from its tokens: whisper.cpp would otherwise run
        # the encoder once more on whatever lies behind the last timestamp.
        params.single_segment = True
        pw.assign_encoder_begin_callback(params, _once())
        params.no_timestamps = False
        params.token_timestamps = False
        params.temperature = attempt.temperature
        params.temperature_inc = TEMPERATURE_STEP if attempt.rising else 0.0
        params.greedy = {"best_of": _BEST_OF if attempt.temperature > 0 else 1}
        params.suppress_blank = True
        # A decode that is cut off at the model's own limit is aligned only up to its last
        # timestamp, and whisper.cpp aborts the process where that leaves less than 0.16 s.
        most = self._most_tokens - (_SPARE_TOKENS if options.words else 0)
        params.max_tokens = min(attempt.most_tokens or most, most)
        params.print_progress = False
        params.print_realtime = False
        params.print_special = False
        params.print_timestamps = False
        pw.assign_abort_callback(params, self._after_pass)
        return params

    def _load(self, way: _Way) -> None:
        """Load the model, anew if it was loaded: the random generator starts from its seed.

        With flash attention whisper.cpp rounds the context up to a multiple of 256 and attends,
        unmasked, to rows that it does not write: to what an earlier request left there. What lies
        behind the whole encoder nobody ever writes. Without it that takes 75 MiB more.
        """
        self._free()
        self._errors.clear()
        self._way = way
        params = pw.whisper_context_default_params()
        params.flash_attn = way.flash
        if way.aligned:
            params.dtw_token_timestamps = True
            params.dtw_aheads_preset = getattr(pw, f"WHISPER_AHEADS_{self._heads.preset}")
            params.dtw_n_top = self._heads.top_layers
        path = f"/proc/self/fd/{self._file}"
        context = pw.whisper_init_from_file_with_params(path, params)
        # The binding wraps a null pointer as if it were a context; only the log tells.
        if self._errors:
            raise EngineError(f"whisper.cpp cannot load the model: {self._last_error()}")
        self._handle = context
        try:
            self._raw = attach(pw, context, self._threads)
        except RawDecoderError as error:
            self._raw_fault = str(error)
            _log.warning(
                "long segments are split without the decoder's help", reason=self._raw_fault
            )

    def _free(self) -> None:
        self._probe = None
        if self._handle is not None:
            self._raw = None
            pw.whisper_free(self._handle)
            self._handle = None

    def _last_error(self) -> str:
        return self._errors[-1] if self._errors else "it gave no reason"

    def _take_log(self, level: int, text: str) -> None:
        # Called from within whisper.cpp, which no exception may cross.
        try:
            line = text.strip()
            if level == _ERROR_LEVEL:
                self._errors.append(line)
            if found := _DETECTED.search(line):
                self._detected_probability = float(found[1])
            if line:
                _log.debug("whisper.cpp", line=line)
        except Exception:
            pass


def _once() -> Callable[[Any], bool]:
    """True when called the first time."""
    answers = iter((True,))
    return lambda _context: next(answers, False)


def _shape(context: Any) -> Shape:
    return Shape(
        layers=int(pw.whisper_model_n_text_layer(context)),
        heads=int(pw.whisper_model_n_text_head(context)),
        mels=int(pw.whisper_model_n_mels(context)),
        multilingual=bool(pw.whisper_is_multilingual(context)),
    )


def _model_info(context: Any, name: str) -> ModelInfo:
    if not pw.whisper_is_multilingual(context):
        return ModelInfo(name, False, frozenset({"en"}))
    # As whisper.cpp counts them: what the vocabulary has beyond the 51,765 tokens of the
    # English-only models without languages, less one. 99, and Cantonese since large-v3.
    count = pw.whisper_model_n_vocab(context) - 51_765 - 1
    languages = frozenset(pw.whisper_lang_str(index) for index in range(count))
    return ModelInfo(name, True, languages)


def system_info() -> str:
    """Which instructions the engine was built for, as whisper.cpp says it."""
    return str(pw.whisper_print_system_info()).strip()


def build() -> str:
    """Where the engine comes from, in a few words, and which of its CPU libraries is in use."""
    chosen = backends.load(Path(pw.__file__))
    return describe(Path(pw.__file__)) + (f", {chosen}" if chosen else "")
