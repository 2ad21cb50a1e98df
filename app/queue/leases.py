"""The jobs that this node holds: taken, finished or handed back. Queue thread only.

A lease is ended once: with an outcome (`finish`), or for the next node (`hand_back`).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from app.messages import QUARANTINED, Failure, Outcome
from app.queue import audio, deaths, finish, names
from app.queue.broker import BrokerError
from app.queue.delivery import Delivery
from app.queue.events import Arrived, Counts, Fetched, QueueEvent, Stored
from app.queue.job import INLINE_BYTES, OBJECT, Job, Refused, read_job
from app.queue.lease import Lease
from app.queue.limits import MAX_DEATHS, SUSPECT_DEATHS
from app.queue.link import Link

_BESIDE_SECONDS = 1.0
"""Delay of a job that came although the node holds one that must be alone."""

_LATER_SECONDS = 60.0
"""Delay of a job whose deaths cannot be looked up, or that cannot be moved to the dead ones."""

_log = structlog.get_logger("queue")


class Leases:
    """`report` passes events to the loop; `max_body` is the most bytes of audio that the node
    takes; `node` is its name in results."""

    def __init__(
        self,
        link: Link,
        counts: Counts,
        report: Callable[[QueueEvent], None],
        *,
        node: str,
        max_body: int,
    ) -> None:
        self._link = link
        self._counts = counts
        self._report = report
        self._node = node
        self._max_body = max_body
        self._held: dict[int, Lease] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = False
        """True once every further delivery is handed back."""
        self.stuck = False
        """True while the node shows no sign of life: it asks for nothing."""
        self._suspect: Lease | None = None
        """A job that nodes died of. It waits for the others and is done alone."""
        self._left = asyncio.Event()
        """Set when a job was given up or ended."""

    @property
    def held(self) -> list[Lease]:
        return list(self._held.values())

    @property
    def ending(self) -> int:
        """The number of jobs whose result is on its way."""
        return sum(lease.ending for lease in self._held.values())

    @property
    def open(self) -> bool:
        """True if further jobs may be asked for."""
        return not self.closed and not self.stuck and self._suspect is None

    def close(self) -> None:
        """Hand back every further delivery."""
        self.closed = True
        self._left.set()

    async def take(self, delivery: Delivery) -> Lease | None:
        """Take a job; None if it needs no place."""
        if self.stuck:
            self.surplus(delivery)
            return None
        self._counts.deliveries += 1
        self._counts.redeliveries += delivery.delivered > 1
        for lease in self._held.values():
            if lease.delivery.sequence == delivery.sequence and not lease.returned:
                self._adopt(lease, delivery)
                return None
        try:
            address = names.parse_job_subject(delivery.subject)
            if not names.is_tenant(address.tenant):
                raise ValueError(f"{address.tenant!r} is not a tenant")
        except ValueError as error:
            await deaths.discard(self._link, delivery, str(error))
            return None
        lease = Lease(next(self._numbers), delivery, address)
        self._held[lease.number] = lease
        self._counts.held[address.job_class] += 1
        if self._is_over(lease):
            return None
        try:
            job = await self._read(lease)
        except BrokerError as error:
            _log.error("cannot count the deaths of a redelivered job", error=str(error))
            self.hand_back(lease.number, _LATER_SECONDS)
            return None
        except Exception as error:
            # A message must not end the thread of one node after the other.
            _log.exception("a job cannot be read")
            self._forget(lease)
            await deaths.discard(self._link, delivery, type(error).__name__)
            return None
        is_suspect = lease.deaths >= SUSPECT_DEATHS
        if is_suspect:
            await self._isolate(lease)
        if self._is_over(lease):
            return None
        self._report(Arrived(lease.number, job, delivery.data, delivery.delivered, is_suspect))
        return lease

    def fetch(self, number: int, size: int) -> None:
        """Begin to read the audio of a job."""
        lease = self._held.get(number)
        if lease is not None and not lease.ending:
            lease.fetching = self.begin(self._fetch(lease, size))

    def credit(self, number: int) -> None:
        """A chunk was written."""
        if lease := self._held.get(number):
            lease.credit.release()

    def announce(self, number: int, data: bytes) -> None:
        """Publish a segment to whoever listens."""
        if lease := self._held.get(number):
            self.begin(self._announce(lease, data))

    def settle(self, number: int) -> None:
        """A job has its outcome: another one may take its place."""
        if lease := self._held.get(number):
            lease.free.set()

    def finish(self, number: int, outcome: Outcome) -> None:
        """The outcome's line is on stdout: store the result, then acknowledge the job."""
        lease = self._held.get(number)
        if lease is not None and not lease.ending:
            lease.ending = True
            lease.free.set()
            self.begin(self._finish(lease, outcome))

    def hand_back(self, number: int, delay: float) -> None:
        """Give a job to the next node after `delay` seconds."""
        lease = self._held.get(number)
        if lease is not None and not lease.ending:
            lease.ending = lease.returned = True
            lease.free.set()
            if lease.fetching is not None:
                lease.fetching.cancel()
            self.begin(self._hand_back(lease, delay))

    def surplus(self, delivery: Delivery) -> None:
        """Hand back a job that was delivered for a request which is no longer open."""
        self._counts.deliveries += 1
        self._counts.redeliveries += delivery.delivered > 1
        self.begin(self._return(delivery, 0.0))

    def forgive(self) -> None:
        """The broker was away for longer than a lease: it may deliver every job again, although
        nobody has died."""
        for lease in self._held.values():
            lease.counted = True
            self.begin(self._forgive(lease))

    async def wait(self, seconds: float) -> None:
        """Wait until everything that was begun is done, and give up the rest after `seconds`."""
        end = time.monotonic() + seconds
        while self._tasks and (left := end - time.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The beginning of a job.

    def _is_over(self, lease: Lease) -> bool:
        if self.closed:
            self.hand_back(lease.number, 0.0)
        elif self._suspect is not None and self._suspect is not lease:
            self.hand_back(lease.number, _BESIDE_SECONDS)
        return lease.ending

    async def _isolate(self, lease: Lease) -> None:
        """Wait until the node holds nothing else. Meanwhile it asks for nothing."""
        if self._suspect is not None:
            return
        self._suspect = lease
        _log.warning("this job killed nodes; it is done alone", deaths=lease.deaths)
        while len(self._held) > 1 and not self.closed:
            self._left.clear()
            await self._left.wait()

    async def _read(self, lease: Lease) -> Job | Refused:
        delivery = lease.delivery
        size = len(delivery.data)
        job = read_job(delivery.subject, delivery.headers, size, delivery.sequence, self._max_body)
        lease.request_id = job.request_id if isinstance(job, Refused) else job.request.id
        lease.object_name = delivery.headers.get(OBJECT)
        died = lease.deaths = await deaths.deaths_of(self._link, delivery)
        if died < MAX_DEATHS:
            return job
        await deaths.bury(self._link, delivery, lease.address.model, died)
        lease.keep_audio = True
        self._counts.quarantined += 1
        message = f"{died} nodes died or hung with this job; it is kept among the dead jobs"
        return Refused(lease.address.tenant, lease.request_id, Failure(QUARANTINED, message))

    def _adopt(self, lease: Lease, delivery: Delivery) -> None:
        """Keep a job that the broker sent again although it is held here: its heartbeats were
        late, or the broker was away."""
        lease.delivery = delivery
        forgiven, lease.counted = lease.counted, False
        _log.info("the broker sent a job again that is held here", id=lease.request_id)
        if not forgiven:
            self.begin(self._forgive(lease))

    async def _fetch(self, lease: Lease, size: int) -> None:
        failure = await audio.fetch(lease, size, self._link, self._report, self._counts)
        self._report(Fetched(lease.number, failure))

    async def _announce(self, lease: Lease, data: bytes) -> None:
        subject = names.segment_subject(lease.address.tenant, lease.request_id)
        if self._link.connected and len(data) <= INLINE_BYTES:
            await (await self._link.ready()).announce(subject, data)

    # The end of a job.

    async def _finish(self, lease: Lease, outcome: Outcome) -> None:
        await finish.store_result(self._link, lease, outcome, self._node, self._counts)
        try:
            await finish.acknowledge(self._link, lease)
            self._forget(lease)
            await finish.delete_audio(self._link, lease)
        except BrokerError as error:
            _log.error("cannot end a job", id=lease.request_id, error=str(error))
        finally:
            self._forget(lease)

    async def _hand_back(self, lease: Lease, delay: float) -> None:
        try:
            await self._return(lease.delivery, delay)
        finally:
            self._forget(lease)

    async def _return(self, delivery: Delivery, delay: float) -> None:
        self._counts.handed_back += 1
        if not self._link.connected:
            return  # The lease runs out by itself.
        stream = await self._link.ready()
        try:
            await deaths.count_hand_back(stream, delivery.sequence)
        except BrokerError as error:
            _log.warning("cannot count a hand-back", error=str(error))
        await stream.hand_back(delivery, delay)

    async def _forgive(self, lease: Lease) -> None:
        await deaths.count_hand_back(await self._link.ready(), lease.delivery.sequence)

    def _forget(self, lease: Lease) -> None:
        if self._held.pop(lease.number, None) is not None:
            self._counts.held[lease.address.job_class] -= 1
            if lease is self._suspect:
                self._suspect = None
            self._left.set()
            self._report(Stored(lease.number))

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin something that `wait` waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, BrokerError):
            _log.warning("an operation at the broker failed", error=str(error))
        elif error is not None:
            _log.error("a task of the queue has failed", exc_info=error)
