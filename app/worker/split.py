"""A job whose channels are transcribed separately, for recordings of calls.

The channels are transcribed one after the other. Each is a `Transcription` that decodes the file
again, so that memory does not grow with the number of channels. The segments of all channels are
ordered by their start, so those of earlier channels are kept until the last channel reaches that
time. Worker thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.decoding.hypothesis import join
from app.messages import Segment, Transcript
from app.worker.job import Transcription


class SplitTranscription:
    """The work on one job, channel by channel, with the interface of `Transcription`.

    `begin` returns the work on a channel, counted from 0. Raises the errors of audio and engine.
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
        """Estimated seconds of remaining audio, all channels together."""
        further = self._channels - 1 - self._number
        return self._work.seconds_left + further * self._work.length

    def turn(self) -> tuple[list[Segment], bool]:
        """Do one turn of work; return the next segments by their start, and whether the job is
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
        # The segments of a channel are in order, so no earlier one can follow.
        return self._release(segments[-1].start) if is_last and segments else [], False

    def transcript(self) -> Transcript:
        """Return the whole transcript, after the last turn."""
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
        """Remove and return the kept segments that begin until `until`; all of them for None."""
        self._held.sort(key=lambda segment: (segment.start, segment.channel))
        count = len(self._held)
        if until is not None:
            count = sum(segment.start <= until for segment in self._held)
        released, self._held = self._held[:count], self._held[count:]
        self._segments += released
        return released


def _speech_seconds(part: Transcript) -> float:
    return sum(segment.end - segment.start for segment in part.segments)
