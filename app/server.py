"""Accepts connections on every port and routes their events.

Headers and bodies go to the uploads, questions about the node to its reports, the end of a client
to every stage that has its requests. Completions of the worker and the disk thread come in when
they wake the loop. Loop thread only; it never blocks.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import structlog

from app.live import LiveEvent
from app.messages import (
    Begin,
    BodyData,
    Broken,
    End,
    Event,
    Query,
    QueryKind,
    Rejected,
    Report,
    Upgrade,
)
from app.network.connection import Connection
from app.network.listener import Listener, listen
from app.network.loop import Loop
from app.network.ports import Port, peer_of
from app.network.timeouts import Timeouts
from app.network.transport import open_transport
from app.protocols.base import ProtocolError, Upgradable
from app.queue.events import Counts
from app.requests.access import Access
from app.requests.failures import too_many_connections, unauthorized
from app.requests.in_flight import InFlight
from app.requests.load import Load
from app.requests.pipeline import Pipeline
from app.requests.shutdown import Shutdown
from app.storage.disk import Disk
from app.storage.journal import Journal
from app.worker.worker import Worker

if TYPE_CHECKING:
    # Its imports need requirements-queue.txt.
    from app.queue.thread import QueueThread

_REPLIED_OVERFLOW = 64
"""Connections above the limit that receive `busy` at one time; further ones are only closed."""

_AWAY_SECONDS = 30.0
"""A broker that is away for longer is not just restarting."""

_log = structlog.get_logger("server")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the server. `queue_size` is the number of requests that may be admitted and
    unfinished, `max_buffered_bytes` the size of all bodies held for them. With `reject_when_full`
    further requests receive `busy` instead of waiting. With `only_queue` all requests come from the
    queue, so that the node is of no use while the broker is away."""

    queue_size: int
    max_buffered_bytes: int
    max_connections: int
    drain_seconds: float
    reject_when_full: bool = False
    only_queue: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class Reports:
    """Answers to questions about the node. Those in `guarded` require a token where their port
    does."""

    make: Mapping[QueryKind, Callable[[], Report]] = field(default_factory=dict)
    guarded: frozenset[QueryKind] = frozenset({"status"})


@dataclass(frozen=True, slots=True)
class Threads:
    """The other threads, and the journal whose entries the load counts. `queue` is None without a
    broker."""

    worker: Worker
    disk: Disk
    journal: Journal | None
    queue: QueueThread | None = None


