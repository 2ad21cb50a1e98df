"""All live jobs of one worker: hears them, offers what is due to the scheduler, and decodes it.

A live job has at most one entry in the scheduler: the final of its first complete utterance, or a
speculation on its open one. Hearing, which runs the detector, is not scheduled. Before each choice
of the scheduler the worker calls `hear`, which takes a bounded amount of audio of each job, so that
a burst delays nobody. A fault in a stream is its `Failure`; a command with a fault is transcribed
from its body. Threads of the worker, under its lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import structlog

from app.audio.mix import SpeechTest
from app.decoding.transcriber import Transcriber
from app.live import Partial
from app.messages import Outcome
from app.worker.completions import Completion, Consumed, Finished, Progress
from app.worker.detectors import Detectors
from app.worker.failures import FAULT, RESET, STOPPED, failure_of, is_expected
from app.worker.job import Job
from app.worker.job_settings import JobSettings
from app.worker.live.command import Command
from app.worker.live.counters import Counter
from app.worker.live.hearing_line import HearingLine
from app.worker.live.job import Audio, LiveJob, LiveMail
from app.worker.live.offers import Offers
from app.worker.live.places import Places
from app.worker.live.stream import Stream
from app.worker.live.utterances import Due
from app.worker.live.works import Work, Works
from app.worker.scheduler import Scheduler

_JOB_SECONDS = 2.0
"""Most audio of one job that is heard before another job is."""

_ROUND_SECONDS = 30.0
"""Most audio, about, that is heard before the scheduler is asked. That takes 0.2 s, and a command
that came during a long window is heard to its end before the next window begins."""

_LAG_SECONDS = 0.2
"""Time between two looks at the lag of all jobs, unless a decode follows."""

_log = structlog.get_logger("live")


class Desk:
    """The live jobs. What is due is added to `scheduler`; a command that must be transcribed from
    its body is passed to `transcribe`. All calls are made under the worker's lock, which `left`
    leaves while a job is decoded. Meanwhile the caller passes on nothing that concerns the job."""

    def __init__(
        self,
        engine: Transcriber,
        detectors: Detectors,
        speaks: SpeechTest,
        settings: JobSettings,
        scheduler: Scheduler,
        transcribe: Callable[[Job], None],
        left: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._settings = settings
        self._left = left
        self._transcribe = transcribe
        self._works: dict[int, Work] = {}
        self._line = HearingLine()
        self._offers = Offers(scheduler)
        self._completions: list[Completion] = []
        self._lag_at = 0.0
        self._places = Places(settings.max_live)
        self.counter = Counter()
        self._make = Works(engine, detectors, speaks, settings, self._places, self.counter)

    @property
    def is_open(self) -> bool:
        """Whether there is any live job, also one in which nobody speaks."""
        return bool(self._works)

    @property
    def utterances(self) -> int:
        """Streams with an utterance in progress. Any thread."""
        return self._places.taken

    @property
    def is_hungry(self) -> bool:
        """Whether there is anything to hear now."""
        return self._line.is_hungry

    @property
    def keeps_engine(self) -> bool:
        """Whether the engine should stay as the last decode left it: somebody speaks, or waits for
        a result, or a stream needs the alignment of words again."""
        return any(
            work.is_open or work.live_job.request.word_timestamps for work in self._works.values()
        )

    def client(self, number: int) -> str:
        """Return the client of a live job."""
        return self._works[number].live_job.client

    def take_completions(self) -> list[Completion]:
        """Return what was completed since the last call, in order."""
        completions, self._completions = self._completions, []
        return completions

    def listen(self, job: LiveJob) -> None:
        """Hear a job from now on. A command that finds no place is left to its body."""
        if job.request.live is None and not self._has_room():
            return
        try:
            work = self._make.begin(job)
        except Exception:
            _log.exception("live job failed", id=job.request.id)
            if job.request.live is not None:
                self._completions.append(Finished(job.number, FAULT))
            return
        self._works[job.number] = work
        self._note_now()

    def take(self, mail: LiveMail) -> None:
        """Take mail of a live job; ignore that of an unknown one."""
        work = self._works.get(mail.number)
        if work is None:
            return
        if isinstance(work, Stream):
            work.put(mail)
        elif isinstance(mail, Audio):
            work.put(mail.data)
        self._line.add(mail.number)

    def submit(self, job: Job) -> bool:
        """Take the complete request of a command; False if it is not heard."""
        work = self._works.get(job.number)
        if not isinstance(work, Command):
            return False
        work.submit(job)
        self._line.add(job.number)
        return True

    def cancel(self, number: int) -> None:
        """Drop a live job; ignore an unknown one. A command without its body ends silently."""
        work = self._works.get(number)
        if isinstance(work, Stream) or (work is not None and work.job is not None):
            self._finish(work, RESET)
        elif work is not None:
            self._remove(work)
        self._note_now()

    def stop(self) -> None:
        """End all live jobs, unfinished."""
        for work in list(self._works.values()):
            if isinstance(work, Stream) or work.job is not None:
                self._finish(work, STOPPED)
            else:
                self._remove(work)

    def hear(self) -> None:
        """Hear what has come, up to a bounded amount, and offer what is due."""
        seconds = 0.0
        while self._line.is_hungry and seconds < _ROUND_SECONDS:
            if (work := self._works.get(self._line.take())) is not None:
                seconds += self._hear(work)
        self._note_now()

    def turn(self, number: int) -> None:
        """Decode what is due of a live job."""
        work = self._works[number]
        self._work(work, work.turn)

    @property
    def next_partial(self) -> int | None:
        """The stream that is the longest without a partial, of those that may have one as soon as
        nothing else waits for an engine; None if there is none."""
        free = (number for number in self._places.holders if not self._line.is_held(number))
        works = (self._works[number] for number in free)
        streams = [work for work in works if isinstance(work, Stream) and work.wants_partial]
        stream = min(streams, key=lambda stream: stream.partial_at, default=None)
        return None if stream is None else stream.live_job.number

    def decode_partial(self, number: int) -> None:
        """Decode the partial of a stream that may have one."""
        stream = cast(Stream, self._works[number])
        self._work(stream, stream.decode_partial)

    def _work(self, work: Work, decode: Callable[[], None]) -> None:
        began = time.monotonic()
        try:
            with self._line.held(work.live_job.number), self._left():
                decode()
            work.spent += time.monotonic() - began
            self._settle(work)
        except Exception as error:
            self._fail(work, error)
        self._line.unblock()
        self._note_now()

    def _has_room(self) -> bool:
        """Return whether a further command may be heard early."""
        if self._settings.vad_threshold <= 0:
            return False  # All audio of a file is speech then, and no end of it can be found.
        commands = sum(isinstance(work, Command) for work in self._works.values())
        return not self._places.is_full and commands < self._settings.max_live

    def _hear(self, work: Work) -> float:
        """Hear one job; return the seconds of audio."""
        job, taken = work.live_job, self._places.taken
        bytes_per_second = job.frame_bytes * job.raw.sample_rate
        began = time.monotonic()
        most = int(_JOB_SECONDS * bytes_per_second)
        try:
            size = work.hear(most)
            work.spent += time.monotonic() - began
            if isinstance(work, Stream) and (consumed := work.take_consumed()):
                self._completions.append(Consumed(job.number, consumed))
            if work.wants_more:
                (self._line.add if size >= most else self._line.block)(job.number)
            self._settle(work)
        except Exception as error:
            self._fail(work, error)
            return 0.0
        if self._places.taken < taken:
            self._line.unblock()
        return size / bytes_per_second

    def _settle(self, work: Work) -> None:
        """Report what a job has, finish it if it is done, and offer what is due of it."""
        number = work.live_job.number
        now = time.monotonic()
        for final in work.settle():
            self.counter.note_final(now - final.complete_at, final.was_ready)
        if isinstance(work, Stream):
            reports = work.take_reports()
            self.counter.note_partials(sum(isinstance(report, Partial) for report in reports))
            self._completions += [Progress(number, report) for report in reports]
        elif work.gave_up:
            self._give_up(work)
            return
        if (outcome := work.outcome) is not None:
            if isinstance(work, Command) and work.live_job.request.reply == "segments":
                self._completions += [Progress(number, segment) for segment in work.segments]
            self._finish(work, outcome)
        else:
            self._offer(work)

    def _offer(self, work: Work) -> None:
        """Offer what is due of a job."""
        due = work.due
        if due is Due.SPECULATION and work.live_job.number in self._line:
            # The audio that has come already may show that the speaker goes on.
            due = None
        self._offers.offer(work.live_job, due, work.due_seconds)

    def _fail(self, work: Work, error: Exception) -> None:
        """End a job after a fault: a stream with its failure, a command by way of its body."""
        if not is_expected(error):
            _log.exception("live job failed", id=work.live_job.request.id)
        if isinstance(work, Stream):
            self._finish(work, failure_of(error))
        else:
            _log.debug("command left to its body", id=work.live_job.request.id)
            work.give_up()
            self._give_up(work)

    def _give_up(self, work: Command) -> None:
        self._remove(work)
        if work.job is not None:
            self._transcribe(work.job)

    def _finish(self, work: Work, outcome: Outcome) -> None:
        self._remove(work)
        if isinstance(work, Command) and work.job is not None:
            work.job.body.close()
        self._completions.append(Finished(work.live_job.number, outcome))

    def _remove(self, work: Work) -> None:
        number = work.live_job.number
        del self._works[number]
        self._offers.withdraw(number)
        self._line.remove(number)
        self._make.end(number)
        self._places.give(number)
        self._line.unblock()

    def _note_now(self) -> None:
        now = time.monotonic()
        lag = self.counter.counts.lag_seconds
        if self._line.is_empty and not self._offers:
            lag = 0.0
        elif self._offers or now >= self._lag_at + _LAG_SECONDS:
            self._lag_at = now
            lag = round(max(work.lag_seconds for work in self._works.values()), 3)
        self.counter.note_now(len(self._works), self._places.taken, lag)
