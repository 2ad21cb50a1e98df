"""One window of speech in, one hypothesis out: the only module that imports pywhispercpp.

It uses that package's binding `_pywhispercpp` rather than its `Model`: the binding gives
`whisper_full`'s return code, which `Model` throws away, so that a failure cannot pass for silence,
and it does not import requests, tqdm and platformdirs into a program that has no use for them.

One thread owns an `Engine` (the worker): two on one whisper.cpp context crash. Every parameter that
matters is set anew for every decode, on a fresh parameter object, so nothing is carried from one
call to the next. whisper.cpp itself carries one thing, the random generator of its first decoder,
which it seeds at load only and uses when sampling at a temperature above 0. That is a last resort
here, and it loads the model again first, so that no result depends on what ran before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from app.audio import SAMPLE_RATE, Samples
from app.hypothesis import Hypothesis, confidence, fault
from app.messages import Segment, Word
from app.transcriber import DecodeOptions, EngineAborted, EngineError, ModelInfo

# libgomp reads its environment when it is loaded, so this stands before the import. With as many
# threads as processors and one busy neighbour, the default (spin a long time at every barrier) made
# a 3 s command 5 to 15 times slower, 1,000 spins 2 times, and alone it costs nothing; waiting
# passively costs half again as much alone. Figures in docs/benchmarks.md.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import _pywhispercpp as pw

MIN_SAMPLES = SAMPLE_RATE
"""Shorter windows are padded with silence: whisper.cpp ignores what is under 0.1 s and reads out of
bounds under about 200 samples, and Whisper was not trained on fragments."""

_TIMESTAMP_SECONDS = 0.02
"""One step of Whisper's timestamp tokens."""

_BEST_OF = 5
"""Samples drawn at each temperature above 0; openai/whisper's default."""

_TEMPERATURE_STEP = 0.2

_LOG_LEVELS = {3: "warning", 4: "error"}
"""ggml.h: GGML_LOG_LEVEL_WARN and GGML_LOG_LEVEL_ERROR; the rest is debug to us."""

_log = structlog.get_logger("engine")


