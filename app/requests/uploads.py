"""Requests that come over connections: from the header to the complete body.

A header is checked for access and against the model. Its body then needs a place, and without one
the request waits unread, or receives `busy` if the settings say so. The bytes go to the spool; the
complete request goes to `Commit`. The bytes of a stream go to `Streams` instead. Loop thread only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from app.decoding.transcriber import ModelInfo
from app.live import LiveEvent
from app.messages import INCOMPLETE, Failure, Rejected, Request
from app.network.connection import Connection
from app.network.loop import Loop
from app.protocols.base import ProtocolError
from app.requests import failures
from app.requests.access import Access
from app.requests.client import ConnectionClient
from app.requests.commit import Commit
from app.requests.dispatch import Dispatch
from app.requests.early import EarlyAudio
from app.requests.in_flight import InFlight
from app.requests.outcomes import Outcomes
from app.requests.quota import Quota
from app.requests.slow_uploads import SlowUploads
from app.requests.streams import Streams
from app.requests.upload import Upload, origin_of
from app.requests.waiting_line import Source, WaitingLine
from app.storage.spool import Spool

MAX_UNWRITTEN_BYTES = 1_048_576
"""Beyond this a connection is not read until the disk has caught up."""


class Uploads:
    """Takes requests until `close`. `early` returns the early audio of a request whose body begins,
    if the worker can use it."""

    def __init__(
        self,
        *,
        loop: Loop,
        model: ModelInfo,
        spool: Spool,
        quota: Quota,
        sources: Sequence[Source],
        dispatch: Dispatch,
        commit: Commit,
        outcomes: Outcomes,
        access: Access,
        streams: Streams,
        numbers: Iterator[int],
        reject_when_full: bool,
        early: Callable[[InFlight], EarlyAudio | None],
    ) -> None:
        self._model = model
        self._spool = spool
        self._quota = quota
        self._dispatch = dispatch
        self._commit = commit
        self._outcomes = outcomes
        self._access = access
        self._streams = streams
        self._numbers = numbers
        self._reject_when_full = reject_when_full
        self._early = early
        self.line = WaitingLine(loop, quota, outcomes, sources, self._admit, lambda: streams.full)
        self.receiving: dict[int, Upload] = {}
        """The request whose body or stream is being received, by connection."""
        self.slow = SlowUploads(loop, self.receiving, self._is_crowded, self._end_slow)
        self._closed = False

    # Events of connections.

    def begin(self, connection: Connection, request: Request) -> None:
        """A header was read."""
        slot = connection.expect(request.id, request.reply == "none")
        cancellable = request.reply in ("transcript", "segments")
        client = ConnectionClient(connection, slot, cancellable)
        in_flight = InFlight(next(self._numbers), request, origin_of(connection), client)
        upload = Upload(connection, in_flight)
        if not self._access.allows(connection.peer, request.token):
            self._reject(upload, failures.unauthorized())
            # An unauthenticated client may not even send a body that is discarded.
            connection.finish()
        elif failure := self._fault_of(request):
            self._reject(upload, failure)
        else:
            self._line_up(upload)

    def rejected(self, connection: Connection, event: Rejected) -> None:
        """A header was read that cannot be served; its protocol discards the body."""
        allowed = self._access.allows(connection.peer, event.token)
        failure = event.failure if allowed else failures.unauthorized()
        self._reply_once(connection, event.id, failure, silent=event.reply == "none")
        if not allowed or not event.keep_alive:
            connection.finish()

    def receive(self, connection: Connection, data: bytes | memoryview) -> None:
        """The next bytes of a body."""
        upload = self.receiving.get(connection.number)
        # Without one the request has failed already, and the rest of its body is discarded.
        if upload is None:
            return
        if upload.body is None:
            if failure := self._streams.feed(upload, data):
                self._fail(connection, failure)
            return
        size = upload.body.size + len(data)
        if not self._quota.grow(upload.number, size):
            self._fail(connection, failures.at_capacity(self._dispatch.busy_seconds))
            return
        try:
            upload.body.write(data)
        except OSError as error:
            self._fail(connection, failures.no_space(error))
            return
        if upload.early is not None:
            upload.early.receive(data)
        if upload.body.unwritten > MAX_UNWRITTEN_BYTES:
            connection.pause()

    def control(self, connection: Connection, event: LiveEvent) -> None:
        """An event of a stream's client."""
        upload = self.receiving.get(connection.number)
        if upload is not None and upload.stream is not None:
            self._dispatch.control(upload.number, event)

    def complete(self, connection: Connection, request: Request | None) -> None:
        """The body is complete; a `request` replaces the one from the header."""
        upload = self.receiving.get(connection.number)
        if upload is None:
            return
        if upload.body is None:
            del self.receiving[connection.number]
            self._streams.end(upload)
            upload.finish_unless_kept()
            return
        if request is not None:
            if upload.early is not None:
                upload.early.drop()  # the worker heard it with the options of the header
            upload.in_flight.request = request
            if failure := failures.unservable(request, self._model):
                self._fail(connection, failure)
                return
        del self.receiving[connection.number]
        body, upload.body = upload.body, None
        self._quota.shrink(upload.number, body.size)
        self._commit.accept(upload.in_flight, body)
        upload.finish_unless_kept()

    def broken(self, connection: Connection, failure: Failure) -> None:
        """The body turned out to be malformed."""
        self._fail(connection, failure)

    def lost(self, connection: Connection, error: ProtocolError) -> None:
        """The connection's input cannot be parsed any further."""
        if upload := self._drop(connection):
            # It has its place in the order of replies; a second one after it would never be sent.
            self._outcomes.settle(upload.in_flight, error.failure)
        elif not connection.protocol.reading_body:
            # Within a discarded body the client has its reply already.
            hidden = error.headed and not self._access.allows(connection.peer, error.token)
            failure = failures.unauthorized() if hidden else error.failure
            self._reply_once(connection, error.request_id, failure, error.silent)

    def ended(self, connection: Connection) -> None:
        """The client's stream has ended: what it had begun to send is incomplete."""
        if upload := self._leave_line(connection):
            failure = Failure(INCOMPLETE, "the connection ended before the body was read")
            self._reject(upload, failure)
        elif upload := self._drop(connection):
            failure = Failure(INCOMPLETE, "the connection ended within the body")
            self._outcomes.settle(upload.in_flight, failure)
        elif not connection.protocol.idle and not connection.protocol.reading_body:
            failure = Failure(INCOMPLETE, "the connection ended within the header")
            self._reply_once(connection, None, failure, silent=False)

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        self._leave_line(connection)
        self._drop(connection)

    # The end.

    def close(self) -> None:
        """Take no further request, reject those that wait, and end the streams."""
        self._closed = True
        for upload in self.line.close():
            self._reject(upload, failures.shutting_down())
        for upload in self._streams.interrupt_all():
            del self.receiving[upload.connection.number]
            upload.connection.finish()

    def give_up(self) -> None:
        """Fail the uploads that are not complete."""
        for upload in list(self.receiving.values()):
            self._fail(upload.connection, failures.shutting_down())
            upload.connection.finish()

    def done(self, in_flight: InFlight) -> None:
        """Free what a request held; it has its outcome."""
        self._dispatch.stop_listening(in_flight.number)
        if upload := self._streams.forget(in_flight.number):
            # The worker has ended the stream before its client did.
            del self.receiving[upload.connection.number]
            upload.finish_unless_kept()
        self.line.release(in_flight.number)

    def _fault_of(self, request: Request) -> Failure | None:
        if self._closed:
            return failures.shutting_down()
        return failures.unservable(request, self._model)

    def _line_up(self, upload: Upload) -> None:
        if self.line.add(upload):
            return
        self.slow.watch()
        if self._reject_when_full:
            self.line.remove(upload)
            self._reject(upload, failures.at_capacity(self._dispatch.busy_seconds))

    def _is_crowded(self) -> bool:
        return self.line.crowded

    def _end_slow(self, upload: Upload) -> None:
        self._fail(upload.connection, failures.too_slow())
        upload.connection.finish()

    def _admit(self, upload: Upload) -> None:
        request = upload.in_flight.request
        if request.live is not None:
            self._streams.open(upload)
        else:
            try:
                body = self._spool.create(request.content_length)
            except OSError as error:
                self._reject(upload, failures.no_space(error))
                self.line.release(upload.number)
                return
            upload.body = body
            body.on_written = functools.partial(self._on_written, upload)
            upload.early = self._early(upload.in_flight)
        self.receiving[upload.connection.number] = upload
        upload.connection.decide(accept=True)

    def _on_written(self, upload: Upload) -> None:
        """The disk thread has written a part of an upload, or failed to."""
        if upload.body is None:
            return
        if upload.body.error is not None:
            self._fail(upload.connection, failures.no_space(upload.body.error))
        elif upload.body.unwritten <= MAX_UNWRITTEN_BYTES:
            upload.connection.resume()

    def _reject(self, upload: Upload, failure: Failure) -> None:
        """Answer a header with a failure; its body is not taken."""
        in_flight = upload.in_flight
        upload.connection.decide(accept=False)
        in_flight.client.reply(failure, final=True)
        self._outcomes.record(in_flight.request.id, in_flight.origin, failure, in_flight.request)
        upload.finish_unless_kept()

    def _reply_once(
        self, connection: Connection, request_id: str | None, failure: Failure, silent: bool
    ) -> None:
        """Answer a message that never became a request in flight."""
        connection.answer(connection.expect(request_id, silent), failure, final=True)
        self._outcomes.record(request_id, origin_of(connection), failure)

    def _fail(self, connection: Connection, failure: Failure) -> None:
        # The rest of the body is still read; it finds no upload and is discarded.
        if upload := self._drop(connection):
            self._outcomes.settle(upload.in_flight, failure)
            upload.finish_unless_kept()

    def _drop(self, connection: Connection) -> Upload | None:
        """Forget the upload of `connection`, if there is one, and return it."""
        upload = self.receiving.pop(connection.number, None)
        if upload is not None:
            if upload.body is not None:
                upload.body.close()
                upload.body = None
            self._streams.forget(upload.number)
            self._dispatch.stop_listening(upload.number)
            connection.resume()
            self.line.release(upload.number)
        return upload

    def _leave_line(self, connection: Connection) -> Upload | None:
        if upload := self.line.of(connection):
            self.line.remove(upload)
        return upload
