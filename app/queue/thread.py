"""The queue thread: nats-py's asyncio loop, and the way to it and back.

The loop thread calls the methods, which pass the call on; the disk thread may call `finish`. Events
come back as a list that the loop takes when it is woken, as with the worker. Only this thread uses
the connection to the broker.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from app.messages import Outcome
from app.queue.broker import Access
from app.queue.delivery import Delivery
from app.queue.events import Counts, QueueEvent, Room
from app.queue.heartbeat import Heartbeat
from app.queue.leases import Leases
from app.queue.limits import LIMITS
from app.queue.link import Link
from app.queue.places import Places

_log = structlog.get_logger("queue")


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """`model` is that of `names.queue_model`; `max_body` is in bytes; `node` is the node's name in
    results."""

    access: Access
    model: str
    places: int
    max_body: int
    node: str


class QueueThread:
    """`wake` is called whenever there are events; `fault` returns why the node is stuck, None while
    it is alive."""

    def __init__(
        self,
        settings: QueueSettings,
        wake: Callable[[], None],
        fault: Callable[[], str | None],
    ) -> None:
        self._wake = wake
        self.counts = Counts()
        self.failed = False
        """True once the thread has ended by an error of its own."""
        self._lock = threading.Lock()
        self._events: list[QueueEvent] = []
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._abandon = False
        self._stop_seconds = 0.0
        self._link = Link(settings.access, self.counts, self._on_surplus, self._on_change)
        self._leases = Leases(
            self._link, self.counts, self._report, node=settings.node, max_body=settings.max_body
        )
        self._places = Places(
            self._link, self._leases, self.counts, settings.model, settings.places
        )
        self._heartbeat = Heartbeat(self._link, self._leases, fault)
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    # From the loop thread.

    def start(self) -> None:
        self._thread.start()

    def take_events(self) -> list[QueueEvent]:
        """Return what has come since the last call, in order."""
        with self._lock:
            events, self._events = self._events, []
        return events

    def set_room(self, room: Room) -> None:
        self._call(lambda: self._places.set_room(room))

    def fetch(self, lease: int, size: int) -> None:
        """Read the audio of a job of `size` bytes."""
        self._call(lambda: self._leases.fetch(lease, size))

    def credit(self, lease: int) -> None:
        """A chunk was written."""
        self._call(lambda: self._leases.credit(lease))

    def announce(self, lease: int, data: bytes) -> None:
        """Publish a segment."""
        self._call(lambda: self._leases.announce(lease, data))

    def settle(self, lease: int) -> None:
        """A job has its outcome; its place is free."""
        self._call(lambda: self._leases.settle(lease))

    def finish(self, lease: int, outcome: Outcome) -> None:
        """The outcome is on stdout. Any thread."""
        self._call(lambda: self._leases.finish(lease, outcome))

    def hand_back(self, lease: int, delay: float) -> None:
        """Leave a job to another node."""
        self._call(lambda: self._leases.hand_back(lease, delay))

    def close(self) -> None:
        """Ask for no further job; hand back those that come all the same."""

        def close() -> None:
            self._leases.close()
            self._places.renew()

        self._call(close)

    def stop(self, seconds: float, abandon: bool = False) -> bool:
        """End the thread within about `seconds`, its last messages sent; return whether it ended.
        With `abandon` held jobs are left to run out."""
        self._abandon, self._stop_seconds = abandon, seconds
        if not self._thread.is_alive():
            if not self._loop.is_closed():
                self._loop.close()
            return True
        self._call(self._stop.set)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # The queue thread.

    def _call(self, function: Callable[[], Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The thread has ended; the broker gives its jobs to others.
            return

    def _report(self, event: QueueEvent) -> None:
        with self._lock:
            self._events.append(event)
        self._wake()

    def _run(self) -> None:
        try:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._main())
        except Exception:
            _log.critical("the queue thread has failed", exc_info=True)
            self.failed = True
            self._wake()
        finally:
            self._loop.close()

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        work = [self._link.run(), self._heartbeat.run(), *self._places.run()]
        tasks = [loop.create_task(each) for each in work]
        stopping = loop.create_task(self._stop.wait())
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        gently = not self._abandon and stopping in done and self._link.connected
        if gently:
            await self._link.end()
        await self._leases.wait(self._stop_seconds if gently else 0.0)
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)
        await self._link.close()
        for task in done - {stopping}:
            task.result()

    def _on_surplus(self, delivery: Delivery) -> None:
        self._leases.surplus(delivery)

    def _on_change(self, connected: bool) -> None:
        self._places.renew()
        if connected:
            if time.monotonic() - self.counts.away_since > LIMITS.consumer.ack_wait:
                self._leases.forgive()
            self._leases.begin(self._heartbeat.beat())
        self._wake()