class Engine:
    """A loaded model.

    `path` must have been verified (`app/catalog.py`): whisper.cpp crashes on a corrupt file.
    Raises `EngineError` if whisper.cpp cannot load it.
    """

    def __init__(self, path: Path, name: str, threads: int) -> None:
        self._threads = threads
        self._aborting = False
        self._errors: list[str] = []
        # By descriptor, so that loading again finds the bytes that were verified, whatever happens
        # to the name meanwhile.
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        pw.whisper_log_set(self._take_log)
        try:
            self._context = self._load()
        except EngineError:
            self.close()
            raise
        self._first_timestamp = int(pw.whisper_token_beg(self._context))
        self._end_of_text = int(pw.whisper_token_eot(self._context))
        # whisper_full decodes at most this many tokens, text and timestamps, in one go.
        self._most_tokens = int(pw.whisper_model_n_text_ctx(self._context)) // 2 - 4
        self.info = _model_info(self._context, name)

    def transcribe(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        """Decode one window: float32, shape [n], 16 kHz, at most 30 s; any n from 0 up.

        Raises `EngineError` where whisper.cpp fails, `EngineAborted` after `abort()`.
        """
        seconds = len(samples) / SAMPLE_RATE
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if len(samples) < MIN_SAMPLES:
            samples = np.pad(samples, (0, MIN_SAMPLES - len(samples)))
        best: Hypothesis | None = None
        for attempt in self._attempts(options):
            hypothesis = _clip(attempt(samples), seconds)
            reason = fault(hypothesis)
            if reason is None:
                return hypothesis
            _log.debug("decoding again", reason=reason, logprob=round(hypothesis.logprob, 2))
            if best is None or reason != "repetition":
                best = hypothesis
        assert best is not None
        return best

    def abort(self) -> None:
        """Make the decode in progress, and any later one, end soon. May be called on any thread."""
        self._aborting = True

    def close(self) -> None:
        """Free the model. Its log callback must be gone before the interpreter is: it would abort
        the process (status 134)."""
        pw.whisper_log_set(None)
        if hasattr(self, "_context"):
            pw.whisper_free(self._context)
            del self._context
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _attempts(self, options: DecodeOptions) -> Iterator[Callable[[Samples], Hypothesis]]:
        yield lambda samples: self._decode(samples, options, sampling=False)
        if options.prompt:
            # What came before is the usual reason for a loop: first do without it.
            bare = replace(options, prompt="")
            yield lambda samples: self._decode(samples, bare, sampling=False)
        yield lambda samples: self._sample(samples, replace(options, prompt=""))

    def _sample(self, samples: Samples, options: DecodeOptions) -> Hypothesis:
        pw.whisper_free(self._context)
        del self._context
        self._context = self._load()
        return self._decode(samples, options, sampling=True)

    def _decode(self, samples: Samples, options: DecodeOptions, sampling: bool) -> Hypothesis:
        params = self._parameters(options, sampling)
        self._errors.clear()
        code = pw.whisper_full(self._context, params, samples, len(samples))
        if self._aborting:
            raise EngineAborted
        if code != 0:
            raise EngineError(f"whisper.cpp failed with code {code}: {self._last_error()}")
        return self._hypothesis(len(samples) / SAMPLE_RATE, options.words)

    def _parameters(self, options: DecodeOptions, sampling: bool) -> Any:
        params = pw.whisper_full_default_params(pw.WHISPER_SAMPLING_GREEDY)
        params.n_threads = self._threads
        params.language = options.language
        params.detect_language = False
        params.translate = options.translate
        params.no_context = True
        params.initial_prompt = options.prompt
        params.audio_ctx = 0
        # One segment, whose timestamps are read from its tokens: whisper.cpp would otherwise run
        # the encoder once more on whatever lies behind the last timestamp.
        params.single_segment = True
        params.no_timestamps = False
        params.token_timestamps = options.words
        params.temperature = _TEMPERATURE_STEP if sampling else 0.0
        params.temperature_inc = _TEMPERATURE_STEP if sampling else 0.0
        params.greedy = {"best_of": _BEST_OF if sampling else 1}
        params.suppress_blank = True
        params.max_tokens = 0
        params.print_progress = False
        params.print_realtime = False
        params.print_special = False
        params.print_timestamps = False
        pw.assign_abort_callback(params, lambda: self._aborting)
        return params

    def _hypothesis(self, seconds: float, words: bool) -> Hypothesis:
        pieces = _Pieces(seconds, words)
        for index in range(pw.whisper_full_n_segments(self._context)):
            for position in range(pw.whisper_full_n_tokens(self._context, index)):
                token = pw.whisper_full_get_token_data(self._context, index, position)
                if token.id >= self._first_timestamp:
                    pieces.timestamp((token.id - self._first_timestamp) * _TIMESTAMP_SECONDS)
                elif token.id < self._end_of_text:
                    text = pw.whisper_token_to_bytes(self._context, token.id)
                    pieces.token(text, token.plog, token.t0 / 100, token.t1 / 100)
        segments = pieces.finish()
        language = pw.whisper_lang_str(pw.whisper_full_lang_id(self._context))
        if not self.info.multilingual:
            language = "en"
        logprob = sum(pieces.logprobs) / len(pieces.logprobs) if pieces.logprobs else 0.0
        end = segments[-1].end if segments else seconds
        return Hypothesis(segments, language, logprob, end, pieces.count >= self._most_tokens)

    def _load(self) -> Any:
        self._errors.clear()
        params = pw.whisper_context_default_params()
        context = pw.whisper_init_from_file_with_params(f"/proc/self/fd/{self._file}", params)
        # The binding wraps a null pointer as if it were a context; only the log tells.
        if self._errors:
            raise EngineError(f"whisper.cpp cannot load the model: {self._last_error()}")
        return context

    def _last_error(self) -> str:
        return self._errors[-1] if self._errors else "it gave no reason"

    def _take_log(self, level: int, text: str) -> None:
        # Called from within whisper.cpp: nothing may be raised here.
        try:
            line = text.strip()
            if level == 4:
                self._errors.append(line)
                del self._errors[:-10]
            if line:
                _log.debug("whisper.cpp", line=line, level_there=_LOG_LEVELS.get(level, "info"))
        except Exception:
            pass


class _Pieces:
    """Puts tokens together into segments and words, as they come."""

    def __init__(self, seconds: float, with_words: bool) -> None:
        self._seconds = seconds
        self._with_words = with_words
        self._segments: list[Segment] = []
        self._start = 0.0
        self._text = bytearray()
        self._logprobs: list[float] = []
        self._words: list[tuple[bytearray, float, float, list[float]]] = []
        self.logprobs: list[float] = []
        self.count = 0

    def timestamp(self, at: float) -> None:
        self.count += 1
        self._close(at)
        self._start = at

    def token(self, text: bytes, logprob: float, start: float, end: float) -> None:
        self.count += 1
        if not self._words or text[:1] == b" ":
            self._words.append((bytearray(), start, end, []))
        word, begun, _, logprobs = self._words[-1]
        word += text
        logprobs.append(logprob)
        self._words[-1] = (word, begun, end, logprobs)
        self._text += text
        self._logprobs.append(logprob)
        self.logprobs.append(logprob)

    def finish(self) -> tuple[Segment, ...]:
        self._close(self._seconds)
        return tuple(self._segments)

    def _close(self, end: float) -> None:
        text = self._text.decode(errors="replace").strip()
        if text:
            end = max(end, self._start)
            words = tuple(self._finish_words(end)) if self._with_words else None
            segment = Segment(self._start, end, text, confidence(self._logprobs), words)
            self._segments.append(segment)
        self._text.clear()
        self._logprobs = []
        self._words = []

    def _finish_words(self, segment_end: float) -> Iterator[Word]:
        # whisper.cpp's token times know nothing of where our segments end: keep them inside.
        earliest = self._start
        for text, start, end, logprobs in self._words:
            begin = min(max(start, earliest), segment_end)
            finish = min(max(end, begin), segment_end)
            earliest = begin
            word = text.decode(errors="replace").strip()
            if word:
                yield Word(begin, finish, word, confidence(logprobs))


def _clip(hypothesis: Hypothesis, seconds: float) -> Hypothesis:
    """Times of a padded window end where its audio did."""

    def clip_word(word: Word) -> Word:
        return replace(word, start=min(word.start, seconds), end=min(word.end, seconds))

    def clip_segment(segment: Segment) -> Segment:
        words = segment.words and tuple(clip_word(word) for word in segment.words)
        start, end = min(segment.start, seconds), min(segment.end, seconds)
        return replace(segment, start=start, end=end, words=words)

    segments = tuple(clip_segment(segment) for segment in hypothesis.segments)
    return replace(hypothesis, segments=segments, end=min(hypothesis.end, seconds))


def _model_info(context: Any, name: str) -> ModelInfo:
    multilingual = bool(pw.whisper_is_multilingual(context))
    if not multilingual:
        return ModelInfo(name, False, frozenset({"en"}))
    # large-v3 added Cantonese as the hundredth; older vocabularies have one language token less.
    count = pw.whisper_model_n_vocab(context) - 51_765 - 1
    languages = frozenset(pw.whisper_lang_str(index) for index in range(count))
    return ModelInfo(name, True, languages)


def system_info() -> str:
    """Which instructions the engine was built for, as whisper.cpp says it."""
    return str(pw.whisper_print_system_info()).strip()
