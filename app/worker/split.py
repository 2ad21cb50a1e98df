"""A request whose channels are transcribed each by itself, for recordings of calls.

The channels are worked on one after the other, each as a `Transcription` of its own that decodes
the file again, so that memory does not grow with their number. Segments of all of them are ordered
by their start, so those of earlier channels are held back until the last one has got that far.
Worker thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.decoding.hypothesis import join
from app.messages import Segment, Transcript
from app.worker.job import Transcription


class SplitTranscription:
    """The work on one job, channel by channel; the same interface as `Transcription`.

    `begin` makes the work on a channel, counted from 0. Raises what audio and engine raise.
    """

    def __init__(self, begin: Callable[[int], Transcription]) -> None:
        self._begin = begin
        self._work = begin(0)
        self._number = 0
        self._channels = self._work.channels
        self._held: list[Segment] = []
        self._segments: list[Segment] = []
        self._done: list[Transcript] = []

    @property
    def seconds_left(self) -> float:
        """Estimated seconds of audio of all channels that are not transcribed yet."""
        further = self._channels - 1 - self._number
        return self._work.seconds_left + further * self._work.length

    def turn(self) -> tuple[list[Segment], bool]:
        """Do one piece of work: the segments that are next by their start, and whether the job is
        done."""
        segments, done = self._work.turn()
        self._held += [replace(segment, channel=self._number + 1) for segment in segments]
        is_last = self._number == self._channels - 1
        if done:
            self._done.append(self._work.transcript())
            if not is_last:
                self._work.close()
                self._number += 1
                self._work = self._begin(self._number)
            return self._release(None) if is_last else [], is_last
        # A channel's segments come in order, so nothing earlier can follow.
        return self._release(segments[-1].start) if is_last and segments else [], False

    def transcript(self) -> Transcript:
        """The whole, after the last turn."""
        most = max(self._done, key=_speech_seconds)
        first = self._done[0]
        return replace(
            first,
            text=join(self._segments),
            language=most.language,
            language_probability=most.language_probability,
            segments=tuple(self._segments),
            audio_seconds=max(part.audio_seconds for part in self._done),
            processing_seconds=sum(part.processing_seconds for part in self._done),
            truncated=any(part.truncated for part in self._done),
            encoder_context=max(part.encoder_context for part in self._done),
            passes=sum(part.passes for part in self._done),
            second_passes=sum(part.second_passes for part in self._done),
            channels=len(self._done),
        )

    def close(self) -> None:
        self._work.close()

    def _release(self, until: float | None) -> list[Segment]:
        """Take what begins no later than `until` out of what is held back, or all of it."""
        self._held.sort(key=lambda segment: (segment.start, segment.channel))
        count = len(self._held)
        if until is not None:
            count = sum(segment.start <= until for segment in self._held)
        released, self._held = self._held[:count], self._held[count:]
        self._segments += released
        return released


def _speech_seconds(part: Transcript) -> float:
    return sum(segment.end - segment.start for segment in part.segments)
