"""Recordings with known word times that do not come from Whisper.

There are two kinds. *Joins* are words that silence surrounds in the clips, trimmed by level and
joined with known gaps. *Aligned* are whole clips, single and joined into long recordings, whose
reference texts were aligned by pocketsphinx's acoustic model. The joins also give the error of the
aligner itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pocketsphinx

from benchmark.corpus import RATE, Clip, samples

Samples = npt.NDArray[np.float32]

_FRAME = RATE // 100
_MARGIN_SECONDS = 0.3
_ROOM_LEVEL = 10 ** (-65 / 20)
"""Level of the noise in the gaps; digital silence would be easier than any recording."""

_SPEECH_LEVEL = 0.07
"""RMS of each piece; about -23 dB of full scale."""

_LOUD_SHARE = 0.06
"""The level, relative to a clip's loud parts (-24 dB), below which sound is trimmed."""

_NOISY_SHARE = 0.2
"""The same for clips of a single word, most of which have a higher noise floor."""

_LEAST_PAUSE = 6
"""Quiet frames that separate two islands of sound; the closure of a plosive is shorter."""

_WORD_FRAMES = (12, 130)
_OVERLAP_SECONDS = 0.03


@dataclass(frozen=True)
class Spoken:
    """One word and its times, in seconds from the beginning of its recording."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Recording:
    """Mono float32 at 16 kHz, and its words."""

    name: str
    samples: Samples
    words: tuple[Spoken, ...]


class Aligner:
    """pocketsphinx with its packaged US English model."""

    def __init__(self) -> None:
        # Wide beams: time does not matter, and a lost word is a lost clip.
        self._decoder = pocketsphinx.Decoder(
            lm=None, loglevel="FATAL", beam=1e-100, wbeam=1e-80, pbeam=1e-100
        )

    def align(self, recording: Samples, words: Sequence[str]) -> list[Spoken] | None:
        """Return the times of `words`; None if a word is not in the dictionary or was not found."""
        if not words or any(self._decoder.lookup_word(word) is None for word in words):
            return None
        centred = recording - recording.mean()
        scaled = centred / max(1e-4, float(np.abs(centred).max())) * 23_000
        data = scaled.astype("<i2").tobytes()
        self._decoder.set_align_text(" ".join(words))
        self._decoder.reinit_feat()
        # The first pass estimates the cepstral mean.
        for _ in range(2):
            self._decoder.start_utt()
            self._decoder.process_raw(data, full_utt=True)
            self._decoder.end_utt()
        if self._decoder.hyp() is None:
            return None
        spoken = [
            Spoken(re.sub(r"\(\d+\)$", "", part.word), part.start_frame / 100, part.end_frame / 100)
            for part in self._decoder.seg()
            if part.word[0] not in "<["
        ]
        return spoken if [word.text for word in spoken] == list(words) else None


def plain(text: str) -> list[str]:
    """The words of `text` in lower case, without punctuation; hyphenated words are divided."""
    parts = re.split(r"[\s\-]+", text.lower().replace("\u2019", "'"))
    bare = (re.sub(r"[^a-z0-9']", "", part.strip("'")) for part in parts)
    return [word for word in bare if word]


def aligned(clips: Sequence[Clip], aligner: Aligner) -> list[Recording]:
    """The clips whose text can be aligned, each with a margin."""
    noise = np.random.default_rng(1)
    found: list[Recording] = []
    for clip in clips:
        margin = _room(_MARGIN_SECONDS, noise)
        padded = np.concatenate([margin, samples(clip.path), margin])
        words = aligner.align(padded, plain(clip.text))
        if words is not None:
            found.append(Recording(clip.name, padded, tuple(words)))
    return found


def single_words(recordings: Sequence[Recording]) -> list[Recording]:
    """The words with silence around them, each trimmed to its sound."""
    return [word for recording in recordings for word in _cut(recording)]


def join(
    name: str,
    pieces: Sequence[Recording],
    seconds: float,
    gaps: tuple[float, float],
    noise: np.random.Generator,
) -> Recording:
    """Join as many `pieces` as fit, in order and at one level, with gaps of random length."""
    parts: list[Samples] = [_room(0.4, noise)]
    at = len(parts[0])
    words: list[Spoken] = []
    for piece in pieces:
        if at + len(piece.samples) > seconds * RATE:
            continue
        level = np.sqrt(np.mean(np.square(piece.samples)))
        parts.append((piece.samples / level * _SPEECH_LEVEL).astype(np.float32))
        words += [
            Spoken(word.text, word.start + at / RATE, word.end + at / RATE) for word in piece.words
        ]
        parts.append(_room(float(noise.uniform(*gaps)), noise))
        at += len(parts[-2]) + len(parts[-1])
    return Recording(name, np.concatenate(parts), tuple(words))


def _cut(recording: Recording) -> Iterator[Recording]:
    alone = len(recording.words) == 1
    islands = _islands(recording.samples, _NOISY_SHARE if alone else _LOUD_SHARE)
    if alone:
        # A single word may have separate sounds; a sound far from the longest is not part of it.
        start, end = max(islands, key=lambda island: island[1] - island[0])
        near = [island for island in islands if island[0] < end + 30 and island[1] > start - 30]
        islands = [(near[0][0], near[-1][1])]
    for word in recording.words:
        own = [island for island in islands if _shared(word, island) > _OVERLAP_SECONDS]
        if len(own) != 1:
            continue
        others = [one for one in recording.words if _shared(one, own[0]) > _OVERLAP_SECONDS]
        start, end = own[0]
        if len(others) == 1 and _WORD_FRAMES[0] <= end - start <= _WORD_FRAMES[1]:
            sound = _faded(recording.samples[start * _FRAME : end * _FRAME])
            spoken = Spoken(word.text, 0.0, len(sound) / RATE)
            yield Recording(f"{word.text} of {recording.name}", sound, (spoken,))


def _shared(word: Spoken, island: tuple[int, int]) -> float:
    return min(word.end, island[1] / 100) - max(word.start, island[0] / 100)


def _islands(recording: Samples, share: float) -> list[tuple[int, int]]:
    """The first frame and the frame after the last of each span of sound."""
    levels = recording[: len(recording) // _FRAME * _FRAME].reshape(-1, _FRAME).std(axis=1)
    loud = np.flatnonzero(levels > np.percentile(levels, 95) * share)
    gaps = np.flatnonzero(np.diff(loud) > _LEAST_PAUSE)
    starts = np.concatenate(([loud[0]], loud[gaps + 1]))
    ends = np.concatenate((loud[gaps], [loud[-1]])) + 1
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _faded(sound: Samples) -> Samples:
    """Fade 5 ms at either end to avoid clicks."""
    faded = sound.copy()
    ramp = np.linspace(0, 1, 80, dtype=np.float32)
    faded[:80] *= ramp
    faded[-80:] *= ramp[::-1]
    return faded


def _room(seconds: float, noise: np.random.Generator) -> Samples:
    return noise.normal(0, _ROOM_LEVEL, round(seconds * RATE)).astype(np.float32)
