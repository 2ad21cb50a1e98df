"""Moves the edges of words out of silence.

whisper.cpp guesses when a token was spoken from the timestamps its decoder finds probable, and lets
a word that is followed by a pause last until the next one. Within such a guess the first and the
last loud 10 ms are nearer to where the word really begins and ends: on a clip joined from known
words, with tiny.en and base, the mean error of beginnings fell from 0.04 and 0.32 s to 0.02 s, that
of ends from 0.47 and 0.38 s to 0.10 and 0.13 s. whisper.cpp's alignment by dynamic time warping
came to 0.19 and 0.35 s for beginnings with the same correction, and needs a preset per model. See
docs/lab-book.md ("Word times"). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.audio.stream import SAMPLE_RATE, Samples
from app.messages import Segment, Word

_FRAME = SAMPLE_RATE // 100
"""10 ms, in samples."""

_LOUD_SHARE = 0.1
"""Of the level that a window's loudest twentieth has (-20 dB): above the noise of a room, below the
softest consonants but s, f and th."""


_PAUSE_FRAMES = 25
"""A quarter of a second: longer than any silence within a word."""

_WORD_FRAMES = 5
"""50 ms: less is no word but the beginning of the next."""


def snap(segments: Sequence[Segment], samples: Samples) -> tuple[Segment, ...]:
    """`segments` with their words' times moved inward to what is loud in `samples`.

    `samples` is the window, float32, shape [n], 16 kHz. Segments without words stay as they are.
    """
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    if not len(frames):
        return tuple(segments)
    levels = frames.std(axis=1)
    loud = levels > np.percentile(levels, 95) * _LOUD_SHARE

    def snap_word(word: Word) -> Word:
        first, last = round(word.start * 100), round(word.end * 100)
        inside = np.flatnonzero(loud[first:last])
        if not len(inside):
            return word
        # A word stretched over a pause was spoken behind it: what is loud before it is the end of
        # the word before, whose guess came too short.
        pauses = np.flatnonzero(np.diff(inside) > _PAUSE_FRAMES) + 1
        parts = [part for part in np.split(inside, pauses) if len(part) >= _WORD_FRAMES]
        inside = parts[-1] if parts else inside
        start, end = first + int(inside[0]), first + int(inside[-1]) + 1
        return replace(word, start=start / 100, end=end / 100)

    return tuple(
        segment
        if segment.words is None
        else replace(segment, words=tuple(snap_word(word) for word in segment.words))
        for segment in segments
    )
