"""A stream in the worker: it is heard while it arrives, and each utterance is final once decoded.

A stream holds audio only for its utterances in progress. It is not heard further while it has no
place for an utterance that began, nor while a whole window's worth of audio waits for the engine.
Its audio then stays in its inbox, and the loop stops reading. Worker thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from app.audio.endpoint import Began
from app.audio.samples import SAMPLE_RATE
from app.audio.windows import MAX_SECONDS
from app.decoding.hypothesis import join
from app.live import (
    Clear,
    Commit,
    Committed,
    LiveEvent,
    LiveReport,
    Partial,
    SpeechBegan,
    SpeechEnded,
)
from app.messages import Outcome, Segment, Streamed, Transcript, Utterance
from app.worker.job_settings import JobSettings
from app.worker.live.job import Audio, AudioEnd, Control, LiveJob, LiveMail
from app.worker.live.live_audio import Heard, LiveAudio
from app.worker.live.partials import Partials
from app.worker.live.places import Places
from app.worker.live.utterances import Due, Final, Utterances

_CONSUMED_SECONDS = 0.25
"""Least audio that is reported as consumed."""

Report = Utterance | LiveReport


class Stream:
    """The work on one stream."""

    def __init__(
        self,
        job: LiveJob,
        audio: LiveAudio,
        utterances: Utterances,
        places: Places,
        settings: JobSettings,
    ) -> None:
        self.live_job = job
        assert job.request.live is not None
        self._request = job.request
        self._options = job.request.live
        self._audio = audio
        self._utterances = utterances
        self._partials = Partials(audio)
        self._places = places
        self._settings = settings
        self._inbox: deque[LiveMail] = deque()
        self._bytes_per_second = job.frame_bytes * job.raw.sample_rate
        self._reported_bytes = 0
        """Bytes that were reported as consumed."""
        self._heard_at = 0.0
        """When the mail arrived that was handled last (`time.monotonic()`)."""
        self._unreported: Began | None = None
        """The beginning of the open utterance, until it has a place."""
        self._commits: deque[tuple[int, float]] = deque()
        """Of each `Commit`, the number of utterances before it and the seconds of audio."""
        self._reports: list[Report] = []
        self._completed = 0
        """Number of utterances that were completed."""
        self._decided = 0
        """Number of utterances with a result."""
        self._spoken = 0
        """Number of utterances with words."""
        self._count = 0
        """Number of segments."""
        self._segments: list[Segment] = []
        """All segments, if the outcome has the whole text."""
        self._ended = False
        self._truncated = False
        self.partial_at = 0.0
        """When the last partial was decoded (`time.monotonic()`)."""
        self.spent = 0.0
        """Seconds of work."""

    @property
    def due(self) -> Due | None:
        """The next decode."""
        return self._utterances.due if self._places.has(self.live_job.number) else None

    @property
    def due_seconds(self) -> float:
        return self._utterances.due_seconds

    @property
    def wants_more(self) -> bool:
        """Whether there is more to hear, or an utterance waits for a place."""
        has_place = not self.is_open or self._places.has(self.live_job.number)
        return bool(self._inbox) or self._audio.has_block or not has_place

    @property
    def wants_partial(self) -> bool:
        """Whether the open utterance may be decoded as far as it goes, if nothing else waits."""
        if not self._options.partials or self._utterances.waiting:
            return False
        return self._partials.is_due and self._places.has(self.live_job.number)

    @property
    def is_open(self) -> bool:
        """Whether an utterance is open or waits for its result."""
        return self._audio.extent is not None or self._utterances.waiting > 0

    @property
    def lag_seconds(self) -> float:
        """Seconds of audio that are received or complete, and have no result."""
        unheard = sum(len(mail.data) for mail in self._inbox if isinstance(mail, Audio))
        return (
            unheard / self._bytes_per_second
            + self._audio.unheard_seconds
            + self._utterances.waiting_seconds
        )

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, once the audio is over and all of it has a result."""
        if not self._ended or self._utterances.waiting:
            return None
        language, probability = self._utterances.decoder.language.summary()
        if self._request.reply != "transcript":
            return Streamed(
                language=language,
                utterances=self._spoken,
                segments=self._count,
                audio_seconds=self._audio.seconds,
                processing_seconds=self.spent,
                model=self._settings.model,
                truncated=self._truncated,
            )
        decoder = self._utterances.decoder
        return Transcript(
            text=join(self._segments),
            language=language,
            language_probability=probability,
            segments=tuple(self._segments),
            audio_seconds=self._audio.seconds,
            queue_seconds=0.0,
            processing_seconds=self.spent,
            model=self._settings.model,
            truncated=self._truncated or self._audio.is_truncated,
            encoder_context=decoder.encoder_context,
            passes=decoder.passes,
            second_passes=decoder.second_passes,
        )

    def put(self, mail: LiveMail) -> None:
        """Take mail, to be heard later."""
        self._inbox.append(mail)
        if isinstance(mail, AudioEnd):
            self._truncated = self._truncated or mail.truncated

    def hear(self, most: int) -> int:
        """Hear at most about `most` bytes of the inbox; return the number that was heard."""
        before = self._audio.heard_bytes
        while self._admit() and self._audio.heard_bytes - before < most:
            if self._audio.has_block:
                self._note(self._audio.hear())
            elif self._inbox:
                self._handle(self._inbox.popleft())
            else:
                break
        self._utterances.follow()
        self._leave_place()
        return self._audio.heard_bytes - before

    def take_consumed(self) -> int:
        """Return the bytes that were heard since they were last reported, 0 if they are few."""
        size = self._audio.heard_bytes - self._reported_bytes
        if size < _CONSUMED_SECONDS * self._bytes_per_second:
            return 0
        self._reported_bytes += size
        return size

    def turn(self) -> None:
        """Do what is due. Raises `EngineError` and `EngineAborted`."""
        self._utterances.turn()
        guess = self._utterances.guess
        if self._options.partials and guess is not None:
            language = guess.decoder.language.last
            self._report(self._partials.take(guess.extent, join(guess.segments), language))

    def decode_partial(self) -> None:
        """Decode the open utterance as far as it goes. Raises as `turn` does."""
        self.partial_at = time.monotonic()
        self._report(self._partials.turn(self._utterances.fork()))

    def settle(self) -> list[Final]:
        """Decide what is decoded, and return it; its reports are among `take_reports`."""
        finals = self._utterances.take()
        for final in finals:
            self._decide(final)
        self._leave_place()
        return finals

    def take_reports(self) -> list[Report]:
        """Return what there is to report since the last call, in order."""
        reports, self._reports = self._reports, []
        return reports

    def _admit(self) -> bool:
        """Take a place if one is needed; return whether the stream may be heard further."""
        number = self.live_job.number
        if self.is_open and not self._places.take(number, self.live_job.client):
            return False
        if self._unreported is not None:
            began, self._unreported = self._unreported, None
            if self._options.reports_speech:
                self._reports.append(SpeechBegan(began.start / SAMPLE_RATE))
        is_behind = self._utterances.waiting and self._audio.held_seconds >= MAX_SECONDS
        return not (self._ended or is_behind)

    def _leave_place(self) -> None:
        if not self.is_open:
            self._places.give(self.live_job.number)

    def _handle(self, mail: LiveMail) -> None:
        self._heard_at = mail.at
        if isinstance(mail, Audio):
            self._audio.add(mail.data)
        elif isinstance(mail, Control):
            self._control(mail.event)
        else:
            self._note(self._audio.end())
            self._ended = True
            self._inbox.clear()

    def _control(self, event: LiveEvent) -> None:
        if isinstance(event, Commit):
            self._note(self._audio.commit())
            self._commits.append((self._completed, self._audio.seconds))
            self._report_commits()
        elif isinstance(event, Clear):
            self._audio.clear()
            self._utterances.clear()
            self._unreported = None
        else:
            self._options = event.options
            self._audio.configure(event.options)
            language = self._request.language if event.language is None else event.language
            prompt = self._request.prompt if event.prompt is None else event.prompt
            self._request = replace(self._request, language=language, prompt=prompt)

    def _note(self, events: Iterable[Heard]) -> None:
        for heard in events:
            if isinstance(heard, Began):
                self._unreported = heard
                self._utterances.open(self._request)
                continue
            self._completed += 1
            self._utterances.complete(heard, self._heard_at)
            if self._options.reports_speech:
                self._reports.append(SpeechEnded(heard.end / SAMPLE_RATE))

    def _decide(self, final: Final) -> None:
        segments = final.segments
        self._spoken += bool(segments)
        self._count += len(segments)
        if self._request.reply == "transcript":
            self._segments += segments
        elif segments or self._options.reports_speech:
            start, end = final.extent.speech_start, final.extent.speech_end
            self._reports.append(
                Utterance(start / SAMPLE_RATE, end / SAMPLE_RATE, segments, final.language)
            )
        self._decided += 1
        self._report_commits()

    def _report(self, partial: Partial | None) -> None:
        if partial is not None:
            self._reports.append(partial)

    def _report_commits(self) -> None:
        """Report the commits whose utterances all have a result."""
        while self._commits and self._commits[0][0] <= self._decided:
            self._reports.append(Committed(self._commits.popleft()[1]))
