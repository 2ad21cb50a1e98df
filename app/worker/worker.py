"""The worker thread: takes the next job, decodes one window, and returns completions.

The loop thread calls the public methods. Everything else runs on the worker's own thread, which
alone uses the engine, the scheduler, the live jobs and the bodies of its jobs. The two threads
exchange lists (`app/worker/mailbox.py`). The worker announces a completion by calling `wake`,
outside the lock. It sleeps when it has nothing to do. An error in a job becomes that job's
`Failure` and does not end the thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import structlog

from app.audio.probe import ChannelProbe
from app.audio.vad import Detector
from app.decoding.transcriber import Transcriber
from app.live import Clear, Commit, Configure
from app.worker.completions import Completion
from app.worker.detectors import Detectors
from app.worker.file_jobs import FileJobs
from app.worker.job import Job, JobSettings
from app.worker.live.counters import LiveCounts
from app.worker.live.desk import Desk
from app.worker.live.job import Audio, AudioEnd, Control, LiveJob
from app.worker.mailbox import Cancel, Mail, Mailbox
from app.worker.scheduler import Scheduler

_PROBE_THRESHOLD = 0.5
"""Channels are judged by it where the detector judges no audio (`--vad-threshold 0`)."""

_log = structlog.get_logger("worker")


class Worker:
    """Runs jobs on one thread with one engine.

    `new_detector` makes a voice activity detector for a job, and `new_live_detector`, if given, one
    for a live job. `wake` is called, on the worker's thread, whenever there are completions to
    take. `mark` is called on the same thread before each turn with the job's `journal_entry`, and
    with an empty name when no job is left.
    """

    def __init__(
        self,
        engine: Transcriber,
        new_detector: Callable[[], Detector],
        settings: JobSettings,
        wake: Callable[[], None],
        mark: Callable[[str], None] = lambda name: None,
        new_live_detector: Callable[[], Detector] | None = None,
    ) -> None:
        self._engine = engine
        self._detectors = Detectors(new_detector, 0)
        self._probe = ChannelProbe(new_detector, settings.vad_threshold or _PROBE_THRESHOLD)
        self._settings = settings
        self._wake = wake
        self._mark = mark
        self._mailbox = Mailbox()
        self._scheduler = Scheduler()
        self._live_detectors = Detectors(new_live_detector or new_detector, settings.max_live)
        parts = self._probe, settings, self._scheduler
        self._files = FileJobs(engine, self._detectors, *parts, self._announce)
        self._live = Desk(engine, self._live_detectors, *parts, self._files.accept)
        self._has_worked = True
        """Whether the engine has worked since its last rest."""
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

    @property
    def utterances(self) -> int:
        """Number of streams with an utterance in progress. Any thread."""
        return self._live.utterances

    @property
    def live_counts(self) -> LiveCounts:
        """What live audio has done so far. Any thread."""
        return self._live.counter.counts

    def submit(self, job: Job) -> None:
        """Hand over a job. Its outcome will be among the completions. If it is a command that is
        heard already, all its audio must have been fed."""
        self._mailbox.put(job)

    def listen(self, job: LiveJob) -> None:
        """Hear a stream or a command while its audio arrives by `feed`."""
        self._mailbox.put(job)

    def feed(self, number: int, data: bytes) -> None:
        """Hand over the next bytes of a live job's audio, split anywhere."""
        self._mailbox.put_audio(Audio(number, data, time.monotonic()))

    def end(self, number: int) -> None:
        """State that a stream's audio is over; its outcome follows."""
        self._mailbox.put(AudioEnd(number, time.monotonic()))

    def interrupt(self, number: int) -> None:
        """End a stream because the node stops; its outcome is `truncated`."""
        self._mailbox.put(AudioEnd(number, time.monotonic(), truncated=True))

    def commit(self, number: int) -> None:
        """Complete the open utterance of a stream; `Committed` follows."""
        self._mailbox.put(Control(number, Commit(), time.monotonic()))

    def clear(self, number: int) -> None:
        """Drop the open utterance of a stream."""
        self._mailbox.put(Control(number, Clear(), time.monotonic()))

    def configure(self, number: int, event: Configure) -> None:
        """Set the options of the utterances of a stream that begin from now on."""
        self._mailbox.put(Control(number, event, time.monotonic()))

    def cancel(self, number: int) -> None:
        """Drop what has not begun of a job; it ends with the failure `cancelled` soon after. Of a
        command without its `Job` only the early state is dropped, and nothing follows."""
        self._mailbox.put(Cancel(number))

    def take_completions(self) -> list[Completion]:
        """Everything that became ready since the last call, in order."""
        return self._mailbox.take_completions()

    def stop(self) -> None:
        """Begin no further window; every unfinished job ends with `shutting_down`."""
        self._mailbox.stop()

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
        self._detectors.prepare()
        self._warm.set()
        while self._collect():
            if self._live.is_hungry:
                self._in_turn(self._live.hear)
                self._announce(self._live.take_completions())
            number = self._scheduler.next()
            if number is not None:
                client = self._client(number)
                began = time.monotonic()
                self._in_turn(partial(self._turn, number))
                self._scheduler.charge(client, time.monotonic() - began)
            elif self._mailbox.is_empty and not self._live.is_hungry and self._live.wants_partial:
                self._in_turn(self._decode_partial)
        self._files.stop()
        self._live.stop()
        self._announce(self._live.take_completions())

    def _in_turn(self, work: Callable[[], None]) -> None:
        self._turns += 1
        self.turn = self._turns, time.monotonic()
        work()
        self.turn = None

    def _collect(self) -> bool:
        """Take the mail; sleep if there is neither mail nor work. False when it is time to go."""
        live = self._live
        is_idle = not (self._scheduler or live.is_hungry or live.wants_partial)
        if is_idle:
            self._rest()
        mail, stopping = self._mailbox.take(sleep=is_idle)
        for item in mail:
            self._take(item)
        self._announce(self._live.take_completions())
        return not stopping

    def _rest(self) -> None:
        self._mark("")
        # Without the lock: mail that comes meanwhile waits no longer than for a window.
        if not self._mailbox.is_empty:
            return
        self._scheduler.settle()
        # While somebody speaks, the engine is as the last utterance needed it, and probably the
        # next.
        if self._has_worked and not self._live.keeps_engine:
            self._engine.rest()
            self._has_worked = False

    def _take(self, mail: Mail) -> None:
        if isinstance(mail, Job):
            if not self._live.submit(mail):
                self._files.accept(mail)
        elif isinstance(mail, LiveJob):
            self._live.listen(mail)
        elif not isinstance(mail, Cancel):
            self._live.take(mail)
        elif not self._files.cancel(mail.number):
            self._live.cancel(mail.number)

    def _client(self, number: int) -> str:
        job = self._files.get(number)
        return self._live.client(number) if job is None else job.client

    def _turn(self, number: int) -> None:
        self._has_worked = True
        job = self._files.get(number)
        # The journal has no entry of a live job.
        self._mark("" if job is None else job.journal_entry)
        if job is not None:
            self._files.turn(job)
            return
        self._live.turn(number)
        self._announce(self._live.take_completions())

    def _decode_partial(self) -> None:
        # Nobody waits, so nobody is charged.
        self._mark("")
        self._has_worked = True
        self._live.decode_partial()
        self._announce(self._live.take_completions())

    def _announce(self, completions: list[Completion]) -> None:
        if completions:
            self._mailbox.complete(completions)
            self._wake()
