"""The worker thread: takes the next job, decodes one window, and returns completions.

The loop thread calls `submit`, `cancel`, `take_completions` and `stop`. Everything else runs on the
worker's own thread, which alone uses the engine, the scheduler and the bodies of its jobs. The two
threads exchange lists under one lock, swapped as a whole. The worker announces a completion by
calling `wake`, outside the lock. It sleeps on a condition when it has nothing to do. An error in a
job becomes that job's `Failure` and does not end the thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.audio.probe import ChannelProbe
from app.audio.stream import AudioError
from app.audio.vad import Detector
from app.decoding.transcriber import EngineAborted, EngineError, Transcriber
from app.messages import (
    CANCELLED,
    INTERNAL,
    SHUTTING_DOWN,
    Completion,
    Failure,
    Finished,
    Outcome,
    Progress,
)
from app.worker.job import Job, JobSettings, Transcription
from app.worker.scheduler import Scheduler
from app.worker.split import SplitTranscription

_PROBE_THRESHOLD = 0.5
"""Channels are judged by it where the detector judges no audio (`--vad-threshold 0`)."""

_log = structlog.get_logger("worker")


@dataclass(slots=True)
class _Mailbox:
    """The data that the two threads exchange; accessed only under the worker's lock."""

    jobs: list[Job]
    cancelled: set[int]
    completions: list[Completion]
    stopping: bool = False


class Worker:
    """Runs jobs on one thread with one engine.

    `new_detector` makes a voice activity detector for a job; `wake` is called, on the worker's
    thread, whenever there are completions to take. `mark` is called on the same thread before each
    turn with the job's `journal_entry`, and with an empty name when no job is left.
    """

    def __init__(
        self,
        engine: Transcriber,
        new_detector: Callable[[], Detector],
        settings: JobSettings,
        wake: Callable[[], None],
        mark: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._engine = engine
        self._new_detector = new_detector
        self._probe = ChannelProbe(new_detector, settings.vad_threshold or _PROBE_THRESHOLD)
        self._settings = settings
        self._wake = wake
        self._mark = mark
        self._mail = _Mailbox([], set(), [])
        self._condition = threading.Condition()
        self._jobs: dict[int, Job] = {}
        self._begun: dict[int, Transcription | SplitTranscription] = {}
        self._spare_detectors: list[Detector] = []
        self._borrowed: dict[int, Detector] = {}
        self._scheduler = Scheduler()
        self.failed = False
        """True once the thread has ended by a fault of its own."""
        self._warm = threading.Event()
        self.turn: tuple[int, float] | None = None
        """The number of the turn it is in and when that began (`time.monotonic()`); None between
        two turns. May be read from any thread, as `cpu_seconds` may."""
        self._turns = 0
        self._cpu_clock: int | None = None
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_until_warm(self) -> bool:
        """Wait until the first job would be as fast as any other; False if the engine failed."""
        self._warm.wait()
        return not self.failed

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def cpu_seconds(self) -> float:
        """Processor time its thread has used; 0 before it runs and after it ended."""
        try:
            return 0.0 if self._cpu_clock is None else time.clock_gettime(self._cpu_clock)
        except OSError:
            return 0.0

    def submit(self, job: Job) -> None:
        """Hand over a job. Its outcome will be among the completions."""
        with self._condition:
            self._mail.jobs.append(job)
            self._condition.notify()

    def cancel(self, number: int) -> None:
        """Drop what has not begun of a job; it ends with the failure `cancelled` soon after."""
        with self._condition:
            self._mail.cancelled.add(number)
            self._condition.notify()

    def take_completions(self) -> list[Completion]:
        """Everything that became ready since the last call, in order."""
        with self._condition:
            completions, self._mail.completions = self._mail.completions, []
        return completions

    def stop(self) -> None:
        """Begin no further window; every unfinished job ends with `shutting_down`."""
        with self._condition:
            self._mail.stopping = True
            self._condition.notify()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end, at most `seconds`; whether it did."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            # Not a job's fault, those are caught: without a worker the node is of no use.
            _log.critical("the worker has failed", exc_info=True)
            self.failed = True
            self._warm.set()
            self._wake()

    def _serve(self) -> None:
        # Asked for here: for a thread that has ended the C library may crash.
        self._cpu_clock = time.pthread_getcpuclockid(threading.get_ident())
        # The first job should not wait for either.
        self._engine.warm_up()
        self._spare_detectors.append(self._new_detector())
        self._warm.set()
        while self._collect():
            number = self._scheduler.next()
            if number is not None:
                job, began = self._jobs[number], time.monotonic()
                self._turns += 1
                self.turn = self._turns, began
                self._turn(job)
                self.turn = None
                self._scheduler.charge(job.client, time.monotonic() - began)
        for job in list(self._jobs.values()):
            self._finish(job, _stopped())

    def _collect(self) -> bool:
        """Take the mail; sleep if there is neither mail nor work. False when it is time to go."""
        if not self._scheduler:
            self._mark("")
            # Without the lock: mail that comes meanwhile waits no longer than for a window.
            if not self._has_mail():
                self._engine.rest()
        with self._condition:
            while not (self._has_mail() or self._scheduler):
                self._scheduler.settle()
                self._condition.wait()
            jobs, self._mail.jobs = self._mail.jobs, []
            cancelled, self._mail.cancelled = self._mail.cancelled, set()
            stopping = self._mail.stopping
        for job in jobs:
            self._jobs[job.number] = job
            self._scheduler.add(job.number, job.client, job.connection, job.guessed_seconds)
        for number in cancelled & self._jobs.keys():
            self._finish(self._jobs[number], Failure(CANCELLED, "the client reset the connection"))
        return not stopping

    def _has_mail(self) -> bool:
        return bool(self._mail.jobs or self._mail.cancelled or self._mail.stopping)

    def _turn(self, job: Job) -> None:
        self._mark(job.journal_entry)
        try:
            work = self._begun.get(job.number) or self._begin(job)
            segments, done = work.turn()
            outcome = work.transcript() if done else None
            self._scheduler.update(job.number, work.seconds_left)
        except (AudioError, EngineError, EngineAborted) as error:
            self._finish(job, _failure(error))
            return
        except Exception:
            # Nothing a body can hold may end the thread that serves all the others.
            _log.exception("job failed", id=job.request.id)
            self._finish(job, Failure(INTERNAL, "the node failed on this audio; see its log"))
            return
        if job.request.reply == "segments" and segments:
            self._announce([Progress(job.number, segment) for segment in segments])
        if outcome is not None:
            self._finish(job, outcome)

    def _begin(self, job: Job) -> Transcription | SplitTranscription:
        detector = self._spare_detectors.pop() if self._spare_detectors else self._new_detector()
        self._borrowed[job.number] = detector

        def begin(channel: int | None) -> Transcription:
            return Transcription(job, self._engine, detector, self._settings, self._probe, channel)

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
            self._spare_detectors.append(detector)
        job.body.close()
        self._announce([Finished(job.number, outcome)])

    def _announce(self, completions: list[Completion]) -> None:
        with self._condition:
            self._mail.completions += completions
        self._wake()


def _failure(error: AudioError | EngineError | EngineAborted) -> Failure:
    if isinstance(error, AudioError):
        return error.failure
    if isinstance(error, EngineAborted):
        return _stopped()
    return Failure(INTERNAL, str(error))


def _stopped() -> Failure:
    return Failure(SHUTTING_DOWN, "the node stopped before this was done", retry_after_seconds=5.0)
