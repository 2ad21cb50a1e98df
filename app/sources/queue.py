"""Jobs of the queue as requests: each arrives, gets its audio, and is submitted to the worker.

The queue thread holds the job's lease; this source holds its request. A job takes a place of the
quota like any request, together at most half of them. The broker keeps the job, so it is not
written to the node's own journal. A job that the node has no space for is handed back, and for a
while no job of its class is asked for. Loop thread only.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog

from app.decoding.transcriber import ModelInfo
from app.messages import Failure, Origin, Outcome, Segment
from app.network.loop import Loop
from app.protocols.native.replies import reply_fields
from app.queue.events import Arrived, Chunk, Fetched, Queue, Room, Stored
from app.queue.job import Job, Refused
from app.queue.names import CLASSES, JobClass
from app.requests.client import QueueClient
from app.requests.dispatch import Dispatch
from app.requests.failures import unservable
from app.requests.in_flight import InFlight
from app.requests.outcomes import Outcomes
from app.requests.quota import Quota
from app.storage.body import Body
from app.storage.spool import Spool

_QUOTA_NAME = "queue"

_MAX_UNWRITTEN_BYTES = 1_048_576
"""Beyond this no further chunk is asked for until the disk has caught up."""

_PAUSE_SECONDS = 30.0
"""Pause of a class, and delay of the job, after the node had no space for it."""

_RACE_SECONDS = 1.0
"""Delay of a job whose place was taken while it was on its way."""

_log = structlog.get_logger("queue")


@dataclass(slots=True, eq=False)
class _Held:
    """A job with a place; the client's `HeldJob`. `body` is None once the worker has it."""

    source: QueueSource
    lease: int
    job_class: JobClass
    in_flight: InFlight = field(init=False)
    body: Body | None = None
    complete: bool = False
    """True once all of the body was received."""
    owed: int = 0
    """Chunks that are not credited yet."""
    outcome: Outcome | None = None

    def announce(self, segment: Segment) -> None:
        self.source.announce(self, segment)

    def settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.source.settled(self)

    def outcome_written(self) -> None:
        assert self.outcome is not None
        self.source.queue.finish(self.lease, self.outcome)

    def hand_back(self, for_space: bool) -> None:
        self.source.hand_back(self, for_space)


