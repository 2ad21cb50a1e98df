"""The end of a voice command as Home Assistant finds it.

Home Assistant sends audio to a Wyoming server until its own detector, microVAD on frames of 10 ms,
says that the command is over. `Segmenter` follows the rules of its pipeline, which are facts of its
source (`assist_pipeline/vad.py`): the durations and thresholds below, and a count of silence that
accumulates and that only a second of speech resets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

RATE = 16_000
FRAME = RATE // 100
"""Samples in a frame of the detector and in a packet of Home Assistant."""

FRAME_SECONDS = 0.01

Setting = Literal["default", "relaxed", "aggressive"]

SILENCE_SECONDS: dict[Setting, float] = {"default": 0.7, "relaxed": 1.25, "aggressive": 0.25}

_SPEECH_SECONDS = 0.3
_COMMAND_SECONDS = 1.0
_RESET_SECONDS = 1.0
_TIMEOUT_SECONDS = 15.0
_BEFORE_COMMAND, _IN_COMMAND = 0.2, 0.5
"""Probabilities above which a frame is speech: before the command began, and in it."""


@dataclass
class _Countdown:
    """Frames until something happens, set again to the same number."""

    frames: int
    left: int = 0

    def __post_init__(self) -> None:
        self.left = self.frames

    def restart(self) -> None:
        self.left = self.frames

    def step(self) -> bool:
        """Count one frame. Return whether the time is over."""
        self.left -= 1
        return self.left <= 0


class Segmenter:
    """Follows one command; `setting` is the user's choice of how long a pause ends it."""

    def __init__(self, setting: Setting = "default") -> None:
        self._in_command = False
        self._speech = _Countdown(_frames(_SPEECH_SECONDS))
        self._command = _Countdown(_frames(_COMMAND_SECONDS - _SPEECH_SECONDS))
        self._silence = _Countdown(_frames(SILENCE_SECONDS[setting]))
        self._reset = _Countdown(_frames(_RESET_SECONDS))
        self._timeout = _Countdown(_frames(_TIMEOUT_SECONDS))

    def step(self, probability: float) -> bool:
        """Take the next frame's probability of speech. Return whether the command is over."""
        if self._timeout.step():
            return True
        if not self._in_command:
            self._await_command(probability > _BEFORE_COMMAND)
            return False
        return self._await_end(probability > _IN_COMMAND)

    def _await_command(self, is_speech: bool) -> None:
        if is_speech:
            self._reset.restart()
            self._in_command = self._speech.step()
        elif self._reset.step():
            self._speech.restart()
            self._reset.restart()

    def _await_end(self, is_speech: bool) -> bool:
        is_long_enough = self._command.step()
        if is_speech:
            if self._reset.step():
                self._silence.restart()
                self._reset.restart()
            return False
        self._reset.restart()
        return self._silence.step() and is_long_enough


def end_of_command(
    samples: np.ndarray,
    setting: Setting = "default",
    detector: Callable[[bytes], float] | None = None,
) -> int | None:
    """Return the sample at which Home Assistant ends the command, or None if the audio ends before.

    `samples` are float32 at 16 kHz; `detector` is called with frames of 16-bit samples.
    """
    detector = micro_vad() if detector is None else detector
    segmenter = Segmenter(setting)
    whole = len(samples) // FRAME * FRAME
    data = (np.clip(samples[:whole], -1, 1) * 32767).astype("<i2").tobytes()
    for at in range(0, len(data), 2 * FRAME):
        if segmenter.step(detector(data[at : at + 2 * FRAME])):
            return at // 2 + FRAME
    return None


def micro_vad() -> Callable[[bytes], float]:
    """Return a new microVAD: 0 to 1 for a frame, negative until it has heard enough."""
    from pymicro_vad import MicroVad

    process: Callable[[bytes], float] = MicroVad().process_10ms
    return process


def _frames(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)
