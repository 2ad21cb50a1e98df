"""Admission, the routing of outcomes, and shutdown: where everything meets.

The server owns every connection and knows of every request which place in which connection's order
its reply has. It admits a body when its header is read, if there is room for one more request, and
otherwise lets the sender wait unread, in order of arrival; nobody is sent away for being early. A
complete body becomes a `Job` for the worker; what the worker makes of it comes back as completions,
which are routed to the reply and to stdout. Loop thread only; it never blocks.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.connection import Connection, Deadlines, Slot
from app.job import Job
from app.listener import Listener
from app.loop import Loop
from app.messages import (
    INCOMPLETE,
    Accepted,
    Begin,
    Body,
    End,
    Event,
    Failure,
    Finished,
    Origin,
    Outcome,
    Refused,
    Request,
)
from app.protocols.base import Protocol, ProtocolError
from app.refusals import no_space, shutting_down, too_many_connections, unservable
from app.sinks import StdoutSink
from app.spool import Body as SpooledBody
from app.spool import Spool
from app.transcriber import ModelInfo
from app.worker import Worker

_log = structlog.get_logger("server")

_OVERFLOW = 64
"""Connections over the limit that are told `busy` at one time; further ones are just closed."""

_MAX_STDOUT_BACKLOG = 1_000
"""Lines nobody has read yet; beyond, no further audio is admitted."""

_BACKLOG_PAUSE_SECONDS = 0.1
"""Between two looks at whether stdout is being read again, which nobody tells."""

_LAST_WORDS_SECONDS = 0.8
"""After the drain, for the last replies to leave. With the default drain and what `__main__` waits
for the threads it stays under the 10 s after which Docker kills."""


@dataclass(slots=True)
class _Entry:
    """A request that was admitted, until its outcome is known."""

    request: Request
    origin: Origin
    connection: Connection
    slot: Slot
    body: SpooledBody | None = None
    """While it is being received; afterwards it is the worker's."""

    @property
    def cancellable(self) -> bool:
        return self.request.reply in ("transcript", "segments")


