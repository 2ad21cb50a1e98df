"""A command in the worker: a request with a body that is heard while the body arrives.

The early state can only save time. Its result is used if it needs at most one more decode when the
body is complete; otherwise, and after anything unexpected, the job is transcribed from its body
like any file. Worker thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from app.audio.endpoint import Extent
from app.audio.windows import MAX_SECONDS
from app.decoding.hypothesis import join
from app.messages import Request, Segment, Transcript
from app.worker.job import Job
from app.worker.job_settings import JobSettings
from app.worker.live.job import LiveJob
from app.worker.live.live_audio import Heard, LiveAudio
from app.worker.live.utterances import Due, Final, Utterances


class Command:
    """The early state of one command."""

    def __init__(
        self, job: LiveJob, audio: LiveAudio, utterances: Utterances, settings: JobSettings
    ) -> None:
        self.live_job = job
        self.job: Job | None = None
        """The complete request, once it has come."""
        self._audio = audio
        self._utterances = utterances
        self._settings = settings
        self._is_multi = utterances.decoder.language.is_multi
        self.segments: list[Segment] = []
        """The segments of all utterances with a result."""
        self._decided = 0
        """Number of utterances with a result."""
        self._ended = False
        self._failed = False
        self._worked_at: float | None = None
        """When the first work after the end of the body began."""
        self.spent = 0.0
        """Seconds of work."""

    @property
    def number(self) -> int:
        return self.live_job.number

    @property
    def gave_up(self) -> bool:
        """Whether the job is transcribed from its body."""
        return self._failed

    @property
    def due(self) -> Due | None:
        """The next decode. Nobody waits for it before the body is complete."""
        due = self._utterances.due
        return Due.SPECULATION if due is Due.FINAL and not self._ended else due

    @property
    def due_seconds(self) -> float:
        return self._utterances.due_seconds

    @property
    def wants_more(self) -> bool:
        """Whether there is more to hear."""
        return self._audio.has_block and not self._failed

    @property
    def is_open(self) -> bool:
        """Whether an utterance is open or waits for its result."""
        return self._audio.extent is not None or self._utterances.waiting > 0

    @property
    def lag_seconds(self) -> float:
        """Seconds of audio that are received and not heard."""
        return self._audio.unheard_seconds

    @property
    def outcome(self) -> Transcript | None:
        """The transcript, once the body is complete and all of it has a result."""
        job = self.job
        if job is None or not self._ended or self._failed or self._utterances.waiting:
            return None
        decoder = self._utterances.decoder
        language, probability = decoder.language.summary()
        worked_at = time.monotonic() if self._worked_at is None else self._worked_at
        return Transcript(
            text=join(self.segments),
            language=language,
            language_probability=probability,
            segments=tuple(self.segments),
            audio_seconds=self._audio.seconds,
            queue_seconds=max(0.0, worked_at - job.queued_at),
            processing_seconds=self.spent,
            model=self._settings.model,
            truncated=self._audio.is_truncated,
            encoder_context=decoder.encoder_context,
            passes=decoder.passes,
            second_passes=decoder.second_passes,
        )

    def put(self, data: bytes) -> None:
        """Take audio, to be heard later."""
        self._audio.add(data)

    def submit(self, job: Job) -> None:
        """Take the complete request."""
        self.job = job

    def give_up(self) -> None:
        """Leave the job to its body."""
        self._failed = True
        self._utterances.give_up()

    def hear(self, most: int) -> int:
        """Hear at most about `most` bytes of the inbox; return the number that was heard."""
        before = self._audio.heard_bytes
        while self._audio.has_block and self._audio.heard_bytes - before < most:
            self._note(self._audio.hear())
        self._utterances.follow()
        if self._is_hopeless():
            self.give_up()
        return self._audio.heard_bytes - before

    def turn(self) -> None:
        """Do what is due. Raises `EngineError` and `EngineAborted`."""
        if self._ended and self._worked_at is None:
            self._worked_at = time.monotonic()
        self._utterances.turn()

    def settle(self) -> list[Final]:
        """Take what is decoded, and return it; decide about the early state at the end."""
        if self.job is not None and not (self._ended or self._failed or self.wants_more):
            self._ended = True
            self._note(self._audio.end())
            self._utterances.follow()
        finals = self._utterances.take()
        for final in finals:
            self._decided += 1
            self.segments += final.segments
        if self._ended and not self._failed and not self._is_usable():
            self.give_up()
        return finals

    def _note(self, events: Iterable[Heard]) -> None:
        for heard in events:
            if isinstance(heard, Extent):
                at = time.monotonic() if self.job is None else self.job.queued_at
                self._utterances.complete(heard, at)

    def _is_usable(self) -> bool:
        """Return whether at most one decode is missing at the end of the body."""
        assert self.job is not None
        if _decoding(self.job.request) != _decoding(self.live_job.request):
            return False
        if (
            self._audio.received_bytes != self.job.body.size
            or self._audio.seconds > self._settings.max_seconds
        ):
            return False
        if self._utterances.waiting:
            begun = self._decided > 0 or self._utterances.is_decoding
            return self._utterances.waiting == 1 and begun
        # Without words the body deserves the second look of a file.
        return bool(self.segments)

    def _is_hopeless(self) -> bool:
        waiting = self._utterances.waiting
        if self._is_multi and (self._decided or waiting or self._audio.resumptions):
            # The windows of a file end at pauses, and each may have another language.
            return True
        return waiting > 0 and self._audio.held_seconds >= MAX_SECONDS


def _decoding(request: Request) -> Request:
    """Return the part of a request that the result depends on. A client may change its options
    after the audio has begun."""
    return replace(request, id="", content_length=None, reply="transcript", token=None)
