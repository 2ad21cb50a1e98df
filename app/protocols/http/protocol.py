"""HTTP/1.1 as a protocol of the node: h11 parses and writes messages, this gives them meaning.

One message at a time: nothing after a request is read until its last reply was made. An
upload's form streams through `Form` into `BodyData` events; its fields may follow the file, so the
values that they change come with `End`. `HttpProtocol` is the state machine; `routes.py` has the
addresses, `dialect.py` the forms and `replies.py` the answers.

An answer that is due before the end of the body has `Connection: close`, but the rest of the body
is still read: a client that sends first and reads afterwards would otherwise meet a reset instead
of the answer. Loop thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

import h11

from app.messages import (
    BAD_HEADER,
    Begin,
    Broken,
    End,
    Event,
    Failure,
    Query,
    Rejected,
    Reply,
    Report,
    Segment,
    Send,
    Transcript,
    Upgrade,
)
from app.protocols.base import MAX_HELD_BYTES, FromClient, ProtocolError, Successor
from app.protocols.http.answer import Answer
from app.protocols.http.conditions import Conditions
from app.protocols.http.dialect import ReplyOptions
from app.protocols.http.form import FormError
from app.protocols.http.forwarded import read_forwarded
from app.protocols.http.head import BadInput, Head, read_head
from app.protocols.http.input import Input, bearer_token
from app.protocols.http.replies import answer_of
from app.protocols.http.resolve import Private, resolve
from app.protocols.http.routes import READ, NodeReport, Upload
from app.protocols.http.site import Site, allowed_origin
from app.protocols.http.upgrade import PendingUpgrade
from app.protocols.http.upload import UploadForm, new_request
from app.protocols.http.writer import Exchange, Writer

PERMITTED = Report(True, "", b"")
"""The report with which the server permits an answer of the protocol's own (`Query("own")`)."""


class _State(Enum):
    HEAD = auto()
    DECISION = auto()
    BODY = auto()
    REPLY = auto()
    """A reply is due; the rest of the body is discarded."""
    REST = auto()
    """The reply was made; the rest of the body is discarded."""
    LAST = auto()
    """No request can follow; the connection is to end."""
    DONE = auto()