class Server:
    """Serves until told to drain.

    `queue_size` is how many requests may be admitted and unfinished, `abort` stops the engine's
    decode in progress.
    """

    def __init__(
        self,
        *,
        new_protocol: Callable[[], Protocol],
        model: ModelInfo,
        spool: Spool,
        sink: StdoutSink,
        queue_size: int,
        max_connections: int,
        drain_seconds: float,
        abort: Callable[[], None],
        deadlines: Deadlines | None = None,
    ) -> None:
        self._new_protocol = new_protocol
        self._model = model
        self._spool = spool
        self._sink = sink
        self._queue_size = queue_size
        self._max_connections = max_connections
        self._drain_seconds = drain_seconds
        self._abort = abort
        self._deadlines = deadlines or Deadlines()
        self._numbers = itertools.count(1)
        self._listeners: list[Listener] = []
        self._connections: dict[int, Connection] = {}
        self._uploads: dict[int, _Entry] = {}
        """By connection: the request whose body is being received."""
        self._jobs: dict[int, _Entry] = {}
        """By job: the requests the worker has."""
        self._waiting: deque[tuple[Connection, Request, Origin]] = deque()
        self._watching_stdout = False
        self._drain_asked = False
        self._draining = False
        self._stopping = False
        self.loop = Loop(self._on_wake, self._on_signal)
        self.crashed = False
        """True if the worker failed, and the node with it."""
        self.killed_by: int | None = None
        """The signal that ended the node at once, if one did."""

    def attach(self, worker: Worker) -> None:
        """The worker, which needs `loop.wake` to be made."""
        self._worker = worker

    def listen(self, host: str, port: int) -> int:
        """Listen on `host` and `port` (0 picks a free one); the port. Raises `OSError`."""
        listener = Listener(self.loop, host, port, self._greet)
        self._listeners.append(listener)
        return listener.port

    def run(self) -> None:
        """Serve until drained or killed."""
        self.loop.run()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections.values()):
            connection.abandon()
        self.loop.close()

    def drain_soon(self) -> None:
        """Ask for a drain. From any thread."""
        self._drain_asked = True
        self.loop.wake()

    def drain(self) -> None:
        """Take no further request; stop when those admitted are done, or the time is up."""
        if self._draining:
            return
        self._draining = True
        _log.info("draining", unfinished=self._unfinished, seconds=self._drain_seconds)
        for listener in self._listeners:
            listener.close()
        while self._waiting:
            connection, request, origin = self._waiting.popleft()
            self._refuse(connection, request, origin, shutting_down())
            connection.pump()
        for connection in list(self._connections.values()):
            if connection.idle:
                connection.finish()
        self.loop.call_at(time.monotonic() + self._drain_seconds, self._give_up)
        self._stop_if_drained()

    # Connections.

    def _greet(self, sock: socket.socket, address: tuple[str, int]) -> None:
        over = len(self._connections) - self._max_connections
        if over >= _OVERFLOW:
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = address[:2]
        peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        number = next(self._numbers)
        connection = Connection(
            number, sock, peer, self._new_protocol(), self.loop, self, self._deadlines
        )
        self._connections[number] = connection
        if over >= 0:
            failure = too_many_connections(self._max_connections)
            connection.answer(connection.expect(None, silent=False), failure, final=True)
            connection.finish()

    # What connections say.

    def on_event(self, connection: Connection, event: Event) -> None:
        if isinstance(event, Body):
            self._receive(connection, event)
        elif isinstance(event, End):
            self._complete(connection)
        elif isinstance(event, Begin):
            self._consider(connection, event.request)
        else:
            self._note_refused(connection, event)

    def on_lost(self, connection: Connection, error: ProtocolError) -> None:
        if entry := self._drop_upload(connection):
            # It has its place in the order already; a second one behind it would never be reached.
            self._settle(entry, error.failure)
        elif not connection.protocol.reading_body:
            # Within a body that is being discarded everything has been said.
            slot = connection.expect(error.request_id, error.silent)
            connection.answer(slot, error.failure, final=True)
            self._report_refused(error.request_id, connection, error.failure)

    def on_end(self, connection: Connection, reset: bool) -> None:
        held = [entry for entry in self._waiting if entry[0] is connection]
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not connection)
        if held:
            _, request, origin = held[0]
            failure = Failure(INCOMPLETE, "the connection ended before the body was read")
            self._refuse(connection, request, origin, failure)
        elif entry := self._drop_upload(connection):
            self._settle(entry, Failure(INCOMPLETE, "the connection ended within the body"))
        elif not connection.protocol.idle and not connection.protocol.reading_body:
            failure = Failure(INCOMPLETE, "the connection ended within the header")
            connection.answer(connection.expect(None, silent=False), failure, final=True)
            self._report_refused(None, connection, failure)
        if reset:
            for number, entry in self._jobs.items():
                if entry.connection is connection and entry.cancellable:
                    self._worker.cancel(number)

    def on_closed(self, connection: Connection) -> None:
        del self._connections[connection.number]
        self._drop_upload(connection)
        self._stop_if_drained()

    # Admission.

    @property
    def _unfinished(self) -> int:
        return len(self._uploads) + len(self._jobs)

    @property
    def _has_room(self) -> bool:
        return self._unfinished < self._queue_size and not self._stdout_is_slow

    @property
    def _stdout_is_slow(self) -> bool:
        return self._sink.backlog >= _MAX_STDOUT_BACKLOG

    def _consider(self, connection: Connection, request: Request) -> None:
        origin = self._origin(connection)
        failure = shutting_down() if self._draining else unservable(request, self._model)
        if failure is not None:
            self._refuse(connection, request, origin, failure)
        elif self._has_room and not self._waiting:
            self._admit(connection, request, origin)
        else:
            connection.deciding = True
            self._waiting.append((connection, request, origin))
            self._watch_stdout()

    def _admit_waiting(self) -> None:
        while self._waiting and self._has_room and not self._draining:
            connection, request, origin = self._waiting.popleft()
            if not connection.closed:
                self._admit(connection, request, origin)
                connection.pump()
        self._watch_stdout()

    def _watch_stdout(self) -> None:
        """Look again soon where senders wait for stdout: no other event may come to admit them."""
        if self._waiting and self._stdout_is_slow and not self._watching_stdout:
            self._watching_stdout = True
            self.loop.call_at(time.monotonic() + _BACKLOG_PAUSE_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._watching_stdout = False
        self._admit_waiting()

    def _admit(self, connection: Connection, request: Request, origin: Origin) -> None:
        try:
            body = self._spool.create(request.content_length)
        except OSError as error:
            self._refuse(connection, request, origin, no_space(error))
            return
        slot = connection.expect(request.id, request.reply == "none")
        entry = _Entry(request, origin, connection, slot, body)
        self._uploads[connection.number] = entry
        connection.decide(accept=True)

    def _refuse(
        self, connection: Connection, request: Request, origin: Origin, failure: Failure
    ) -> None:
        connection.decide(accept=False)
        slot = connection.expect(request.id, request.reply == "none")
        self._fail(_Entry(request, origin, connection, slot), failure)

    def _note_refused(self, connection: Connection, event: Refused) -> None:
        slot = connection.expect(event.id, event.reply == "none")
        connection.answer(slot, event.failure, final=True)
        self._report_refused(event.id, connection, event.failure)
        if not event.keep_alive:
            connection.finish()

    # Bodies.

    def _receive(self, connection: Connection, event: Body) -> None:
        entry = self._uploads.get(connection.number)
        if entry is None or entry.body is None:
            return
        try:
            entry.body.write(event.data)
        except OSError as error:
            # The rest of the body still has to be read past; it finds no entry and is dropped.
            self._drop_upload(connection)
            self._fail(entry, no_space(error))

    def _complete(self, connection: Connection) -> None:
        entry = self._uploads.pop(connection.number, None)
        if entry is None or entry.body is None:
            return
        number = next(self._numbers)
        self._jobs[number] = entry
        body, entry.body = entry.body, None
        self._worker.submit(Job(number, connection.number, entry.request, body, time.monotonic()))
        if entry.request.reply in ("accepted", "none"):
            # A silent slot says nothing; either way the connection owes no more.
            connection.answer(entry.slot, Accepted(), final=True)
        if not entry.request.keep_alive:
            connection.finish()

    def _drop_upload(self, connection: Connection) -> _Entry | None:
        entry = self._uploads.pop(connection.number, None)
        if entry is not None and entry.body is not None:
            entry.body.close()
            entry.body = None
        self.loop.defer(self._admit_waiting)
        return entry

    # Outcomes.

    def _on_wake(self) -> None:
        if self._worker.failed:
            self.crashed = True
            self.loop.stop()
        if self._drain_asked:
            self.drain()
        for completion in self._worker.take_completions():
            entry = self._jobs.get(completion.job)
            if entry is None:
                continue  # given up at the end of the drain
            if isinstance(completion, Finished):
                del self._jobs[completion.job]
                self._settle(entry, completion.outcome)
            else:
                entry.connection.answer(entry.slot, completion.segment, final=False)
        self._admit_waiting()
        self._stop_if_drained()

    def _settle(self, entry: _Entry, outcome: Outcome) -> None:
        if not entry.slot.done:
            entry.connection.answer(entry.slot, outcome, final=True)
        self._report(entry.request.id, entry.origin, outcome)

    def _fail(self, entry: _Entry, failure: Failure) -> None:
        """A request that never became a job."""
        self._settle(entry, failure)
        if not entry.request.keep_alive:
            entry.connection.finish()

    def _report_refused(
        self, request_id: str | None, connection: Connection, failure: Failure
    ) -> None:
        # Nothing bounds how many of these there are but how many lines are read.
        if self._sink.backlog < _MAX_STDOUT_BACKLOG:
            self._report(request_id, self._origin(connection), failure)

    def _report(self, request_id: str | None, origin: Origin, outcome: Outcome) -> None:
        if isinstance(outcome, Failure):
            _log.info("failed", id=request_id, peer=origin.peer, code=outcome.code)
        else:
            _log.info(
                "transcribed",
                id=request_id,
                peer=origin.peer,
                audio_seconds=round(outcome.audio_seconds, 2),
                queue_seconds=round(outcome.queue_seconds, 3),
                processing_seconds=round(outcome.processing_seconds, 3),
            )
        self._sink.put(request_id, origin, outcome)

    def _origin(self, connection: Connection) -> Origin:
        return Origin(connection.peer, time.time())

    # The end.

    def _on_signal(self, number: int) -> None:
        if self._draining:
            self.killed_by = number
            self.loop.stop()
        else:
            self.drain()

    def _give_up(self) -> None:
        """The drain's time is up: what is not done now fails."""
        if self._stopping:
            return
        _log.warning("not everything was done in time", unfinished=self._unfinished)
        for number in list(self._uploads):
            entry = self._uploads[number]
            self._drop_upload(entry.connection)
            self._fail(entry, shutting_down())
            entry.connection.finish()
        # At once, also for the one in progress: the engine may take longer to come back from its
        # encoder pass than there is time for last words.
        while self._jobs:
            self._settle(self._jobs.popitem()[1], shutting_down())
        self._abort()
        self._worker.stop()
        self.loop.call_at(time.monotonic() + _LAST_WORDS_SECONDS, self.loop.stop)

    def _stop_if_drained(self) -> None:
        if not self._draining or self._unfinished:
            return
        if not self._stopping:
            self._stopping = True
            for connection in list(self._connections.values()):
                connection.finish()
            self.loop.call_at(time.monotonic() + _LAST_WORDS_SECONDS, self.loop.stop)
        if not self._connections:
            self.loop.stop()
