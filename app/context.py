"""How much of the encoder a window needs.

Whisper's encoder works on 30 s, 1,500 positions of 20 ms, whatever is in them, and takes three
quarters of the time of a spoken command. whisper.cpp can be told to compute fewer (`audio_ctx`).
Cost is nearly linear in it; but the model was trained on 30 s, and with too few positions behind
the end of speech its decoder loops or stops early. `choose` gives the positions for a window;
whether the result is to be believed is for `app/hypothesis.py` to say, and if not, the window is
decoded again with all of them. Pure. The evidence is in docs/benchmarks.md ("Encoder context").
"""

from __future__ import annotations

import math
from typing import Literal

EncoderContext = Literal["auto", "full"] | int
"""`auto`, `full`, or a fixed number of positions."""

FULL = 1_500
"""Positions of the whole encoder, for every Whisper model (n_audio_ctx)."""

POSITIONS_PER_SECOND = 50

FLOOR = 448
"""Fewest positions. With tiny.en on 69 clips of up to 12 s (622 words) and the guard of
`app/hypothesis.py`, a floor of 448 makes the same 29 errors as the whole encoder at 0.36 of its
cost; 384 makes 36 at 0.33, 256 makes 38 at 0.31, because windows are repeated more often."""

MARGIN = 128
"""Positions behind the end of speech, 2.6 s. At a floor of 448, 32 make two errors more and cost
nearly the same, since the floor decides for most commands."""

LONGEST_SECONDS = 12.0
"""Longer windows take the whole encoder: less is saved, a repeated window costs more than it saved,
and on long recordings a reduced context was measured to cost more than a point of word error
rate."""


def choose(seconds: float, setting: EncoderContext) -> int:
    """Positions for a window of `seconds`: 1 to FULL."""
    needed = math.ceil(POSITIONS_PER_SECOND * seconds)
    if setting == "full":
        return FULL
    if setting == "auto":
        return FULL if seconds > LONGEST_SECONDS else min(FULL, max(FLOOR, needed + MARGIN))
    # A fixed number still has to cover the window, or its end would not be heard.
    return min(FULL, max(setting, needed))


def choose_for_detection(seconds: float, setting: EncoderContext) -> int:
    """Positions for hearing which language a window of `seconds` is in."""
    return choose(seconds, setting)
