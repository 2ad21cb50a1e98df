"""The jobs with complete bodies: files, and commands that are decoded after their last byte.

Each is begun at its first turn and transcribed turn by turn. An error becomes the job's `Failure`.
Threads of the worker, under its lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import structlog

from app.audio.mix import SpeechTest
from app.audio.vad import Detector
from app.decoding.transcriber import Transcriber
from app.messages import Outcome
from app.worker.completions import Completion, Finished, Progress
from app.worker.detectors import Detectors
from app.worker.failures import RESET, STOPPED, failure_of, is_expected
from app.worker.job import Job, JobSettings, Transcription
from app.worker.scheduler import Scheduler
from app.worker.split import SplitTranscription

_log = structlog.get_logger("worker")


class FileJobs:
    """The jobs in `scheduler` that have bodies; `tell` receives what is completed. All calls are
    made under the worker's lock, which `left` leaves while a job is read and decoded. Meanwhile
    the caller passes on nothing that concerns the job."""

    def __init__(
        self,
        engine: Transcriber,
        detectors: Detectors,
        speaks: SpeechTest,
        settings: JobSettings,
        scheduler: Scheduler,
        tell: Callable[[list[Completion]], None],
        left: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._engine = engine
        self._detectors = detectors
        self._speaks = speaks
        self._settings = settings
        self._scheduler = scheduler
        self._tell = tell
        self._left = left
        self._jobs: dict[int, Job] = {}
        self._begun: dict[int, Transcription | SplitTranscription] = {}
        self._borrowed: dict[int, Detector] = {}

    def get(self, number: int) -> Job | None:
        """Return an unfinished job, None if there is none of this number."""
        return self._jobs.get(number)

    @property
    def numbers(self) -> Iterable[int]:
        """The numbers of the unfinished jobs."""
        return self._jobs

    def accept(self, job: Job) -> None:
        """Take a job that is transcribed from its body."""
        self._jobs[job.number] = job
        self._scheduler.add(job.number, job.client, job.connection, job.guessed_seconds)

    def cancel(self, number: int) -> bool:
        """Drop what has not begun of a job; False if there is none of this number."""
        job = self._jobs.get(number)
        if job is not None:
            self._finish(job, RESET)
        return job is not None

    def stop(self) -> None:
        """End all jobs, unfinished."""
        for job in list(self._jobs.values()):
            self._finish(job, STOPPED)

    def turn(self, job: Job) -> None:
        """Decode the next window of a job."""
        try:
            if job.number not in self._borrowed:
                self._borrowed[job.number] = self._detectors.lend()
            with self._left():
                work = self._begun.get(job.number) or self._begin(job)
                segments, done = work.turn()
                outcome = work.transcript() if done else None
            self._scheduler.update(job.number, work.seconds_left)
        except Exception as error:
            # Nothing a body can hold may end the thread that serves all the others.
            if not is_expected(error):
                _log.exception("job failed", id=job.request.id)
            self._finish(job, failure_of(error))
            return
        if job.request.reply == "segments" and segments:
            self._tell([Progress(job.number, segment) for segment in segments])
        if outcome is not None:
            self._finish(job, outcome)

    def _begin(self, job: Job) -> Transcription | SplitTranscription:
        detector = self._borrowed[job.number]

        def begin(channel: int | None) -> Transcription:
            return Transcription(job, self._engine, detector, self._settings, self._speaks, channel)

        is_split = job.request.channel_mode == "split"
        work = SplitTranscription(begin) if is_split else begin(None)
        self._begun[job.number] = work
        return work

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self._scheduler.remove(job.number)
        del self._jobs[job.number]
        if work := self._begun.pop(job.number, None):
            work.close()
        if detector := self._borrowed.pop(job.number, None):
            self._detectors.give_back(detector)
        job.body.close()
        self._tell([Finished(job.number, outcome)])
