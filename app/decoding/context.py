"""How much of the encoder a window needs.

Whisper's encoder works on 30 s, 1,500 positions of 20 ms, whatever is in them, and takes three
quarters of the time of a spoken command. whisper.cpp can be told to compute fewer (`audio_ctx`).
Cost is nearly linear in it; but the model was trained on 30 s, and with too few positions behind
the end of speech its decoder loops or stops early. `ladder` says which numbers of positions to try
for a window, one after the other; whether a result is to be believed, or the next rung is needed,
is for `app/decoding/hypothesis.py` to say. Pure. More evidence is in docs/lab-book.md ("Encoder
context").
"""

from __future__ import annotations

import math
from typing import Literal

from app.decoding.prompt import MOST_TOKENS

EncoderContext = Literal["auto", "full"] | int
"""`auto`, `full`, or a fixed number of positions."""

FULL = 1_500
"""Positions of the whole encoder, for every Whisper model (n_audio_ctx)."""

POSITIONS_PER_SECOND = 50

FLOOR, MARGIN = 256, 128
"""The first rung: at least FLOOR positions, MARGIN (2.6 s) of them behind the end of speech. With
tiny.en on 66 clips of up to 12 s (622 words) and the guard of `app/decoding/hypothesis.py`: 30
errors, the whole encoder 29, at 0.15 of its time in the median. A margin of 64 makes 35, one of 32
makes 36; a floor of 448 makes 29 at 0.26."""

WIDER_FLOOR, WIDER_MARGIN = 448, 320
"""The second rung, for what the guard rejects on the first: it mends five of six rejected clips at
a third of the whole encoder's time, and takes the 95th percentile from 1.13 of it to 0.45."""

REDUCED_PROMPT_TOKENS = 27
"""What a reduced decode reads of a prompt: its last 24 tokens, and 3 timestamps. A token of the
prompt takes as much processor time as 2.7 positions (whisper.cpp computes the probabilities of the
whole vocabulary for each), so these add a fifth to the shortest window. A longer prompt also costs
words: with 10 names in 45 tokens tiny.en made 47 errors instead of 31. Lab book, "Prompts"."""

LONGEST_SECONDS = 12.0
"""Longer windows take the whole encoder at once. On 472 s of long recordings a reduced context
doubles the errors (115 instead of 58 of 999 words), and its repeated windows take more time than it
saves."""


MOST_FOR_DETECTION = 448
"""The first 9 s tell the language. With base on 87 clips and cuts in five languages no error came
from stopping there (one clip was misheard with the whole encoder, too); errors begin at 192. On a
long window it takes a fifth of the whole encoder's processor time."""


def ladder(seconds: float, setting: EncoderContext) -> tuple[int, ...]:
    """Positions to try for a window of `seconds`, rising, each 1 to FULL; the last is FULL."""
    needed = math.ceil(POSITIONS_PER_SECOND * seconds)
    if setting == "full" or (setting == "auto" and seconds > LONGEST_SECONDS):
        return (FULL,)
    if setting == "auto":
        first = max(FLOOR, needed + MARGIN)
        rungs = [first, max(WIDER_FLOOR, needed + WIDER_MARGIN)]
    else:
        # A fixed number still has to cover the window, or its end would not be heard.
        rungs = [max(setting, needed)]
    return (*(rung for rung in rungs if rung < FULL), FULL)


def most_prompt_tokens(context: int) -> int:
    """How many tokens of a prompt a decode at `context` positions reads."""
    return MOST_TOKENS if context >= FULL else REDUCED_PROMPT_TOKENS


def for_detection(seconds: float, setting: EncoderContext) -> int:
    """Positions for hearing which language a window of `seconds` is in."""
    first = ladder(seconds, setting)[0]
    return min(first, MOST_FOR_DETECTION) if setting == "auto" else first
