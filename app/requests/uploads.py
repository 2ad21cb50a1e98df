"""From a header to a complete body: who is let in, who waits, who is told no.

The events of all connections come here. A header is checked against the gate and the model; then
its body needs a place and room for its bytes (`Quota`), and where there is none it waits
unread, or is told `busy` if that was chosen. Bytes go to the spool, a complete body to the worker.
Loop thread only; it never blocks.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.decoding.transcriber import ModelInfo
from app.messages import INCOMPLETE, Failure, Origin, Rejected, Request
from app.network.connection import Connection
from app.network.loop import Loop
from app.protocols.base import ProtocolError
from app.requests.commit import Commit
from app.requests.dispatch import Dispatch
from app.requests.failures import (
    no_space,
    shutting_down,
    too_much,
    too_slow,
    unauthorized,
    unservable,
)
from app.requests.in_flight import InFlight
from app.requests.outcomes import Outcomes
from app.requests.quota import Quota
from app.requests.slow_uploads import SlowUploads
from app.sources.journal import JournalSource
from app.storage.spool import Spool

MAX_UNWRITTEN_BYTES = 1_048_576
"""A sender that is faster than the disk is not read from beyond this."""

_BACKLOG_PAUSE_SECONDS = 0.1
"""Between two looks at whether stdout is being read again, which nobody tells."""

Authorize = Callable[[str | None], bool]
"""Whether whoever shows this token, or none, may come in."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Whom to let in: the gate, and what to do when there is no room."""

    authorize: Authorize
    reject_when_full: bool = False