class QueueSource:
    """Jobs from `queue`, at most `places` at a time. `on_done` frees the place of a request."""

    def __init__(
        self,
        queue: Queue,
        *,
        loop: Loop,
        model: ModelInfo,
        spool: Spool,
        quota: Quota,
        dispatch: Dispatch,
        outcomes: Outcomes,
        numbers: Iterator[int],
        places: int,
        on_done: Callable[[InFlight], None],
    ) -> None:
        self.queue = queue
        self._loop = loop
        self._model = model
        self._spool = spool
        self._quota = quota
        self._dispatch = dispatch
        self._outcomes = outcomes
        self._numbers = numbers
        self._places = places
        self._on_done = on_done
        self._held: dict[int, _Held] = {}
        """The jobs without an outcome, by lease."""
        self._ending: set[int] = set()
        """The leases of jobs with an outcome that the broker does not have yet."""
        self._full_until: dict[JobClass, float] = {}
        """The classes that the node had no space for."""
        self._room = Room()
        self._closed = False
        self._telling = False

    @property
    def unfinished(self) -> int:
        return len(self._ending)

    def take(self) -> None:
        """Tell the queue thread how many jobs may come, at the end of the loop's turn: an upload is
        in line for a moment even if it gets its place at once."""
        if not self._telling:
            self._telling = True
            self._loop.defer(self._tell)

    def _tell(self) -> None:
        self._telling = False
        now = time.monotonic()
        full = {job_class for job_class, until in self._full_until.items() if until > now}
        free = 0 if self._outcomes.behind else self._quota.direct_places(_QUOTA_NAME)
        room = Room(min(free, self._places), frozenset(CLASSES) - full)
        if room != self._room and not self._closed:
            self._room = room
            self.queue.set_room(room)

    def collect(self) -> None:
        for event in self.queue.take_events():
            if isinstance(event, Arrived):
                self._arrived(event)
            elif isinstance(event, Chunk):
                self._received(event)
            elif isinstance(event, Fetched):
                self._fetched(event)
            else:
                self._over(event)

    def close(self) -> None:
        """Ask for nothing more. Short jobs in the worker are finished, all others handed back."""
        self._closed = True
        self.queue.close()
        for held in list(self._held.values()):
            if held.body is not None:
                self.hand_back(held, for_space=False)
                self._on_done(held.in_flight)
            elif held.job_class != "short":
                self.hand_back(held, for_space=False)
                self._dispatch.withdraw(held.in_flight)

    # What the client of a job reports.

    def announce(self, held: _Held, segment: Segment) -> None:
        fields = reply_fields(held.in_flight.request.id, segment)
        self.queue.announce(held.lease, json.dumps(fields, ensure_ascii=False).encode())

    def settled(self, held: _Held) -> None:
        self._held.pop(held.lease, None)
        self._ending.add(held.lease)
        self.queue.settle(held.lease)

    def hand_back(self, held: _Held, for_space: bool) -> None:
        """Leave a job to another node; the caller frees its place."""
        if self._held.pop(held.lease, None) is None:
            return
        if held.body is not None:
            held.body.close()
            held.body = None
        if for_space:
            self._pause(held.job_class)
        self._return(held.lease, _PAUSE_SECONDS if for_space else 0.0)

    # Events of the queue thread.

    def _arrived(self, event: Arrived) -> None:
        job = event.job
        if self._closed:
            self._return(event.lease, 0.0)
        elif isinstance(job, Refused):
            origin = _origin(job.tenant, event.delivered, None)
            self._refuse(event.lease, job.request_id, origin, job.failure)
        elif failure := unservable(job.request, self._model):
            origin = _origin(job.address.tenant, event.delivered, job.sent_at)
            self._refuse(event.lease, job.request.id, origin, failure)
        else:
            self._admit(event, job)

    def _refuse(self, lease: int, request_id: str, origin: Origin, failure: Failure) -> None:
        """End a job that is not transcribed, like any other: a line on stdout, then a result."""
        self._ending.add(lease)
        self.queue.settle(lease)
        written = functools.partial(self.queue.finish, lease, failure)
        self._outcomes.record(request_id, origin, failure, written=written)

    def _admit(self, event: Arrived, job: Job) -> None:
        number = next(self._numbers)
        if not self._quota.admit_directly(number, _QUOTA_NAME):
            self._return(event.lease, _RACE_SECONDS)
            return
        origin = _origin(job.address.tenant, event.delivered, job.sent_at)
        held = _Held(self, event.lease, job.address.job_class)
        client = QueueClient(number, job.address.tenant, held, event.suspect)
        held.in_flight = InFlight(number, job.request, origin, client)
        self._held[event.lease] = held
        if not self._quota.grow(number, job.size):
            self._no_space(held, "no bytes are free")
            return
        try:
            held.body = self._spool.create(job.size)
            if job.object_name is None:
                held.body.write(event.data)
        except OSError as error:
            self._no_space(held, str(error))
            return
        held.body.on_written = functools.partial(self._on_written, held)
        if job.object_name is None:
            held.complete = True
            self._on_written(held)
        else:
            self.queue.fetch(event.lease, job.size)

    def _received(self, event: Chunk) -> None:
        held = self._held.get(event.lease)
        if held is None or held.body is None:
            return
        try:
            held.body.write(event.data)
        except OSError as error:
            self._no_space(held, str(error))
            return
        held.owed += 1
        self._on_written(held)

    def _on_written(self, held: _Held) -> None:
        """The body has grown: in memory, or by what the disk thread wrote or failed to write."""
        body = held.body
        if body is None:
            return
        if body.error is not None:
            self._no_space(held, str(body.error))
            return
        while held.owed and body.unwritten <= _MAX_UNWRITTEN_BYTES:
            held.owed -= 1
            self.queue.credit(held.lease)
        if held.complete and not body.unwritten:
            self._submit(held)

    def _fetched(self, event: Fetched) -> None:
        held = self._held.get(event.lease)
        if held is None or held.body is None:
            return
        if event.failure is None:
            held.complete = True
            self._on_written(held)
            return
        held.body.close()
        held.body = None
        self._outcomes.settle(held.in_flight, event.failure)
        self._on_done(held.in_flight)

    def _over(self, event: Stored) -> None:
        self._ending.discard(event.lease)

    def _submit(self, held: _Held) -> None:
        body, held.body = held.body, None
        assert body is not None
        self._dispatch.submit(held.in_flight, body)

    def _no_space(self, held: _Held, reason: str) -> None:
        _log.warning("no space for a job; handed back", id=held.in_flight.request.id, reason=reason)
        self.hand_back(held, for_space=True)
        self._on_done(held.in_flight)

    def _return(self, lease: int, delay: float) -> None:
        self._ending.add(lease)
        self.queue.hand_back(lease, delay)

    def _pause(self, job_class: JobClass) -> None:
        until = time.monotonic() + _PAUSE_SECONDS
        self._full_until[job_class] = until
        self._loop.call_at(until, self.take)
        self.take()


def _origin(tenant: str, delivered: int, sent_at: float | None) -> Origin:
    return Origin(f"queue/{tenant}", time.time(), "queue", delivered=delivered, sent_at=sent_at)
