"""The conditions of real recordings and requests, each applied to clips of speech.

A condition turns a clip into a request: a body, its fields, and its reference. The original clips
have speech at about -20 dB of full scale.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from benchmark import degrade
from benchmark.answers import Question
from benchmark.corpus import RATE, Clip, samples
from benchmark.degrade import Samples
from benchmark.noises import NOISES
from benchmark.prompts import PROMPTS

UNTOUCHED = "untouched"

Change = Callable[[Samples, np.random.Generator], Samples]
"""Makes a recording from the samples of a clip and a random generator seeded by the clip."""

_LEVELS = {
    "FLOAT": (-30, -50, -60, -70),
    "PCM_24": (-60, -70),
    "PCM_16": (-50,),
}
"""Levels of the speech by sample format; 16 bits cannot hold speech far below -50 dB."""

_FORMATS = {"FLOAT": "float", "PCM_24": "24 bit", "PCM_16": "16 bit"}

_GAP_SECONDS = 0.5
_AROUND_SECONDS = 3.0
_AROUND_LEVEL = -40.0
_NOISES_AROUND = ("white", "fan", "keyboard")
_SILENT_SECONDS = 10.0
_FLOOR_LEVEL = -50.0


@dataclass(frozen=True)
class Condition:
    """One condition. `family` is its name on the command line; `name` is its row in the table."""

    family: str
    name: str
    question: Callable[[Clip], Question]


def of_speech(noises: Sequence[Clip]) -> list[Condition]:
    """The conditions for clips of speech, first the untouched one. `noises` have no speech."""
    return [
        _changed(UNTOUCHED, UNTOUCHED, "PCM_16", lambda data, _: data),
        *_levels(),
        *_offsets(),
        _changed("whispered", "whispered", "PCM_16", _whispered),
        *_channels(),
        *_ranges(),
        *_noises_around(noises),
        *(_noise(ratio) for ratio in (20, 10)),
        *(_repetition(times) for times in (2, 3)),
        *(_prompted(name, prompt) for name, prompt in PROMPTS.items()),
        Condition("telephone", "telephone, 8 kHz mu-law", _telephone),
    ]


def of_silence(clips: Sequence[Clip]) -> dict[str, list[Question]]:
    """Recordings without speech, by the name of their row: clips and synthetic noise floors."""
    recorded = {clip.name: samples(clip.path) for clip in clips}
    floors = {
        name: degrade.at_level(make(_SILENT_SECONDS, RATE, _random(name)), RATE, _FLOOR_LEVEL)
        for name, make in NOISES.items()
    }
    recorded_loud = {name: degrade.gained(data, 40.0) for name, data in recorded.items()}
    floors_loud = {name: degrade.gained(data, 40.0) for name, data in floors.items()}
    return {
        "recorded": _silent(recorded, "PCM_16"),
        "recorded, amplified by 40 dB, float": _silent(recorded_loud, "FLOAT"),
        "recorded, amplified by 40 dB, clipped": _silent(recorded_loud, "PCM_16"),
        "noise floors": _silent(floors, "PCM_16"),
        "noise floors, amplified by 40 dB, clipped": _silent(floors_loud, "PCM_16"),
    }


def _levels() -> Iterator[Condition]:
    for subtype, levels in _LEVELS.items():
        for level in levels:

            def change(data: Samples, _: object, level: float = level) -> Samples:
                return degrade.at_level(data, RATE, level)

            yield _changed("level", f"{level} dB, {_FORMATS[subtype]}", subtype, change)


def _offsets() -> Iterator[Condition]:
    for share in (0.1, 0.25, 0.5):

        def change(data: Samples, _: object, share: float = share) -> Samples:
            return degrade.offset(data, share)

        yield _changed("offset", f"offset of {share:g}", "PCM_16", change)
    yield _changed(
        "offset",
        "offset of 0.5, -50 dB, float",
        "FLOAT",
        lambda data, _: degrade.offset(degrade.at_level(data, RATE, -50.0), 0.5),
    )


def _whispered(data: Samples, random: np.random.Generator) -> Samples:
    return degrade.whispered(data, RATE, random)


def _channels() -> Iterator[Condition]:
    def with_other(title: str, subtype: str, other: Change) -> Condition:
        def change(data: Samples, random: np.random.Generator) -> Samples:
            return degrade.side_by_side(other(data, random), data)

        return _changed("channels", f"other channel: {title}", subtype, change)

    def pink(data: Samples, random: np.random.Generator) -> Samples:
        noise = NOISES["pink"](len(data) / RATE, RATE, random)[: len(data)]
        return degrade.at_level(noise, RATE, -20.0)

    def centre(data: Samples, random: np.random.Generator) -> Samples:
        return degrade.surround(data, degrade.at_level(pink(data, random), RATE, -35.0))

    def quiet(data: Samples, _: object) -> Samples:
        return degrade.side_by_side(np.zeros_like(data), degrade.gained(data, -30.0))

    yield _changed(
        "channels", "opposite phase", "PCM_16", lambda data, _: degrade.opposite_phase(data)
    )
    yield with_other("tone", "PCM_16", lambda data, _: degrade.tone(len(data), RATE))
    yield with_other("timecode", "PCM_16", lambda data, _: degrade.timecode(len(data), RATE))
    yield with_other("pink noise, -20 dB", "PCM_16", pink)
    yield with_other("silent", "PCM_16", lambda data, _: np.zeros_like(data))
    yield _changed("channels", "other channel: silent, speech 30 dB down", "PCM_24", quiet)
    yield with_other("NaN", "FLOAT", lambda data, _: np.full_like(data, np.nan))
    yield _changed("channels", "5.1, speech in the centre", "PCM_16", centre)


def _ranges() -> Iterator[Condition]:
    def over(data: Samples, _: object) -> Samples:
        return degrade.gained(data / np.abs(data).max(), 17.0)

    def whole(data: Samples, _: object) -> Samples:
        return data * np.float32(32768)

    yield _changed("range", "float, peak 17 dB over full scale", "FLOAT", over)
    yield _changed("range", "float, range of 16 bits", "FLOAT", whole)


def _noises_around(clips: Sequence[Clip]) -> Iterator[Condition]:
    recorded = [data for clip in clips if np.any(data := samples(clip.path))]

    def between(data: Samples, noise: Samples) -> Samples:
        return degrade.surrounded(data, RATE, noise, _AROUND_SECONDS)

    def some(data: Samples, random: np.random.Generator) -> Samples:
        return between(data, recorded[int(random.integers(len(recorded)))])

    if recorded:
        yield _changed("around", "3 s before and after: recorded noise", "PCM_16", some)
    for name in _NOISES_AROUND:

        def change(data: Samples, random: np.random.Generator, name: str = name) -> Samples:
            noise = NOISES[name](_AROUND_SECONDS, RATE, random)
            return between(data, degrade.at_level(noise, RATE, _AROUND_LEVEL))

        title = f"3 s before and after: {name} noise, {_AROUND_LEVEL:.0f} dB"
        yield _changed("around", title, "PCM_16", change)


def _noise(ratio: int) -> Condition:
    def change(data: Samples, random: np.random.Generator) -> Samples:
        noise = NOISES["white"](len(data) / RATE, RATE, random)
        return degrade.mixed(data, RATE, noise, ratio)

    return _changed("noise", f"white noise {ratio} dB below the speech", "PCM_16", change)


def _repetition(times: int) -> Condition:
    def question(clip: Clip) -> Question:
        data = degrade.repeated(samples(clip.path), RATE, times, _GAP_SECONDS)
        return Question(clip.name, " ".join([clip.text] * times), _wav(data, "PCM_16"))

    return Condition("repetition", f"said {times} times", question)


def _prompted(name: str, prompt: str) -> Condition:
    def question(clip: Clip) -> Question:
        body = _wav(samples(clip.path), "PCM_16")
        return Question(clip.name, clip.text, body, {"prompt": prompt})

    return Condition("prompt", f"prompt: {name}", question)


def _telephone(clip: Clip) -> Question:
    narrow = soxr.resample(degrade.telephone(samples(clip.path), RATE), RATE, 8000)
    return Question(clip.name, clip.text, _wav(narrow, "ULAW", 8000))


def _changed(family: str, name: str, subtype: str, change: Change) -> Condition:
    """A condition that only changes the samples."""

    def question(clip: Clip) -> Question:
        data = change(samples(clip.path), _random(clip.name))
        return Question(clip.name, clip.text, _wav(data, subtype))

    return Condition(family, name, question)


def _silent(recordings: dict[str, Samples], subtype: str) -> list[Question]:
    return [Question(name, "", _wav(data, subtype)) for name, data in recordings.items()]


def _random(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _wav(data: Samples, subtype: str, rate: int = RATE) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, data, rate, format="WAV", subtype=subtype)
    return stream.getvalue()
