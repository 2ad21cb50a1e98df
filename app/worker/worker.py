"""The worker: takes the next job, decodes one window, and returns completions.

The loop thread calls the public methods (`app/worker/front.py`). Everything else runs on the
worker's own threads, one for each engine. They share the scheduler, the live jobs and the bodies
under one lock (`app/worker/monitor.py`), which a thread leaves only for the turn of one job; mail
for that job waits until its turn is over. Loop and worker exchange lists
(`app/worker/mailbox.py`). The worker announces a completion by calling `wake`, outside the
mailbox's lock. A thread sleeps when it has nothing to do. An error in a job becomes that job's
`Failure` and does not end the thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from app.audio.probe import ChannelProbe
from app.audio.vad import Detector
from app.decoding.transcriber import Transcriber, Yielding
from app.worker.completions import Completion
from app.worker.crew import Crew
from app.worker.detectors import Detectors
from app.worker.file_jobs import FileJobs
from app.worker.front import Front
from app.worker.job import Job, JobSettings
from app.worker.live.counters import LiveCounts
from app.worker.live.desk import Desk
from app.worker.live.job import LiveJob
from app.worker.mailbox import Cancel, Mail
from app.worker.monitor import Monitor
from app.worker.scheduler import Scheduler
from app.worker.seats import OwnEngine, Seat, WorkerThread
from app.worker.turns import Turns

_PROBE_THRESHOLD = 0.5
"""Channels are judged by it where the detector judges no audio (`--vad-threshold 0`)."""

_log = structlog.get_logger("worker")


class Worker(Front, Crew):
    """Runs jobs with `engine` and `more_engines`, on a thread for each.

    `new_detector` makes a voice activity detector for a job, and `new_live_detector`, if given, one
    for a live job. `wake` is called, on a thread of the worker, whenever there are completions to
    take. `mark` is called before each turn with the journal's name of the job, or the names of all
    jobs that have a turn, with `MARK_SEPARATOR` between them; the name is empty when no job is
    left. `threads` is the number of processors that several engines share. `yielding` is the only
    engine, if windows of files are to be given up for live audio.
    """

    def __init__(
        self,
        engine: Transcriber,
        new_detector: Callable[[], Detector],
        settings: JobSettings,
        wake: Callable[[], None],
        mark: Callable[[str], None] = lambda name: None,
        new_live_detector: Callable[[], Detector] | None = None,
        more_engines: Sequence[Transcriber] = (),
        threads: int = 1,
        yielding: Yielding | None = None,
    ) -> None:
        Front.__init__(self)
        ear = None if yielding is None else self._run_ear
        Crew.__init__(self, (engine, *more_engines), self._run, ear)
        self._monitor = Monitor()
        self._own_engine = OwnEngine()
        self._detectors = Detectors(new_detector, len(self.seats))
        self._probe = ChannelProbe(new_detector, settings.vad_threshold or _PROBE_THRESHOLD)
        self._wake = wake
        self._scheduler = Scheduler()
        self._live_detectors = Detectors(new_live_detector or new_detector, settings.max_live)
        parts = self._probe, settings, self._scheduler
        left = self._monitor.left
        own = self._own_engine
        self._files = FileJobs(own, self._detectors, *parts, self._announce, left)
        self._live = Desk(own, self._live_detectors, *parts, self._files.accept, left)
        jobs = self._scheduler, self._files, self._live
        self._turns = Turns(self.seats, *jobs, mark, threads, yielding)
        self._late_mail: dict[int, list[Mail]] = {}
        """Mail of the jobs whose turn is in progress."""
        self._receiver: WorkerThread | None = None
        """The thread that sleeps until there is mail."""
        self._serving = len(self.seats)
        """Number of threads that have not ended their service."""
        self.failed = False
        """True once a thread has ended by a fault of its own."""
        self._warm = threading.Event()
        self._turn_count = 0

    def wait_until_warm(self) -> bool:
        """Wait until the first job would be as fast as any other; False if the engine failed."""
        self._warm.wait()
        return not self.failed

    @property
    def utterances(self) -> int:
        """Number of streams with an utterance in progress. Any thread."""
        return self._live.utterances

    @property
    def given_up(self) -> int:
        """Number of windows of files that were given up for live audio. Any thread."""
        return self._turns.given_up

    @property
    def live_counts(self) -> LiveCounts:
        """What live audio has done so far. Any thread."""
        return self._live.counter.counts

    def _run(self, seat: Seat) -> None:
        try:
            seat.take_clock()
            self._own_engine.sit(seat)
            # The first job should not wait for either.
            self._own_engine.warm_up()
            if seat is self.seats[0]:
                self._detectors.prepare()
            with self._monitor:
                seat.is_warm = True
                if all(seat.is_warm for seat in self.seats):
                    self._warm.set()
                self._serve(seat)
        except Exception:
            self._fail()

    def _run_ear(self) -> None:
        assert self._ear is not None
        try:
            self._ear.take_clock()
            with self._monitor:
                self._listen(self._ear)
        except Exception:
            self._fail()

    def _fail(self) -> None:
        # The fault is not a job's: those are caught. Without a worker the node is of no use.
        _log.critical("the worker has failed", exc_info=True)
        self.failed = True
        self._warm.set()
        self._mailbox.stop()
        self._wake()

    def _listen(self, ear: WorkerThread) -> None:
        """Take the mail and hear while a window of a file is decoded, and let it give way."""
        while not self._mailbox.is_stopping:
            if self._turns.decodes_file:
                mail, _ = self._mailbox.take()
                for item in mail:
                    self._take(item)
                if self._live.is_hungry:
                    self._in_turn(ear, self._live.hear)
                self._announce(self._live.take_completions())
                self._turns.give_way()
                if self._live.is_hungry:
                    continue
            received = self._sleep(ear, may_receive=self._turns.decodes_file)
            if received and not self._turns.decodes_file:
                # The thread of the engine receives the mail again.
                self._mailbox.nudge()

    def _serve(self, seat: Seat) -> None:
        live = self._live
        while self._collect(seat):
            if live.is_hungry:
                self._in_turn(seat, live.hear)
                self._announce(live.take_completions())
            number = self._turns.next()
            if number is not None:
                client = self._client(number)
                began = time.monotonic()
                self._scheduler.begin(number)
                self._have_turn(seat, number, partial(self._turn, number))
                self._scheduler.end(number)
                self._scheduler.charge(client, time.monotonic() - began)
                self._take_late(number)
            elif self._wants_partial and self._mailbox.is_empty and not live.is_hungry:
                number = live.next_partial
                assert number is not None
                # Nobody waits, so nobody is charged.
                self._have_turn(seat, number, partial(live.decode_partial, number))
                self._announce(live.take_completions())
                self._take_late(number)
        self._serving -= 1
        if not self._serving:
            self._files.stop()
            live.stop()
            self._announce(live.take_completions())

    def _in_turn(self, thread: WorkerThread, work: Callable[[], None]) -> None:
        self._turn_count += 1
        thread.turn = self._turn_count, time.monotonic()
        work()
        thread.turn = None

    def _have_turn(self, seat: Seat, number: int, work: Callable[[], None]) -> None:
        self._turns.begin(seat, number)
        has_other = len(self.seats) > 1 or (self._ear is not None and self._turns.decodes_file)
        if has_other:
            # Another thread may receive the mail, or begin the turn of another job.
            self._mailbox.nudge()
        self._in_turn(seat, work)
        self._turns.end(seat)
        if has_other and self._ear is not None:
            self._mailbox.nudge()

    @property
    def _wants_partial(self) -> bool:
        return self._turns.may_begin and self._live.next_partial is not None

    @property
    def _has_work(self) -> bool:
        return self._turns.has_next or self._live.is_hungry or self._wants_partial

    def _collect(self, seat: Seat) -> bool:
        """Take the mail; sleep while there is neither mail nor work. False when it is time to
        go."""
        while True:
            mail, stopping = self._mailbox.take()
            for item in mail:
                self._take(item)
            self._announce(self._live.take_completions())
            if stopping or self._has_work:
                return not stopping
            if not self._rest(seat):
                self._sleep(seat)

    def _sleep(self, thread: WorkerThread, may_receive: bool = True) -> bool:
        """Sleep until there may be work for `thread`. Return whether it was the one to receive the
        mail."""
        nudges, receives = self._mailbox.nudges, may_receive and self._receiver is None
        if receives:
            self._receiver = thread
        with self._monitor.left():
            self._mailbox.wait(nudges, receives)
        if receives:
            self._receiver = None
        return receives

    def _rest(self, seat: Seat) -> bool:
        """Let the engine rest if it has worked; return whether it did. Others may have worked
        meanwhile."""
        self._turns.rest()
        if not self._mailbox.is_empty:
            return False
        if not self._turns.in_progress:
            self._scheduler.settle()
        # While somebody speaks, the engine is as the last utterance needed it, and probably the
        # next.
        if not seat.has_worked or self._live.keeps_engine:
            return False
        seat.has_worked = False
        with self._monitor.left():
            # Mail that comes meanwhile waits no longer than for a window.
            self._own_engine.rest()
        return True

    def _take(self, mail: Mail) -> None:
        if self._turns.has(mail.number):
            self._late_mail.setdefault(mail.number, []).append(mail)
        elif isinstance(mail, Job):
            if not self._live.submit(mail):
                self._files.accept(mail)
        elif isinstance(mail, LiveJob):
            self._live.listen(mail)
        elif not isinstance(mail, Cancel):
            self._live.take(mail)
        elif not self._files.cancel(mail.number):
            self._live.cancel(mail.number)

    def _take_late(self, number: int) -> None:
        """Take the mail that came for a job during its turn."""
        for mail in self._late_mail.pop(number, ()):
            self._take(mail)

    def _client(self, number: int) -> str:
        job = self._files.get(number)
        return self._live.client(number) if job is None else job.client

    def _turn(self, number: int) -> None:
        job = self._files.get(number)
        if job is not None:
            self._files.turn(job)
            return
        self._live.turn(number)
        self._announce(self._live.take_completions())

    def _announce(self, completions: list[Completion]) -> None:
        if completions:
            self._mailbox.complete(completions)
            self._wake()
