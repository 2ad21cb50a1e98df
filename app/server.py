"""Every port and every connection, and the rooms behind them.

The server accepts connections, gives each its protocol, and leads what they say to where it is
dealt with: headers and bodies to the `Uploads`, questions about the node to its reports, the end of
a peer to both `Uploads` and `Dispatch`. What the worker makes comes back through `Dispatch`, and
`Shutdown` ends it all. Loop thread only; it never blocks.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Mapping, Sequence

import structlog

from app.decoding.transcriber import ModelInfo
from app.messages import Begin, BodyData, Broken, End, Event, Query, QueryKind, Rejected, Report
from app.network.connection import Connection
from app.network.deadlines import Timeouts
from app.network.listener import Listener, listen
from app.network.loop import Loop
from app.network.ports import Port, peer_of
from app.network.transport import open_transport
from app.output.stdout import StdoutSink
from app.protocols.base import ProtocolError
from app.requests.commit import Commit
from app.requests.dispatch import Dispatch
from app.requests.failures import too_many_connections, unauthorized
from app.requests.in_flight import InFlight
from app.requests.load import Load
from app.requests.outcomes import Observer, Outcomes
from app.requests.quota import Quota
from app.requests.shutdown import Shutdown
from app.requests.uploads import Rules, Uploads
from app.sources.journal import JournalSource
from app.storage.disk import Disk
from app.storage.journal import Journal
from app.storage.spool import Spool
from app.worker.worker import Worker

_OVERFLOW = 64
"""Connections over the limit that are told `busy` at one time; further ones are just closed."""

_log = structlog.get_logger("server")


class Server:
    """Serves until told to drain.

    `queue_size` is how many requests may be admitted and unfinished, `max_buffered_bytes` how much
    of bodies may be held for them, and `rules` who is admitted. `reports` answer questions about
    the node; those in `guarded` need a token where their port does. `observers` hear of every
    outcome. `abort` stops the engine's decode in progress, `on_drain` hears that the end has begun.
    """

    def __init__(
        self,
        *,
        model: ModelInfo,
        spool: Spool,
        disk: Disk,
        journal: Journal | None,
        sink: StdoutSink,
        rules: Rules,
        queue_size: int,
        max_buffered_bytes: int,
        max_connections: int,
        drain_seconds: float,
        abort: Callable[[], None],
        timeouts: Timeouts | None = None,
        reports: Mapping[QueryKind, Callable[[], Report]] | None = None,
        guarded: frozenset[QueryKind] = frozenset({"status"}),
        observers: Sequence[Observer] = (),
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        self._queue_size = queue_size
        self._max_connections = max_connections
        self._timeouts = timeouts or Timeouts()
        self._reports = reports or {}
        self._guarded = guarded
        self._numbers = itertools.count(1)
        self._listeners: list[Listener] = []
        self._connections: dict[int, Connection] = {}
        self.crashed = False
        """True if the worker failed, and the node with it."""
        self.loop = Loop(self._on_wake, self._on_signal)
        self._disk = disk
        self._journal = journal
        self._outcomes = Outcomes(sink, observers, journal)
        self._quota = Quota(queue_size, max_buffered_bytes)
        self._dispatch = Dispatch(self._outcomes, self._on_done)
        self._commit = Commit(disk, journal, self._dispatch, self._outcomes, self._on_done)
        numbers = itertools.count(1)
        recovery = (
            None
            if journal is None
            else JournalSource(
                journal,
                disk,
                quota=self._quota,
                dispatch=self._dispatch,
                outcomes=self._outcomes,
                numbers=numbers,
                on_free=self.loop.wake,
            )
        )
        self._uploads = Uploads(
            loop=self.loop,
            model=model,
            spool=spool,
            quota=self._quota,
            dispatch=self._dispatch,
            commit=self._commit,
            recovery=recovery,
            outcomes=self._outcomes,
            rules=rules,
            numbers=numbers,
        )
        self._shutdown = Shutdown(
            loop=self.loop,
            listeners=self._listeners,
            connections=self._connections,
            uploads=self._uploads,
            commit=self._commit,
            dispatch=self._dispatch,
            seconds=drain_seconds,
            abort=abort,
            on_drain=on_drain,
        )

    def attach(self, worker: Worker) -> None:
        """The worker, which needs `loop.wake` to be made."""
        self._dispatch.attach(worker)

    def listen(self, port: Port) -> int:
        """Open a port; its number. Raises `OSError`, and `UnicodeError` for no host name."""

        def greet(sock: socket.socket, address: tuple[str, int]) -> None:
            self._greet(sock, address, port)

        listeners = listen(self.loop, port.host, port.number, greet)
        self._listeners += listeners
        return listeners[0].port

    def run(self) -> None:
        """Serve until drained or killed."""
        self.loop.wake()  # for what the journal holds: nothing else may happen
        self.loop.run()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections.values()):
            connection.abandon()
        self.loop.close()

    def drain_soon(self) -> None:
        """Ask for a drain. From any thread."""
        self._shutdown.ask()

    @property
    def killed_by(self) -> int | None:
        """The signal that ended the node at once, if one did."""
        return self._shutdown.killed_by

    @property
    def load(self) -> Load:
        """How busy the node is."""
        alive = self._dispatch.worker.alive
        full = self._quota.full or self._outcomes.behind
        journal = self._journal
        return Load(
            ready=alive and not full and not self._shutdown.draining,
            draining=self._shutdown.draining,
            worker_alive=alive,
            connections=len(self._connections),
            places=self._queue_size,
            admitted=self._quota.admitted,
            waiting=self._quota.waiting,
            queued_seconds=self._dispatch.queued_seconds,
            buffered_bytes=self._quota.reserved,
            journal_entries=journal.entries if journal else 0,
            quarantined=journal.quarantined if journal else 0,
        )

    # Connections.

    def _greet(self, sock: socket.socket, address: tuple[str, int], port: Port) -> None:
        peer, parsed = peer_of(address, port)
        if not port.admits(parsed):
            _log.debug("not allowed here", peer=peer.name, port=port.name)
            sock.close()
            return
        over = len(self._connections) - self._max_connections
        if over >= _OVERFLOW:
            sock.close()
            return
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = open_transport(sock, port.tls)
        except OSError as error:
            _log.debug("gone already", peer=peer.name, error=str(error))
            sock.close()
            return
        number = next(self._numbers)
        connection = Connection(number, transport, peer, self.loop, self, self._timeouts)
        self._connections[number] = connection
        if over >= 0:
            failure = too_many_connections(self._max_connections)
            connection.answer(connection.expect(None, silent=False), failure, final=True)
            connection.finish()

    def on_event(self, connection: Connection, event: Event) -> None:
        if isinstance(event, BodyData):
            self._uploads.receive(connection, event.data)
        elif isinstance(event, End):
            self._uploads.complete(connection, event.request)
        elif isinstance(event, Begin):
            self._uploads.begin(connection, event.request)
        elif isinstance(event, Rejected):
            self._uploads.refused(connection, event)
        elif isinstance(event, Broken):
            self._uploads.broken(connection, event.failure)
        elif isinstance(event, Query):
            self._answer(connection, event)

    def on_lost(self, connection: Connection, error: ProtocolError) -> None:
        self._uploads.lost(connection, error)

    def on_end(self, connection: Connection, reset: bool) -> None:
        self._uploads.ended(connection)
        if reset or connection.protocol.end_means_gone:
            self._dispatch.cancel_all_of(connection)
            self._commit.cancel_all_of(connection)

    def on_closed(self, connection: Connection) -> None:
        del self._connections[connection.number]
        self._uploads.forget(connection)
        self._shutdown.check()

    def _answer(self, connection: Connection, query: Query) -> None:
        slot = connection.expect(None, silent=False)
        if query.kind in self._guarded and not self._uploads.may_enter(connection, query.token):
            connection.answer(slot, unauthorized(), final=True)
        else:
            connection.answer(slot, self._reports[query.kind](), final=True)
        if not query.keep_alive:
            connection.finish()

    # What comes from elsewhere.

    def _on_wake(self) -> None:
        if self._dispatch.worker.failed or self._disk.failed:
            self.crashed = True
            self.loop.stop()
        for completion in self._disk.take_completions():
            # Each by itself: what is wrong with one does not keep the others from their answers.
            self.loop.defer(completion)
        self._dispatch.take_completions()
        self._uploads.admit_waiting()
        self._shutdown.check()

    def _on_signal(self, number: int) -> None:
        self._shutdown.on_signal(number)

    def _on_done(self, pending: InFlight) -> None:
        self._uploads.release(pending)
        self.loop.defer(self._shutdown.check)
