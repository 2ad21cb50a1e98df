"""Word times of long recordings, on the real node: pieces of a known clip at known joins."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from node import JFK, Node, stopped_cleanly

pytestmark = pytest.mark.slow

RATE = 16000
PIECES = (
    (0.0, 2.7, "and so my fellow americans"),
    (2.7, 4.8, "ask not"),
    (4.8, 7.85, "what your country can do for you"),
    (7.85, 11.0, "ask what you can do for your country"),
)
"""The places to cut the clip in its pauses, and the words between them."""

GAPS = (0.3, 0.9, 0.5, 1.2, 0.4, 0.7)
LEAST_SECONDS = 0.02
Times = list[tuple[str, float, float]]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(Node("-m", "tiny.en")) as node:
        yield node


def sounds(samples: Any) -> tuple[float, float]:
    """The times of the first and the last loud 10 ms of a piece."""
    levels = samples[: len(samples) // 160 * 160].reshape(-1, 160).std(axis=1)
    loud = np.flatnonzero(levels > levels.max() * 0.05)
    return loud[0] / 100, (loud[-1] + 1) / 100


def joined(order: tuple[int, ...]) -> tuple[Any, list[tuple[str, float, float]]]:
    """Join pieces with gaps between them; return the text, begin and end of each."""
    clip, rate = soundfile.read(JFK, dtype="float32", always_2d=True)
    clip = soxr.resample(clip.mean(axis=1), rate, RATE)
    noise = np.random.default_rng(1)
    parts: list[Any] = []
    said: list[tuple[str, float, float]] = []
    at = 0
    for number, index in enumerate(order):
        start, end, text = PIECES[index]
        piece = clip[round(start * RATE) : round(end * RATE)]
        first, last = sounds(piece)
        said.append((text, at / RATE + first, at / RATE + last))
        gap = noise.normal(0, 0.0005, round(GAPS[number % len(GAPS)] * RATE))
        parts += [piece, gap.astype(np.float32)]
        at += len(piece) + len(gap)
    return np.concatenate(parts), said


def word_times(node: Node, samples: Any, prompt: str) -> Times:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC")
    fields: dict[str, Any] = {"word-timestamps": True}
    if prompt:
        fields["prompt"] = prompt
    reply = node.ask(file.getvalue(), **fields)
    for segment in reply["segments"]:
        assert segment["start"] == segment["words"][0]["start"]
        assert segment["end"] == segment["words"][-1]["end"]
    return [
        (re.sub(r"\W", "", word["text"]).lower(), word["start"], word["end"])
        for segment in reply["segments"]
        for word in segment["words"]
    ]


@pytest.mark.parametrize("prompt", ["", "Notes from the meeting, 2024."])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1) * 3], ids=["short", "long"])
def test_words_beside_a_join_begin_and_end_with_the_sound(
    node: Node, order: tuple[int, ...], prompt: str
) -> None:
    samples, said = joined(order)
    words = word_times(node, samples, prompt)
    assert all(end - start >= LEAST_SECONDS for _, start, end in words)
    assert all(before[2] <= after[1] for before, after in pairwise(words))
    assert words[-1][2] <= len(samples) / RATE
    truth = [
        (word, start if index == 0 else None, end if index == len(text.split()) - 1 else None)
        for text, start, end in said
        for index, word in enumerate(text.split())
    ]
    matcher = SequenceMatcher(None, [one[0] for one in truth], [one[0] for one in words], False)
    pairs = [
        (truth[block.a + at], words[block.b + at])
        for block in matcher.get_matching_blocks()
        for at in range(block.size)
    ]
    assert len(pairs) > 0.8 * len(truth), words
    begins = [abs(word[1] - right[1]) for right, word in pairs if right[1] is not None]
    ends = [abs(word[2] - right[2]) for right, word in pairs if right[2] is not None]
    for errors in (begins, ends):
        assert np.median(errors) <= 0.1
        assert np.mean(np.array(errors) <= 0.3) >= 0.9, errors
