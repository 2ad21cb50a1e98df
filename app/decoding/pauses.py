"""The loudness of a window of speech, and the pauses in it.

A frame is 10 ms. Pure; frames are counted from the window's beginning.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.audio.stream import SAMPLE_RATE, Samples

FRAME = SAMPLE_RATE // 100
"""Samples in a frame."""

_SOFTEST_SHARE, _LOUD_SHARE = 10 ** (-30 / 20), 10 ** (-20 / 20)
"""Lowest and highest threshold of speech, as shares of the level of the loudest twentieth of a
stretch's surroundings. Between them the threshold is twice the level of the background."""

_AROUND_FRAMES = 200
"""Frames on both sides of a stretch (2 s) with which it is compared: speakers differ."""

PAUSE_FRAMES = 15
"""Frames of the shortest pause: 150 ms; the closure of a plosive lasts 50 to 100 ms."""

PAD_FRAMES = 10
"""Quiet frames kept on each side of speech: soft consonants are below the threshold."""

Levels = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def levels_of(samples: Samples) -> Levels:
    """Return the level of each frame of float32 samples, shape [n], 16 kHz."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    levels: Levels = frames.std(axis=1).astype(np.float64)
    return levels


def loud_frames(levels: Levels, first: int, last: int) -> Mask:
    """Return which frames are loud, compared with frames `first` to `last`; shape [len(levels)]."""
    around = levels[max(0, first - _AROUND_FRAMES) : last + _AROUND_FRAMES]
    background, loudest = np.percentile(around if len(around) else levels, (10, 95))
    level = np.clip(2 * background, _SOFTEST_SHARE * loudest, _LOUD_SHARE * loudest)
    mask: Mask = levels > level
    return mask


def pauses(loud: Mask) -> list[tuple[int, int]]:
    """Return the quiet runs of frames, as (begin, end)."""
    padded = np.concatenate(([True], loud, [True])).astype(np.int8)
    edges = np.flatnonzero(np.diff(padded))
    runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [(begin, end) for begin, end in runs if end - begin >= PAUSE_FRAMES]


def speech_edges(pause: tuple[int, int]) -> tuple[int, int]:
    """Return the frames at which speech ends before a pause and begins after it, padded."""
    pad = min(PAD_FRAMES, (pause[1] - pause[0]) // 2)
    return pause[0] + pad, pause[1] - pad