class Uploads:
    """Takes requests in until `close`."""

    def __init__(
        self,
        *,
        loop: Loop,
        model: ModelInfo,
        spool: Spool,
        quota: Quota,
        dispatch: Dispatch,
        commit: Commit,
        recovery: JournalSource | None,
        outcomes: Outcomes,
        rules: Rules,
        numbers: Iterator[int],
    ) -> None:
        self._loop = loop
        self._model = model
        self._spool = spool
        self._quota = quota
        self._dispatch = dispatch
        self._commit = commit
        self._recovery = recovery
        self._outcomes = outcomes
        self._rules = rules
        self._numbers = numbers
        self._waiting: dict[int, InFlight] = {}
        """By request."""
        self._uploads: dict[int, InFlight] = {}
        """By connection: the request whose body is being received."""
        self._slow_uploads = SlowUploads(loop, self._uploads, self._is_crowded, self._end_slow)
        self._watching_stdout = False
        self._closed = False

    @property
    def unfinished(self) -> int:
        """Requests that hold a place: received, queued, or worked on."""
        return self._quota.admitted

    # What connections say.

    def may_enter(self, connection: Connection, token: str | None) -> bool:
        """Whether who shows this token, or none, may ask for anything on this port."""
        return not connection.peer.port.needs_token or self._rules.authorize(token)

    def begin(self, connection: Connection, request: Request) -> None:
        """A header was read."""
        slot = connection.expect(request.id, request.reply == "none")
        origin = origin_of(connection)
        pending = InFlight(next(self._numbers), request, origin, connection, slot)
        if not self.may_enter(connection, request.token):
            self._refuse(pending, unauthorized())
            # Not even a body to be dropped is taken from strangers.
            connection.finish()
        elif failure := self._fault_of(request):
            self._refuse(pending, failure)
        else:
            self._seat(pending, connection)

    def refused(self, connection: Connection, event: Rejected) -> None:
        """A header was read that cannot be served; its protocol discards the body."""
        stranger = not self.may_enter(connection, event.token)
        failure = unauthorized() if stranger else event.failure
        slot = connection.expect(event.id, event.reply == "none")
        connection.answer(slot, failure, final=True)
        self._outcomes.note(event.id, origin_of(connection), failure)
        if stranger or not event.keep_alive:
            connection.finish()

    def receive(self, connection: Connection, data: bytes | memoryview) -> None:
        """The next bytes of a body."""
        pending = self._uploads.get(connection.number)
        # Without one the request has failed already, and the rest of its body is read past.
        if pending is None or pending.body is None:
            return
        size = pending.body.size + len(data)
        if not self._quota.grow(pending.number, size):
            self._fail_upload(connection, too_much(self._dispatch.busy_seconds))
            return
        try:
            pending.body.write(data)
        except OSError as error:
            self._fail_upload(connection, no_space(error))
            return
        if pending.body.unwritten > MAX_UNWRITTEN_BYTES:
            connection.pause()

    def complete(self, connection: Connection, request: Request | None) -> None:
        """The body is complete; `request` takes the place of the one that began."""
        pending = self._uploads.get(connection.number)
        if pending is None or pending.body is None:
            return
        if request is not None:
            pending.request = request
            if failure := unservable(request, self._model):
                self._fail_upload(connection, failure)
                return
        del self._uploads[connection.number]
        body, pending.body = pending.body, None
        self._quota.shrink(pending.number, body.size)
        self._commit.accept(pending, body)
        pending.close_unless_kept()

    def broken(self, connection: Connection, failure: Failure) -> None:
        """The body showed a fault in the message."""
        self._fail_upload(connection, failure)

    def lost(self, connection: Connection, error: ProtocolError) -> None:
        """The peer can be followed no further."""
        if pending := self._drop_upload(connection):
            # It has its place in the order already; a second one behind it would never be reached.
            self._outcomes.settle(pending, error.failure)
        elif not connection.protocol.reading_body:
            # Within a body that is being discarded everything has been said.
            stranger = error.headed and not self.may_enter(connection, error.token)
            failure = unauthorized() if stranger else error.failure
            slot = connection.expect(error.request_id, error.silent)
            connection.answer(slot, failure, final=True)
            self._outcomes.note(error.request_id, origin_of(connection), failure)

    def ended(self, connection: Connection) -> None:
        """The peer sends no more: what it had begun to send is incomplete."""
        if pending := self._leave_line(connection):
            failure = Failure(INCOMPLETE, "the connection ended before the body was read")
            self._refuse(pending, failure)
        elif pending := self._drop_upload(connection):
            failure = Failure(INCOMPLETE, "the connection ended within the body")
            self._outcomes.settle(pending, failure)
        elif not connection.protocol.idle and not connection.protocol.reading_body:
            failure = Failure(INCOMPLETE, "the connection ended within the header")
            connection.answer(connection.expect(None, silent=False), failure, final=True)
            self._outcomes.note(None, origin_of(connection), failure)

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        self._leave_line(connection)
        self._drop_upload(connection)

    # What the server says.

    def release(self, pending: InFlight) -> None:
        """A request is done: its place and its bytes are free."""
        self._quota.leave(pending.number)
        self._loop.defer(self.admit_waiting)

    def admit_waiting(self) -> None:
        """Let those in who wait, as far as there is room; before them, what a former process had
        accepted."""
        if self._recovery is not None and not self._closed:
            self._recovery.take()
        while self._waiting and not self._closed and not self._outcomes.behind:
            number = self._quota.next()
            if number is None:
                break
            self._admit(self._waiting.pop(number))
        self._watch_stdout()

    def close(self) -> None:
        """Take no further request, and send those away who wait."""
        self._closed = True
        for pending in list(self._waiting.values()):
            self._leave(pending)
            self._refuse(pending, shutting_down())

    def give_up(self) -> None:
        """Fail what is still being received."""
        for pending in list(self._uploads.values()):
            assert pending.connection is not None
            self._fail_upload(pending.connection, shutting_down())
            pending.connection.finish()

    def _fault_of(self, request: Request) -> Failure | None:
        return shutting_down() if self._closed else unservable(request, self._model)

    def _seat(self, pending: InFlight, connection: Connection) -> None:
        """Put a request in line; if it is its turn it is admitted at once."""
        client, size = connection.peer.address, pending.request.content_length
        self._waiting[pending.number] = pending
        self._quota.line_up(pending.number, client, size)
        self.admit_waiting()
        if pending.number not in self._waiting:
            return
        self._slow_uploads.watch()
        if self._rules.reject_when_full:
            self._leave(pending)
            self._refuse(pending, too_much(self._dispatch.busy_seconds))

    def _is_crowded(self) -> bool:
        return self._quota.full and not self._outcomes.behind

    def _end_slow(self, pending: InFlight) -> None:
        assert pending.connection is not None
        self._fail_upload(pending.connection, too_slow())
        pending.connection.finish()

    def _admit(self, pending: InFlight) -> None:
        assert pending.connection is not None
        try:
            pending.body = self._spool.create(pending.request.content_length)
        except OSError as error:
            self._refuse(pending, no_space(error))
            self.release(pending)
            return
        pending.body.on_written = functools.partial(self._on_written, pending)
        self._uploads[pending.connection.number] = pending
        pending.connection.decide(accept=True)

    def _on_written(self, pending: InFlight) -> None:
        """The disk has got on with an upload."""
        if pending.body is None or pending.connection is None:
            return
        if pending.body.error is not None:
            self._fail_upload(pending.connection, no_space(pending.body.error))
        elif pending.body.unwritten <= MAX_UNWRITTEN_BYTES:
            pending.connection.resume()

    def _refuse(self, pending: InFlight, failure: Failure) -> None:
        """Answer a header with a failure; its body is not taken."""
        assert pending.connection is not None
        pending.connection.decide(accept=False)
        pending.tell(failure, final=True)
        self._outcomes.note(pending.request.id, pending.origin, failure, pending.request)
        pending.close_unless_kept()

    def _fail_upload(self, connection: Connection, failure: Failure) -> None:
        # The rest of the body still has to be read past; it finds no upload and is dropped.
        if pending := self._drop_upload(connection):
            self._outcomes.settle(pending, failure)
            pending.close_unless_kept()

    def _drop_upload(self, connection: Connection) -> InFlight | None:
        pending = self._uploads.pop(connection.number, None)
        if pending is not None:
            pending.close_body()
            connection.resume()
            self.release(pending)
        return pending

    def _leave_line(self, connection: Connection) -> InFlight | None:
        for pending in self._waiting.values():
            if pending.connection is connection:
                self._leave(pending)
                return pending
        return None

    def _leave(self, pending: InFlight) -> None:
        del self._waiting[pending.number]
        self.release(pending)

    def _watch_stdout(self) -> None:
        """Look again soon where senders wait for stdout: no other event may come to admit them."""
        if self._waiting and self._outcomes.behind and not self._watching_stdout:
            self._watching_stdout = True
            self._loop.call_at(time.monotonic() + _BACKLOG_PAUSE_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._watching_stdout = False
        self.admit_waiting()


def origin_of(connection: Connection) -> Origin:
    """Where, and that now, a message came from."""
    return Origin(connection.peer.name, time.time(), connection.peer.port.name)
