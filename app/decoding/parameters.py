"""The parameters of one run of whisper.cpp. Worker thread.

Every parameter that matters is set on a fresh object, so that nothing is carried from one run to
the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from app.decoding.attempts import TEMPERATURE_STEP, Attempt
from app.decoding.binding import pw
from app.decoding.transcriber import DecodeOptions

_BEST_OF = 5
"""Samples drawn at each temperature above 0; openai/whisper's default."""

_SPARE_TOKENS = 2
"""`whisper_full` counts from 0, and ends in order only if it is stopped before its last token."""


def parameters(
    options: DecodeOptions,
    attempt: Attempt,
    prompt: Sequence[int],
    threads: int,
    most_tokens: int,
    after_pass: Callable[[], bool],
) -> Any:
    """Return the parameters of one attempt.

    `prompt` is in tokens, and `most_tokens` is the most that the model decodes in one run.
    whisper.cpp calls `after_pass` after each pass of encoder and decoder, and stops if it is True.
    """
    params = pw.whisper_full_default_params(pw.WHISPER_SAMPLING_GREEDY)
    params.n_threads = threads
    params.language = options.language
    params.detect_language = False
    params.translate = options.translate
    params.no_context = True
    params.set_prompt_tokens(list(prompt))
    params.audio_ctx = attempt.context
    # One segment, whose timestamps are read from its tokens: whisper.cpp would otherwise run the
    # encoder once more on the audio after the last timestamp.
    params.single_segment = True
    pw.assign_encoder_begin_callback(params, _once())
    params.no_timestamps = False
    params.token_timestamps = False
    params.temperature = attempt.temperature
    params.temperature_inc = TEMPERATURE_STEP if attempt.rising else 0.0
    params.greedy = {"best_of": _BEST_OF if attempt.temperature > 0 else 1}
    params.suppress_blank = True
    # A decode that is cut off at the model's own limit is aligned only up to its last timestamp,
    # and whisper.cpp aborts the process if that leaves less than 0.16 s.
    most = most_tokens - (_SPARE_TOKENS if options.words else 0)
    params.max_tokens = min(attempt.most_tokens or most, most)
    params.print_progress = False
    params.print_realtime = False
    params.print_special = False
    params.print_timestamps = False
    pw.assign_abort_callback(params, after_pass)
    return params


def _once() -> Callable[[Any], bool]:
    """Return a function that returns True on its first call only."""
    answers = iter((True,))
    return lambda _context: next(answers, False)
