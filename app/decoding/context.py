"""The number of encoder positions that a window needs.

Whisper's encoder always computes 30 s, 1,500 positions of 20 ms, and takes three quarters of the
time of a spoken command. whisper.cpp can compute fewer positions (`audio_ctx`), at a nearly
proportional cost. But the model was trained on 30 s, and with too few positions after the end of
speech its decoder loops or stops early. `contexts_to_try` returns the numbers of positions to try
for a window, one after the other; `app/decoding/faults.py` decides whether a result is plausible or
the next context is needed. Pure. Evidence: docs/lab-book.md ("Encoder context").
"""

from __future__ import annotations

import math
from typing import Literal

from app.decoding.prompt import MOST_TOKENS

EncoderContext = Literal["auto", "full"] | int
"""The setting: `auto`, `full`, or a fixed number of positions."""

FULL = 1_500
"""Positions of the whole encoder, for every Whisper model (n_audio_ctx)."""

POSITIONS_PER_SECOND = 50

FLOOR, MARGIN = 256, 128
"""Positions of the first context: at least FLOOR, of which MARGIN (2.6 s) follow the end of speech.
With the rules of `app/decoding/faults.py` the errors are those of the whole encoder, within
one, at 0.15 of its time in the median (docs/lab-book.md, "Encoder context")."""

WIDER_FLOOR, WIDER_MARGIN = 448, 320
"""Positions of the second context, for a result that `judge` rejects in the first. It repairs five
of six rejected clips at a third of the whole encoder's time, and lowers the 95th percentile of
that time from 1.13 to 0.45."""

REDUCED_PROMPT_TOKENS = 27
"""Tokens of a prompt in a reduced decode: its last 24 tokens, and 3 timestamps. They add a fifth to
the processor time of the shortest window, because whisper.cpp computes the probabilities of the
whole vocabulary for each. A longer prompt also causes errors (docs/lab-book.md, "Prompts")."""

MULTIPLE = 16
"""A reduced context is rounded up to a multiple of this. tinyBLAS multiplies blocks of 16 positions
with AVX-512, of 8 with AVX2 and on ARM. Other contexts take ggml's slow product, and a command of
3 s then takes a third more processor time (docs/lab-book.md, "Contexts in blocks")."""

LONGEST_SECONDS = 12.0
"""Longest window, in seconds, with a reduced context. On long recordings a reduced context doubles
the errors, and the repeated windows take more time than it saves (docs/lab-book.md, "Encoder
context")."""


MOST_FOR_DETECTION = 448
"""Positions that suffice for a language detection: the first 9 s. They take a fifth of the whole
encoder's processor time, without further errors (docs/lab-book.md, "Language detection")."""


def contexts_to_try(seconds: float, setting: EncoderContext) -> tuple[int, ...]:
    """Return the positions to try for a window of `seconds`: rising, from 1 on, the last FULL."""
    needed = math.ceil(POSITIONS_PER_SECOND * seconds)
    if setting == "full" or (setting == "auto" and seconds > LONGEST_SECONDS):
        return (FULL,)
    if setting == "auto":
        first = _whole_blocks(max(FLOOR, needed + MARGIN))
        contexts = [first, _whole_blocks(max(WIDER_FLOOR, needed + WIDER_MARGIN))]
    else:
        # A fixed number must still cover the whole window.
        contexts = [max(setting, needed)]
    return (*(context for context in contexts if context < FULL), FULL)


def for_partial(seconds: float, setting: EncoderContext) -> int:
    """Return the positions for a beginning of `seconds` of a longer window: reduced also where the
    window itself gets the whole encoder, because its text is decoded again."""
    if setting != "auto":
        return contexts_to_try(seconds, setting)[0]
    needed = math.ceil(POSITIONS_PER_SECOND * seconds)
    return min(FULL, _whole_blocks(max(FLOOR, needed + MARGIN)))


def most_prompt_tokens(context: int) -> int:
    """Return the number of tokens that a decode at `context` positions reads of a prompt."""
    return MOST_TOKENS if context >= FULL else REDUCED_PROMPT_TOKENS


def for_detection(seconds: float, setting: EncoderContext) -> int:
    """Return the positions for detecting the language of a window of `seconds`."""
    first = contexts_to_try(seconds, setting)[0]
    return min(first, MOST_FOR_DETECTION) if setting == "auto" else first


def _whole_blocks(positions: int) -> int:
    return math.ceil(positions / MULTIPLE) * MULTIPLE