class HttpProtocol:
    """HTTP as a `Protocol`: see `app/protocols/base.py` for the contract.

    `new_id` makes a request's id, which its answer has as `X-Request-Id`. `proxied` if the client
    is a trusted proxy. The connection's end is always requested by a `Send` without data.
    """

    end_means_gone = True

    def __init__(self, site: Site, new_id: Callable[[], str], proxied: bool = False) -> None:
        self._site = site
        self._new_id = new_id
        self._proxied = proxied
        self._input = Input(site.max_body)
        self._writer = Writer(self._input, site)
        self._state = _State.HEAD
        self._form: UploadForm | None = None
        self._pending: PendingUpgrade | None = None
        self._private: Answer | None = None
        """The answer that the server is asked about."""
        self._events: deque[Event] = deque()
        self._bad_status: int | None = None

    def feed(self, data: bytes) -> None:
        if self._state not in (_State.LAST, _State.DONE) and data:
            self._input.feed(data, hold=not self.reading_body)

    def next_event(self) -> Event | FromClient | None:
        try:
            return self._next_event()
        except BadInput as error:
            request = self._writer.exchange.request
            self._bad_status = error.status
            self.abandon()
            failure = Failure(BAD_HEADER, error.message)
            raise ProtocolError(failure, None if request is None else request.id) from None

    def accept(self) -> bytes:
        self._decide(_State.BODY)
        return self._writer.go_on()

    def reject(self) -> None:
        self._decide(_State.REPLY)

    def abandon(self) -> None:
        self._state = _State.DONE
        self._events.clear()

    def upgrade(self) -> Successor:
        assert self._pending is not None, "upgrade() answers an Upgrade"
        response = self._writer.switch(self._pending.headers)
        session = self._pending.route.new(self._pending.opening)
        self._state = _State.DONE
        return Successor(response, session, self._input.unread)

    @property
    def idle(self) -> bool:
        if self._state is _State.HEAD:
            return not self._input.held
        return self._state is not _State.DECISION and not self.reading_body

    @property
    def reading_body(self) -> bool:
        if self._state in (_State.REPLY, _State.REST):
            return self._input.in_body
        return self._state is _State.BODY

    @property
    def full(self) -> bool:
        return self._state is _State.REPLY and self._input.held >= MAX_HELD_BYTES

    def encode(self, request_id: str | None, reply: Reply) -> bytes:
        if not self._writer.able:
            # The failure of input after the last answer.
            return b""
        exchange = self._writer.exchange
        if isinstance(reply, Segment):
            return self._writer.segment(reply)
        if exchange.streaming or (isinstance(reply, Transcript) and self._streams):
            assert isinstance(reply, Transcript | Failure)
            data = self._writer.end_stream(reply)
        else:
            assert isinstance(reply, Transcript | Failure | Report)
            private, self._private = self._private, None
            if private is not None and isinstance(reply, Report):
                answer = private
            else:
                answer = answer_of(reply, exchange.options)
            if self._bad_status and isinstance(reply, Failure) and reply.code == BAD_HEADER:
                answer = replace(answer, status=self._bad_status)
            data = self._writer.answer(answer)
        self._end_exchange()
        return data

    def _next_event(self) -> Event | FromClient | None:
        while not self._events:
            if self._state is _State.HEAD:
                return self._read_head()
            if self._state is _State.BODY:
                if not self._read_body():
                    return None
            elif self._state in (_State.REPLY, _State.REST):
                found = self._input.discard()
                if found is h11.NEED_DATA or (found is None and self._state is _State.REPLY):
                    return None
                if found is not None:
                    return Send(b"")  # there is more here, but not all of it in one turn
                self._state = _State.LAST
            elif self._state is _State.LAST:
                self._state = _State.DONE
                return Send(b"", keep_alive=False)
            else:
                return None
        return self._events.popleft()

    # Requests.

    def _read_head(self) -> Event | FromClient | None:
        request = self._input.request()
        if request is None:
            return None
        head = read_head(request, self._site.secure)
        if not self._proxied:
            return self._take(head)
        head = replace(head, forwarded=read_forwarded(head.fields, self._site.proxies))
        self._events.append(self._take(head))
        return FromClient(head.forwarded.client)

    def _take(self, head: Head) -> Event:
        origin = head.headers.get(b"origin")
        readable = origin is not None and allowed_origin(origin, self._site)
        self._writer.exchange = Exchange(
            head=head.method == "HEAD",
            origin=origin if readable else None,
            keeps=head.keeps,
            old=head.old,
            expects=head.expects,
            conditions=Conditions.of(head) if head.method in READ else None,
        )
        found = resolve(head, self._site, readable)
        if isinstance(found, Answer):
            return self._answer(found)
        if isinstance(found, Upload):
            return self._begin(found, head)
        self._expect_reply()
        if isinstance(found, PendingUpgrade):
            if self._input.in_body:
                raise BadInput(400, "the opening of a WebSocket must have no body")
            self._pending = found
            return Upgrade(found.opening.token)
        if isinstance(found, Private):
            self._private = found.answer
        kind = found.kind if isinstance(found, NodeReport) else "own"
        return Query(kind, token=bearer_token(head.headers))

    def _answer(self, answer: Answer) -> Send:
        self._expect_reply()
        data = self._writer.answer(answer)
        self._end_exchange()
        return Send(data)

    def _begin(self, upload: Upload, head: Head) -> Event:
        request = new_request(self._new_id(), upload.task, head.headers)
        self._writer.exchange.request = request
        self._writer.exchange.options = ReplyOptions(upload.dialect, upload.task)
        try:
            length = request.content_length
            self._form = UploadForm(self._site, upload.dialect, length, head.headers, head.query)
        except FormError as error:
            self._state = _State.REPLY
            self._writer.exchange.more = error.more
            return Rejected(request.id, error.failure, request.reply, True, request.token)
        self._state = _State.DECISION
        return Begin(request)

    def _read_body(self) -> bool:
        """Read on in the accepted body; return whether there was anything."""
        data, ended = self._input.body()
        try:
            if data:
                assert self._form is not None
                self._events.extend(self._form.feed(data, self._input.body_bytes))
            if ended:
                self._finish_form()
        except FormError as error:
            self._form = None
            self._state = _State.REPLY
            self._events.append(Broken(error.failure))
        return ended or bool(data)

    def _finish_form(self) -> None:
        exchange = self._writer.exchange
        assert self._form is not None
        assert exchange.request is not None
        request, exchange.options = self._form.finish(exchange.request)
        self._form = None
        self._state = _State.REPLY
        self._events.append(End(request))

    @property
    def _streams(self) -> bool:
        options = self._writer.exchange.options
        return options is not None and options.stream

    def _decide(self, state: _State) -> None:
        if self._state is not _State.DECISION:
            raise RuntimeError("accept() and reject() answer a Begin")
        self._state = state

    def _expect_reply(self) -> None:
        # A body, which only an upload needs, is discarded.
        self._state = _State.REPLY
        self._input.discard()

    def _end_exchange(self) -> None:
        """The last reply was made: continue with the next request, if there can be one."""
        self._writer.exchange = Exchange()
        if self._state is _State.DONE:
            return
        if self._input.in_body:
            self._state = _State.REST
        elif self._writer.keeps and self._input.start_next():
            self._state = _State.HEAD
        else:
            self._state = _State.LAST
