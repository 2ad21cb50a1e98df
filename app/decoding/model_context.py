"""The model in whisper.cpp: loaded, loaded again for another kind of decode, run, and freed.

The model is loaded again whenever its load mode has to change. Flash attention reads beyond a
reduced context into rows that earlier audio left, so it serves the whole encoder only, where it
saves a third of the memory. whisper.cpp's alignment of words, which excludes it, serves requests
with word times. whisper.cpp seeds its first decoder's random generator at load only, so sampling
above temperature 0 begins with a fresh context. One thread at a time: two on one whisper.cpp
context crash.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from app.audio.stream import Samples
from app.decoding import allocator, backends, engine_log
from app.decoding.binding import pw
from app.decoding.context import REDUCED_PROMPT_TOKENS
from app.decoding.decoded import TIMESTAMP_SECONDS, Decoded, Token
from app.decoding.heads import Shape, alignment_heads
from app.decoding.language_probe import LanguageProbe
from app.decoding.mel import FRAME_MILLISECONDS, read_filters
from app.decoding.raw_decoder import RawDecoder, RawDecoderError, attach
from app.decoding.stop_flag import StopFlag
from app.decoding.transcriber import DecodeOptions, EngineError, ModelInfo

_ERROR_LEVEL = 4
"""GGML_LOG_LEVEL_ERROR of ggml.h."""

_DETECTED = re.compile(r"auto-detected language: \w+ \(p = ([0-9.]+)\)")
"""The only place in which whisper.cpp reports the probability of the detected language."""

_log = structlog.get_logger("engine")


@dataclass(frozen=True, slots=True)
class LoadMode:
    """A way to load the model: with flash attention, or with alignment, or with neither."""

    flash: bool
    aligned: bool = False


class ModelContext:
    """The model at `path`, loaded as `usual`. Raises `EngineError` if whisper.cpp cannot load it,
    `OSError` if it cannot be opened."""

    def __init__(self, path: Path, name: str, threads: int, usual: LoadMode) -> None:
        self.threads = threads
        """The threads of a run."""
        self._usual = usual
        self._mode = usual
        self._grown = False
        """Whether a run since the last rest has needed more memory than a short command."""
        self._errors: list[str] = []
        self._probe: LanguageProbe | None = None
        self._probe_warned = False
        self._raw_fault = ""
        self.stop = StopFlag()
        """Stops a pass in progress, also after the model has been loaded again."""
        self.raw: RawDecoder | None = None
        """Direct access to the decoder; None if this build of the engine does not allow it."""
        self.detected_probability: float | None = None
        """Probability of the language that whisper.cpp detected last; None if unknown."""
        self.handle: Any = None
        """The binding's context; None if loading it failed."""
        # By descriptor, so that loading again finds the bytes that were verified, whatever happens
        # to the name meanwhile.
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        engine_log.attach(self._take_log, pw.whisper_log_set)
        try:
            backends.load(Path(pw.__file__))
            self.load(usual)
        except EngineError:
            self.close()
            raise
        self.first_timestamp = int(pw.whisper_token_beg(self.handle))
        self.end_of_text = int(pw.whisper_token_eot(self.handle))
        # whisper_full decodes at most this many tokens, text and timestamps, in one run.
        self.most_tokens = int(pw.whisper_model_n_text_ctx(self.handle)) // 2 - 4
        self._filters = read_filters(self._file)
        self.heads = alignment_heads(_shape(self.handle), name)
        self.info = _model_info(self.handle, name)

    def load(self, mode: LoadMode) -> None:
        """Load the model, again if it was loaded: the random generator starts from its seed. Raises
        `EngineError`.

        With flash attention whisper.cpp rounds the context up to a multiple of 256 and attends,
        unmasked, to rows that it does not write, which hold an earlier request's data. Nothing
        writes past the full context, so that padding stays clean. Without flash attention the whole
        encoder takes 75 MiB more.
        """
        self._free()
        # The new context then does not begin with blocks that the old one has filled.
        allocator.trim()
        engine_log.enter(self._take_log)
        self._errors.clear()
        self._mode = mode
        params = pw.whisper_context_default_params()
        params.flash_attn = mode.flash
        if mode.aligned:
            params.dtw_token_timestamps = True
            params.dtw_aheads_preset = getattr(pw, f"WHISPER_AHEADS_{self.heads.preset}")
            params.dtw_n_top = self.heads.top_layers
        path = f"/proc/self/fd/{self._file}"
        with allocator.lasting_blocks():
            context = pw.whisper_init_from_file_with_params(path, params)
        # The binding wraps a null pointer as if it were a context; only the log shows the failure.
        if self._errors:
            raise EngineError(f"whisper.cpp cannot load the model: {self.last_error}")
        self.handle = context
        try:
            self.raw = attach(pw, context, self.threads)
            self.raw.read_flag(self.stop)
        except RawDecoderError as error:
            self._raw_fault = str(error)
            _log.warning(
                "long segments are split without the decoder's help", reason=self._raw_fault
            )

    def use_threads(self, threads: int) -> None:
        """Use `threads` from now on, also for the decoder's own steps."""
        self.threads = threads
        if self.raw is not None:
            self.raw.threads = threads

    def prepare(self, mode: LoadMode, reseed: bool = False) -> None:
        """Load the model again if it is not loaded in `mode`, or to `reseed` the random generator.
        Raises `EngineError`."""
        self._grown = self._grown or reseed or mode != self._usual
        # There is no context if loading it again failed, most likely for want of memory.
        if self.handle is None or reseed or mode != self._mode:
            self.load(mode)

    def prepare_usual(self) -> None:
        """Load the model as it was at first, if a run has changed its mode or needed much memory.
        Raises `EngineError`."""
        if self._mode != self._usual or self._grown:
            self._grown = False
            self.load(self._usual)

    def run(self, params: Any, samples: Samples) -> int:
        """Run whisper.cpp on at least 1 s of samples, float32, shape [n], 16 kHz; return its code,
        0 for success."""
        engine_log.enter(self._take_log)
        self._errors.clear()
        self._grown = self._grown or params.prompt_n_tokens > REDUCED_PROMPT_TOKENS
        frames = self._set_spectrogram(samples, params.audio_ctx)
        # whisper.cpp takes the spectrogram's length for the audio's unless it is told another.
        params.duration_ms = params.duration_ms or frames * FRAME_MILLISECONDS
        return int(pw.whisper_full(self.handle, params, samples[:0], 0))

    def close(self) -> None:
        """Free the model; the context is of no use afterwards."""
        self._free()
        engine_log.detach(self._take_log, pw.whisper_log_set)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def last_error(self) -> str:
        """The last error in whisper.cpp's log since `run` or `load`."""
        return self._errors[-1] if self._errors else "it gave no reason"

    def token_bytes(self, token: int) -> bytes:
        """Return the text of a token, UTF-8 of whole or partial characters."""
        return bytes(pw.whisper_token_to_bytes(self.handle, token))

    def start_of_text(self, options: DecodeOptions) -> tuple[int, ...]:
        """Return the tokens that whisper.cpp puts before any text."""
        start = int(pw.whisper_token_sot(self.handle))
        if not self.info.multilingual:
            return (start,)
        language = pw.whisper_token_lang(self.handle, pw.whisper_lang_id(options.language))
        translate, transcribe = pw.whisper_token_translate, pw.whisper_token_transcribe
        task = (translate if options.translate else transcribe)(self.handle)
        return start, int(language), int(task)

    def detected_language(self) -> str:
        """Return the code of the language that the last run detected."""
        return str(pw.whisper_lang_str(pw.whisper_full_lang_id(self.handle)))

    def decoded(self) -> Decoded:
        """Return the tokens of the last run."""
        tokens: list[Token] = []
        about: float | None = None
        for index in range(pw.whisper_full_n_segments(self.handle)):
            for position in range(pw.whisper_full_n_tokens(self.handle, index)):
                token = pw.whisper_full_get_token_data(self.handle, index, position)
                if token.id >= self.first_timestamp:
                    at = (token.id - self.first_timestamp) * TIMESTAMP_SECONDS
                    tokens.append(Token(token.id, at=at))
                elif token.id == self.end_of_text:
                    # `tid` is the most probable timestamp at its position.
                    about = (token.tid - self.first_timestamp) * TIMESTAMP_SECONDS
                elif token.id < self.end_of_text:
                    text = pw.whisper_token_to_bytes(self.handle, token.id)
                    tokens.append(Token(token.id, text, token.plog, token.t_dtw / 100))
        return Decoded(tuple(tokens), about)

    def language_probe(self) -> LanguageProbe | None:
        """Return the reader of all languages' probabilities; None, with one warning in the log, if
        this engine does not give them."""
        if self._probe is None and self.raw is not None:
            count = len(self.info.languages)
            self._probe = LanguageProbe(
                self.raw,
                pw.whisper_token_sot(self.handle),
                pw.whisper_token_lang(self.handle, 0),
                [pw.whisper_lang_str(index) for index in range(count)],
            )
        elif self._probe is None and self.handle is not None and not self._probe_warned:
            self._probe_warned = True
            _log.warning(
                "this engine reports only the most probable language; if that is not in"
                " --languages, the first language of the list is used",
                reason=self._raw_fault,
            )
        return self._probe

    def _set_spectrogram(self, samples: Samples, positions: int) -> int:
        """Give whisper.cpp the window's spectrogram; return the number of frames within it."""
        mel, frames = self._filters.spectrogram(samples, positions)
        pw.whisper_set_mel(self.handle, mel, mel.shape[1], len(mel))
        return frames

    def _free(self) -> None:
        self._probe = None
        if self.handle is not None:
            self.raw = None
            pw.whisper_free(self.handle)
            self.handle = None

    def _take_log(self, level: int, text: str) -> None:
        # Called from within whisper.cpp, which no exception may cross.
        try:
            line = text.strip()
            if level == _ERROR_LEVEL:
                self._errors.append(line)
            if found := _DETECTED.search(line):
                self.detected_probability = float(found[1])
            if line:
                _log.debug("whisper.cpp", line=line)
        except Exception:
            pass


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
    # As whisper.cpp counts them: the tokens beyond the 51,765 of the English-only models without
    # languages, less one. 99, and Cantonese since large-v3.
    count = pw.whisper_model_n_vocab(context) - 51_765 - 1
    languages = frozenset(pw.whisper_lang_str(index) for index in range(count))
    return ModelInfo(name, True, languages)
