"""The audio for measurements: refs.tsv and the files beside it, and long files joined from them.

All audio for timings is first written as 16 kHz mono 16-bit WAV, which all engines read, so that
audio decoders do not affect the result. The format clips are the exception, because they test the
containers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE = 16_000
SHORT_SECONDS = 12.0
PAUSE_SECONDS = 0.6
"""Silence between joined clips."""


class CorpusError(Exception):
    """The audio folder is not usable. The text says what to do."""


@dataclass(frozen=True)
class Clip:
    """One recording. `text` is the reference; `path` is the file to send."""

    name: str
    group: str
    path: Path
    seconds: float
    text: str
    language: str = "en"


def read(folder: Path) -> list[Clip]:
    """All clips listed in refs.tsv."""
    table = folder / "refs.tsv"
    if not table.exists():
        raise CorpusError(
            f"There is no {table}. Pass --audio a folder that contains it: tab-separated, with the "
            "columns id, set, file, seconds, language and text."
        )
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    clips = [
        Clip(
            row["id"],
            row["set"],
            folder / row["file"],
            float(row["seconds"]),
            row["text"] or "",
            row["language"],
        )
        for row in rows
    ]
    missing = [clip.path.name for clip in clips if not clip.path.exists()]
    if missing:
        raise CorpusError(f"{table} lists files that do not exist: {', '.join(missing[:5])}")
    return clips


def samples(path: Path | str) -> np.ndarray:
    """The samples of any file that libsndfile opens, as mono float32 at 16 kHz."""
    data, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    mono = data.mean(axis=1)
    return mono if rate == RATE else soxr.resample(mono, rate, RATE).astype(np.float32)


def as_wav(clips: Iterable[Clip], folder: Path) -> list[Clip]:
    """The same clips as 16 kHz mono WAV files in `folder`."""
    return [_write(clip, [samples(clip.path)], folder) for clip in clips]


def join(clips: Sequence[Clip], seconds: float, name: str, folder: Path) -> list[Clip]:
    """Join clips, in order, into files of about `seconds` with short pauses between."""
    joined: list[Clip] = []
    batch: list[Clip] = []
    length = 0.0
    for clip in clips:
        batch.append(clip)
        length += clip.seconds + PAUSE_SECONDS
        if length >= seconds:
            joined.append(_join(batch, f"{name}-{len(joined) + 1}", folder))
            batch, length = [], 0.0
    if batch:
        joined.append(_join(batch, f"{name}-{len(joined) + 1}", folder))
    return joined


def _join(batch: Sequence[Clip], name: str, folder: Path) -> Clip:
    pause = np.zeros(int(PAUSE_SECONDS * RATE), np.float32)
    parts: list[np.ndarray] = []
    for clip in batch:
        parts += [samples(clip.path), pause]
    whole = Clip(name, "long", batch[0].path, 0.0, " ".join(clip.text for clip in batch))
    return _write(whole, parts, folder)


def _write(clip: Clip, parts: Sequence[np.ndarray], folder: Path) -> Clip:
    path = folder / f"{clip.name}.wav"
    data = np.concatenate(parts)
    soundfile.write(str(path), data, RATE, subtype="PCM_16")
    return Clip(clip.name, clip.group, path, len(data) / RATE, clip.text, clip.language)
