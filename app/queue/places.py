"""Asks the broker for jobs: one for each free place, never more. Queue thread only.

A place is for short jobs, for long ones, or for either, short ones first. So a short job finds a
place although long ones wait, and a long one although short ones keep coming. A free place first
asks each of its consumers for what waits there: the own model's before those for any model. If
nothing waits, it asks all of them at once; when one sends a job, a job from another is handed back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from app.queue import names
from app.queue.broker import BrokerError
from app.queue.delivery import Delivery
from app.queue.events import Counts, Room
from app.queue.jetstream import JetStream, Pull
from app.queue.leases import Leases
from app.queue.link import Link
from app.queue.names import CLASSES, JobClass

WAIT_SECONDS = 2.0
"""How long the broker keeps a request. A node that ends waits for its last ones: a job that comes
for the request of a node that is gone waits until its lease runs out."""

_ABSENT_SECONDS = 3.0
"""Pause before a consumer is asked again that does not exist yet."""

_PAUSE_SECONDS = 0.2
"""A place that may not ask looks again after it, if nothing wakes it before."""

_STALLED_SECONDS = 60.0
"""Without a delivery for so long, the node compares with the number of jobs that wait."""

_log = structlog.get_logger("queue")


def classes_of(count: int) -> list[tuple[JobClass, ...]]:
    """Return the classes of each of `count` places."""
    if count == 1:
        return [CLASSES]
    return [("short",), ("long",), *(CLASSES for _ in range(count - 2))]


class Places:
    """Passes what it gets to `leases`. `model` is the node's, as in `names.queue_model`."""

    def __init__(self, link: Link, leases: Leases, counts: Counts, model: str, count: int) -> None:
        self._link = link
        self._leases = leases
        self._counts = counts
        self._places = classes_of(count)
        self._models = tuple(dict.fromkeys((model, names.ANY_MODEL)))
        self._room = Room()
        self._asking = 0
        self._changed = asyncio.Event()
        """Set, and replaced, whenever the requests that are open should be dropped."""
        self._moved = asyncio.Event()
        """Set, and replaced, whenever a place that waits should look again."""
        self._absent: dict[str, float] = {}
        """The consumers that do not exist, with the time to ask again."""
        self._last_delivery = time.monotonic()

    def run(self) -> list[Coroutine[Any, Any, None]]:
        """Return the tasks: one for each place, and a watch."""
        return [*(self._run(classes) for classes in self._places), self._watch()]

    def set_room(self, room: Room) -> None:
        smaller = room.places < self._asking or not room.classes >= self._room.classes
        self._room = room
        if smaller:
            self.renew()
        else:
            self._look_again()

    def renew(self) -> None:
        """Drop the open requests and ask again: the broker forgets them when it restarts."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._look_again()

    def _look_again(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _run(self, classes: tuple[JobClass, ...]) -> None:
        while True:
            delivery = await self._next(classes)
            lease = await self._leases.take(delivery)
            if lease is not None:
                await lease.free.wait()

    async def _next(self, classes: tuple[JobClass, ...]) -> Delivery:
        while True:
            changed = self._changed
            consumers = self._consumers(classes)
            if not consumers or not self._has_room():
                await self._pause()
                continue
            self._asking += 1
            try:
                delivery = await self._ask(consumers, changed)
            except BrokerError:
                delivery = None
                await self._pause()
            finally:
                self._asking -= 1
            if delivery is not None:
                self._last_delivery = time.monotonic()
                return delivery

    async def _pause(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._moved.wait(), _PAUSE_SECONDS)

    def _has_room(self) -> bool:
        # Results on their way are bounded, too: the broker may take none, or stdout stand still.
        fits = self._leases.ending < len(self._places) and self._leases.open
        return fits and self._link.connected and self._asking < self._room.places

    def _consumers(self, classes: Sequence[JobClass]) -> list[str]:
        wanted = [
            names.consumer(model, job_class)
            for job_class in classes
            if job_class in self._room.classes
            for model in self._models
        ]
        now = time.monotonic()
        return [name for name in wanted if self._absent.get(name, 0.0) <= now]

    async def _ask(self, consumers: Sequence[str], changed: asyncio.Event) -> Delivery | None:
        stream = await self._link.ready()
        for consumer in consumers:
            delivery = await self._first(stream, [consumer], 0.0, changed)
            if delivery is not None or changed.is_set():
                return delivery
        waiting = [name for name in consumers if name not in self._absent]
        return await self._first(stream, waiting, WAIT_SECONDS, changed) if waiting else None

    async def _first(
        self, stream: JetStream, consumers: Sequence[str], wait: float, changed: asyncio.Event
    ) -> Delivery | None:
        """Return the first job of these consumers within `wait` seconds, and drop the requests."""
        pulls: list[Pull] = []
        changing = asyncio.ensure_future(changed.wait())
        try:
            for consumer in consumers:
                # Not in one step: those before one that fails are dropped below.
                pulls += [await stream.pull(consumer, wait)]
            deadline = time.monotonic() + wait + 2.0
            unanswered: set[asyncio.Future[Any]] = {pull.answer for pull in pulls}
            while unanswered and not changing.done() and time.monotonic() < deadline:
                done, _ = await asyncio.wait(
                    [*unanswered, changing],
                    timeout=deadline - time.monotonic(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                unanswered -= done
                if any(pull.answer in done and pull.answer.result() for pull in pulls):
                    break
            return self._take(pulls)
        finally:
            changing.cancel()
            for pull in pulls:
                stream.drop(pull)

    def _take(self, pulls: Sequence[Pull]) -> Delivery | None:
        """Return the first job; a second one that came at the same moment is handed back."""
        taken = None
        for pull in pulls:
            if not pull.answer.done():
                continue
            self._counts.answered_at = time.monotonic()
            self._note(pull)
            delivery = pull.answer.result()
            if delivery is None:
                continue
            if taken is None:
                taken = delivery
            else:
                self._leases.surplus(delivery)
        return taken

    def _note(self, pull: Pull) -> None:
        if not pull.absent:
            self._absent.pop(pull.consumer, None)
            return
        if pull.consumer not in self._absent:
            _log.warning("no such consumer; run scripts/queue init", consumer=pull.consumer)
        self._absent[pull.consumer] = time.monotonic() + _ABSENT_SECONDS

    async def _watch(self) -> None:
        """Subscribe anew if jobs wait and none is delivered (nats-server#7680, #5839)."""
        while True:
            await asyncio.sleep(_STALLED_SECONDS / 4)
            quiet = time.monotonic() - self._last_delivery
            if quiet < _STALLED_SECONDS or not self._asking or not self._link.connected:
                continue
            self._last_delivery = time.monotonic()
            stream = await self._link.ready()
            waiting = [await stream.pending(name) for name in self._consumers(names.CLASSES)]
            if any(waiting):
                _log.warning("jobs wait but none is delivered; subscribing again", jobs=waiting)
            # A node that may not know how many jobs wait renews to be sure.
            if any(count != 0 for count in waiting):
                with contextlib.suppress(BrokerError):
                    old = await self._link.renew()
                    self.renew()
                    await self._link.retire(old)