class Server:
    """Serves until it is drained. `abort` stops the engine's decode in progress; `on_drain` is
    called when the drain begins."""

    def __init__(
        self,
        loop: Loop,
        pipeline: Pipeline,
        threads: Threads,
        *,
        access: Access,
        limits: Limits,
        reports: Reports,
        abort: Callable[[], None],
        on_drain: Callable[[], None],
    ) -> None:
        self.loop = loop
        loop.on_wake = self._on_wake
        self.pipeline = pipeline
        self._threads = threads
        self._access = access
        self._limits = limits
        self._reports = reports
        self._numbers = itertools.count(1)
        self._listeners: list[Listener] = []
        self.connections: dict[int, Connection] = {}
        self.crashed = False
        """True if another thread failed, and the node with it."""
        self.shutdown = Shutdown(
            loop=loop,
            listeners=self._listeners,
            connections=self.connections,
            pipeline=pipeline,
            seconds=limits.drain_seconds,
            abort=abort,
            on_drain=on_drain,
        )
        loop.on_signal = self.shutdown.on_signal

    def listen(self, port: Port) -> int:
        """Open a port and return its number. Raises `OSError`, and `UnicodeError` if the host name
        is invalid."""

        def accept(sock: socket.socket, address: tuple[str, int]) -> None:
            self._accept(sock, address, port)

        listeners = listen(self.loop, port.host, port.number, accept)
        self._listeners += listeners
        return listeners[0].port

    def run(self) -> None:
        """Serve until drained or killed."""
        self.loop.wake()  # for the journal's entries: no other event may come
        self.loop.run()
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections.values()):
            connection.close_now()
        self.loop.close()

    @property
    def load(self) -> Load:
        """The node's load at this moment."""
        alive = self._threads.worker.alive
        pipeline, journal = self.pipeline, self._threads.journal
        queue = self._threads.queue
        counts = None if queue is None else queue.counts
        cut_off = self._limits.only_queue and counts is not None and _is_away(counts)
        return Load(
            ready=alive and not pipeline.full and not self.shutdown.draining and not cut_off,
            draining=self.shutdown.draining,
            worker_alive=alive,
            connections=len(self.connections),
            places=self._limits.queue_size,
            admitted=pipeline.quota.admitted,
            waiting=pipeline.quota.waiting,
            queued_seconds=pipeline.dispatch.queued_seconds,
            buffered_bytes=pipeline.quota.claimed_bytes,
            journal_entries=journal.entries if journal else 0,
            quarantined=journal.quarantined if journal else 0,
            streams=pipeline.quota.streams,
            live=self._threads.worker.live_counts,
            dropped_partials=pipeline.outcomes.dropped_partials,
            cut_off=cut_off,
            queue=counts,
            engines=len(self._threads.worker.seats),
            busy_engines=self._threads.worker.busy_engines,
            given_up=self._threads.worker.given_up,
        )

    # Connections.

    def _accept(self, sock: socket.socket, address: tuple[str, int], port: Port) -> None:
        peer, parsed = peer_of(address, port)
        if not port.admits(parsed):
            _log.debug("address not allowed", peer=peer.name, port=port.name)
            sock.close()
            return
        overflow = len(self.connections) - self._limits.max_connections
        if overflow >= _REPLIED_OVERFLOW:
            sock.close()
            return
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = open_transport(sock, port.tls)
        except OSError as error:
            _log.debug("connection ended early", peer=peer.name, error=str(error))
            sock.close()
            return
        number = next(self._numbers)
        connection = Connection(number, transport, peer, self.loop, self, self._limits.timeouts)
        self.connections[number] = connection
        if overflow >= 0:
            failure = too_many_connections(self._limits.max_connections)
            connection.answer(connection.expect(None, silent=False), failure, final=True)
            connection.finish()

    def on_event(self, connection: Connection, event: Event) -> None:
        uploads = self.pipeline.uploads
        if isinstance(event, BodyData):
            uploads.receive(connection, event.data)
        elif isinstance(event, End):
            uploads.complete(connection, event.request)
        elif isinstance(event, Begin):
            uploads.begin(connection, event.request)
        elif isinstance(event, Rejected):
            uploads.rejected(connection, event)
        elif isinstance(event, Broken):
            uploads.broken(connection, event.failure)
        elif isinstance(event, Query):
            self._report(connection, event)
        elif isinstance(event, LiveEvent):
            uploads.control(connection, event)
        elif isinstance(event, Upgrade):
            self._upgrade(connection, event)

    def on_protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        self.pipeline.uploads.lost(connection, error)

    def on_end(self, connection: Connection, reset: bool) -> None:
        self.pipeline.uploads.ended(connection)
        if reset or connection.protocol.end_means_gone:
            self.pipeline.cancel_all_of(connection.number)

    def on_closed(self, connection: Connection) -> None:
        del self.connections[connection.number]
        self.pipeline.uploads.forget(connection)
        self.shutdown.check()

    def _upgrade(self, connection: Connection, event: Upgrade) -> None:
        if self.pipeline.sessions.allows(connection, event.token):
            protocol = cast(Upgradable, connection.protocol)
            connection.switch_protocol(protocol.upgrade())

    def _report(self, connection: Connection, query: Query) -> None:
        slot = connection.expect(None, silent=False)
        guarded = query.kind in self._reports.guarded
        if guarded and not self._access.allows(connection.peer, query.token):
            connection.answer(slot, unauthorized(), final=True)
        else:
            connection.answer(slot, self._reports.make[query.kind](), final=True)
        if not query.keep_alive:
            connection.finish()

    # Other threads, signals, requests that are done.

    def _on_wake(self) -> None:
        threads = self._threads
        queue_failed = threads.queue is not None and threads.queue.failed
        if threads.worker.failed or threads.disk.failed or queue_failed:
            self.crashed = True
            self.loop.stop()
        for completion in threads.disk.take_completions():
            # Each as a callback of its own, so that a bug in one does not affect the others.
            self.loop.defer(completion)
        self.pipeline.dispatch.take_completions()
        self.pipeline.collect()
        self.pipeline.uploads.line.move_up()
        self.shutdown.check()

    def on_done(self, in_flight: InFlight) -> None:
        """Free what a request held that has its outcome."""
        self.pipeline.uploads.done(in_flight)
        self.loop.defer(self.shutdown.check)


def _is_away(counts: Counts) -> bool:
    return not counts.connected and time.monotonic() - counts.away_since > _AWAY_SECONDS
