"""Builds the node: makes its parts and connects them.

Main thread, before the loop begins. `app/__main__.py` runs what is built here, and the tests build
the same node around a fake engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.audio.vad import Detector
from app.decoding.transcriber import ModelInfo, Transcriber, Yielding
from app.network.loop import Loop
from app.network.pulse import LoopPulse
from app.output.stdout import StdoutSink
from app.requests.access import Access
from app.requests.commit import Commit
from app.requests.dispatch import Dispatch
from app.requests.early import early_audio
from app.requests.in_flight import InFlight
from app.requests.outcomes import Observer, OutcomeLog, Outcomes
from app.requests.pipeline import Pipeline
from app.requests.quota import Quota
from app.requests.sessions import Sessions
from app.requests.streams import Streams
from app.requests.uploads import Uploads
from app.requests.waiting_line import Source
from app.server import Limits, Reports, Server, Threads
from app.sources.journal import JournalSource
from app.sources.queue import QueueSource
from app.storage.disk import Disk
from app.storage.journal import Journal
from app.storage.spool import Spool
from app.worker.health import Health
from app.worker.job import JobSettings
from app.worker.worker import Worker

if TYPE_CHECKING:
    # Its imports need requirements-queue.txt.
    from app.queue.thread import QueueThread


@dataclass(frozen=True, slots=True)
class Foundation:
    """The parts that all others stand on: the loop, and the disk thread with its files."""

    loop: Loop
    disk: Disk
    journal: Journal | None
    spool: Spool


@dataclass(frozen=True, slots=True)
class EngineParts:
    """The engine, and what the worker needs beside it. `abort` stops the decodes in progress.
    `more` are further engines for the same model; all together share `threads` processors. A
    single engine may be `yielding`: it gives windows of files up for live audio."""

    transcriber: Transcriber
    model: ModelInfo
    abort: Callable[[], None]
    new_detector: Callable[[], Detector]
    settings: JobSettings
    new_live_detector: Callable[[], Detector] | None = None
    more: Sequence[Transcriber] = ()
    threads: int = 1
    yielding: Yielding | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A node that was built; its threads are not started."""

    worker: Worker
    disk: Disk
    sink: StdoutSink
    journal: Journal | None
    server: Server
    queue: QueueThread | None = None


@dataclass(frozen=True, slots=True)
class QueueParts:
    """`new_thread` makes the thread of the broker from a function that wakes the loop, and one that
    returns why the node is stuck. `places` is the number of jobs held at a time."""

    new_thread: Callable[[Callable[[], None], Callable[[], str | None]], QueueThread]
    places: int


def foundation(spool_dir: Path, journal_dir: Path | None, max_copied_bytes: int) -> Foundation:
    """Make the loop, the disk thread, and the places of bodies. Raises `JournalError`."""
    loop = Loop()
    disk = Disk(loop.wake)
    if journal_dir is None:
        return Foundation(loop, disk, None, Spool(spool_dir, disk))
    journal = Journal(journal_dir, disk, spool_dir, max_copied_bytes)
    # Large bodies are written where they can stay.
    return Foundation(loop, disk, journal, Spool(journal.scratch, disk, journal.copies))


def node(
    base: Foundation,
    engine: EngineParts,
    sink: StdoutSink,
    limits: Limits,
    *,
    authorize: Callable[[str | None], bool],
    reports: Reports,
    observers: Sequence[Observer],
    on_drain: Callable[[], None],
    queue: QueueParts | None = None,
    log_outcomes: OutcomeLog = "code",
) -> Node:
    """Build the node. `authorize` returns whether a token is valid; `on_drain` is called when the
    drain begins; `queue` is None without a broker; `log_outcomes` is that of `Outcomes`."""
    loop, disk, journal = base.loop, base.disk, base.journal
    worker = Worker(
        engine.transcriber,
        engine.new_detector,
        engine.settings,
        loop.wake,
        (lambda _name: None) if journal is None else journal.crash_marker.set,
        engine.new_live_detector,
        engine.more,
        engine.threads,
        engine.yielding,
    )
    access = Access(authorize)
    thread: QueueThread | None = None
    if queue is not None:
        pulse, health = LoopPulse(loop), Health(*worker.threads)
        thread = queue.new_thread(loop.wake, lambda: pulse.stuck() or health.fault())
    pipeline = _pipeline(
        base,
        worker,
        Outcomes(sink, observers, log=log_outcomes),
        engine=engine,
        limits=limits,
        access=access,
        queue=None if thread is None or queue is None else (thread, queue.places),
        # The server is made later, and no request is done before the loop runs.
        on_done=lambda in_flight: server.on_done(in_flight),
    )
    server = Server(
        loop,
        pipeline,
        Threads(worker, disk, journal, thread),
        access=access,
        limits=limits,
        reports=reports,
        abort=engine.abort,
        on_drain=on_drain,
    )
    return Node(worker, disk, sink, journal, server, thread)


def _pipeline(
    base: Foundation,
    worker: Worker,
    outcomes: Outcomes,
    *,
    engine: EngineParts,
    limits: Limits,
    access: Access,
    queue: tuple[QueueThread, int] | None,
    on_done: Callable[[InFlight], None],
) -> Pipeline:
    """Connect the stages of a request."""
    numbers = itertools.count(1)
    quota = Quota(limits.queue_size, limits.max_buffered_bytes)
    dispatch = Dispatch(worker, outcomes, on_done)
    commit = Commit(base.disk, base.journal, dispatch, outcomes, on_done)
    sources: list[Source] = []
    if base.journal is not None:
        sources.append(
            JournalSource(
                base.journal,
                base.disk,
                quota=quota,
                dispatch=dispatch,
                outcomes=outcomes,
                numbers=numbers,
                on_free=base.loop.wake,
            )
        )
    if queue is not None:
        sources.append(
            QueueSource(
                queue[0],
                loop=base.loop,
                model=engine.model,
                spool=base.spool,
                quota=quota,
                dispatch=dispatch,
                outcomes=outcomes,
                numbers=numbers,
                places=queue[1],
                on_done=on_done,
            )
        )
    settings = engine.settings
    streams = Streams(base.loop, dispatch, outcomes, settings.max_live, settings.max_seconds)
    uploads = Uploads(
        loop=base.loop,
        model=engine.model,
        spool=base.spool,
        quota=quota,
        sources=sources,
        dispatch=dispatch,
        commit=commit,
        outcomes=outcomes,
        access=access,
        streams=streams,
        numbers=numbers,
        reject_when_full=limits.reject_when_full,
        # Without a detector nothing says when a command is over.
        early=lambda in_flight: (
            early_audio(in_flight, dispatch) if settings.vad_threshold else None
        ),
    )
    sessions = Sessions(
        access,
        outcomes,
        closed=lambda: uploads.line.closed,
        full=lambda: streams.full or not quota.has_room_for_stream,
        busy_seconds=lambda: dispatch.busy_seconds,
    )
    return Pipeline(quota, uploads, commit, dispatch, outcomes, sessions, sources)
