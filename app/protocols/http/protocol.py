"""HTTP/1.1 as a protocol of the node: h11 reads and writes the messages, this gives them meaning.

One message at a time: after a request nothing further is read until its last reply was made. An
upload's form streams through `Form` into `BodyData` events; its fields may stand behind the file,
so what they change comes with `End`. `HttpProtocol` is the state machine of what comes in;
`routes.py` says what an address means, `fields.py` what a form may hold, and `replies.py` what is
answered.

An answer that is due before the body has been read says `Connection: close`, but the rest of the
body is still read past: clients that send first and read afterwards would else meet a reset instead
of the answer. Loop thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import NoReturn

import h11

from app.messages import (
    BAD_HEADER,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    Begin,
    BodyData,
    Broken,
    End,
    Event,
    Failure,
    Query,
    Rejected,
    Reply,
    Report,
    Request,
    Segment,
    Send,
    Transcript,
)
from app.protocols.base import MAX_HELD_BYTES, ProtocolError
from app.protocols.http.fields import Wish, read
from app.protocols.http.fixed import missing, options, told, wrong_host, wrong_origin
from app.protocols.http.form import Form, FormError, boundary_of
from app.protocols.http.replies import Answer, answer_of
from app.protocols.http.routes import (
    NoSuch,
    Site,
    Tell,
    Upload,
    path_of,
    right_host,
    right_origin,
    route,
    welcome,
)
from app.protocols.http.writer import Exchange, Writer

MAX_CHUNKS = 4_096
"""Of a chunked body, in what is fed at one time. Each takes h11 some 40 microseconds, whatever it
holds, so that this many are a long turn of the loop. At 58 bytes each they are all that is fed."""

_CHUNKS_AT_ONCE = 64
"""Between two events, so that it is the connection that says how many make a turn."""

_HeaderFields = dict[bytes, str]


class _State(Enum):
    HEAD = auto()
    DECISION = auto()
    BODY = auto()
    REPLY = auto()
    """A reply is due; what is left of the body is read past."""
    REST = auto()
    """The reply was made; what is left of the body is read past."""
    LAST = auto()
    """Nothing further can follow; the connection is still to be told."""
    DONE = auto()


class HttpProtocol:
    """HTTP as a `Protocol`: see `app/protocols/base.py` for the contract.

    `site` is what is served; `new_id` makes a request's id, which its answer has as
    `X-Request-Id`. The connection's end is always said by a `Send` that holds nothing.
    """

    end_means_gone = True

    def __init__(self, site: Site, new_id: Callable[[], str]) -> None:
        self._site = site
        self._new_id = new_id
        self._http = h11.Connection(h11.SERVER)
        self._writer = Writer(self._http, varies=bool(site.origins))
        self._state = _State.HEAD
        self._form: Form | None = None
        self._body_bytes = 0
        self._events: deque[Event] = deque()
        self._held = 0
        """Bytes of input that belong to no request that was begun."""
        self._chunks = 0
        """Pieces of a body that came of what was fed last."""
        self._status_of_loss: int | None = None

    # What comes in.

    def feed(self, data: bytes) -> None:
        if self._state in (_State.LAST, _State.DONE) or not data:
            return
        if not self.reading_body:
            self._held += len(data)
        self._chunks = 0
        self._http.receive_data(data)

    def next_event(self) -> Event | None:
        while not self._events:
            if self._state is _State.HEAD:
                return self._read_head()
            if self._state is _State.BODY:
                if not self._read_body():
                    return None
            elif self._state in (_State.REPLY, _State.REST):
                past = self._read_past()
                if past is h11.NEED_DATA or (past is None and self._state is _State.REPLY):
                    return None
                if past is not None:
                    return Send(b"")  # there is more here, but not all of it in one turn
                self._state = _State.LAST
            elif self._state is _State.LAST:
                self._state = _State.DONE
                return Send(b"", keep_alive=False)
            else:
                return None
        return self._events.popleft()

    def accept(self) -> bytes:
        self._decide(_State.BODY)
        return self._writer.go_on()

    def reject(self) -> None:
        self._decide(_State.REPLY)

    def abandon(self) -> None:
        self._state = _State.DONE
        self._events.clear()

    @property
    def idle(self) -> bool:
        if self._state is _State.HEAD:
            return not self._held
        return self._state is not _State.DECISION and not self.reading_body

    @property
    def reading_body(self) -> bool:
        if self._state in (_State.REPLY, _State.REST):
            return self._unread
        return self._state is _State.BODY

    @property
    def full(self) -> bool:
        return self._state is _State.REPLY and self._held >= MAX_HELD_BYTES

    def encode(self, request_id: str | None, reply: Reply) -> bytes:
        if not self._writer.able:
            # The failure of what came behind the last answer.
            return b""
        exchange = self._writer.exchange
        if isinstance(reply, Segment):
            return self._writer.segment(reply)
        if exchange.streaming or (isinstance(reply, Transcript) and self._streams):
            assert isinstance(reply, Transcript | Failure)
            data = self._writer.end_stream(reply)
        else:
            assert isinstance(reply, Transcript | Failure | Report)
            answer = answer_of(reply, exchange.wish)
            if self._status_of_loss and isinstance(reply, Failure) and reply.code == BAD_HEADER:
                answer = replace(answer, status=self._status_of_loss)
            data = self._writer.answer(answer)
        self._end_exchange()
        return data

    # Requests.

    def _read_head(self) -> Event | None:
        event = self._step()
        if not isinstance(event, h11.Request):
            return None
        self._held = 0
        self._body_bytes = 0
        headers = {name: value.decode("latin-1") for name, value in event.headers}
        if b"transfer-encoding" in headers and b"content-length" in headers:
            # Two ends of the body: who stands between the sender and us may go by the other one.
            self._lose(400)
        origin = headers.get(b"origin")
        self._writer.exchange = Exchange(
            head=event.method == b"HEAD",
            origin=origin if origin and welcome(origin, self._site) else None,
        )
        method, path = event.method.decode("latin-1"), path_of(event.target.decode("latin-1"))
        if not right_host(headers.get(b"host"), self._site):
            return self._tell(wrong_host())
        if method == "OPTIONS":
            let_in = self._writer.exchange.origin is not None
            return self._tell(options(path, headers, self._site, let_in))
        found = route(method, path, self._site)
        if isinstance(found, NoSuch):
            return self._tell(missing(found))
        if isinstance(found, Tell):
            return self._tell(told(found, self._site))
        if isinstance(found, Upload):
            if not right_origin(origin, headers.get(b"host"), self._site):
                return self._tell(wrong_origin())
            return self._begin(found, headers)
        self._expect_reply()
        return Query(found.kind, token=_token(headers))

    def _tell(self, answer: Answer) -> Send:
        self._expect_reply()
        data = self._writer.answer(answer)
        self._end_exchange()
        return Send(data)

    def _begin(self, upload: Upload, headers: _HeaderFields) -> Event:
        declared = headers.get(b"content-length")
        length = None if declared is None else int(declared)
        request = Request(
            id=self._new_id(),
            content_length=length,
            task=upload.task,
            keep_alive=True,
            token=_token(headers),
        )
        self._writer.exchange.request = request
        self._writer.exchange.wish = Wish(upload.dialect, upload.task)
        try:
            self._form = self._new_form(length, headers)
        except FormError as error:
            self._state = _State.REPLY
            return Rejected(request.id, error.failure, request.reply, True, request.token)
        self._state = _State.DECISION
        return Begin(request)

    def _new_form(self, length: int | None, headers: _HeaderFields) -> Form:
        self._check_size(length or 0)
        if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
            message = "Content-Encoding is not supported; send the form as it is"
            raise FormError(UNSUPPORTED_MEDIA_TYPE, message)
        return Form(boundary_of(headers.get(b"content-type")))

    def _check_size(self, size: int) -> None:
        if size > self._site.max_body:
            message = f"the body is over this node's limit of {self._site.max_body} bytes"
            raise FormError(TOO_LARGE, message)

    def _read_body(self) -> bool:
        """Go as far in the accepted body as the bytes reach; False if that is nowhere."""
        data = bytearray()
        for _ in range(_CHUNKS_AT_ONCE):
            if not isinstance(event := self._step(), h11.Data):
                break
            data += event.data
        ended = isinstance(event, h11.EndOfMessage)
        try:
            if data:
                self._read_form(bytes(data))
            if ended:
                self._finish_form()
        except FormError as error:
            self._form = None
            self._state = _State.REPLY
            self._events.append(Broken(error.failure))
        return ended or bool(data)

    def _read_form(self, data: bytes) -> None:
        assert self._form is not None
        self._body_bytes += len(data)
        self._check_size(self._body_bytes)
        self._events.extend(BodyData(piece) for piece in self._form.feed(data) if piece)

    def _finish_form(self) -> None:
        exchange = self._writer.exchange
        assert self._form is not None
        assert exchange.wish is not None
        assert exchange.request is not None
        fields = self._form.finish()
        dialect = exchange.wish.dialect
        request, exchange.wish = read(fields, dialect, exchange.request, self._site.served)
        self._form = None
        self._state = _State.REPLY
        self._events.append(End(request))

    @property
    def _streams(self) -> bool:
        wish = self._writer.exchange.wish
        return wish is not None and wish.stream

    # From one request to the next.

    def _decide(self, state: _State) -> None:
        if self._state is not _State.DECISION:
            raise RuntimeError("accept() and reject() answer a Begin")
        self._state = state

    def _expect_reply(self) -> None:
        """The reply comes next. A body, which nothing but an upload needs, is read past."""
        self._state = _State.REPLY
        self._read_past()

    def _end_exchange(self) -> None:
        """The last reply was made: on to the next request, if there can be one."""
        self._writer.exchange = Exchange()
        if self._state is _State.DONE:
            return
        if self._unread:
            self._state = _State.REST
        elif self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._held = len(self._http.trailing_data[0])
            self._state = _State.HEAD
        else:
            self._state = _State.LAST

    @property
    def _unread(self) -> bool:
        """True while the body of the request has not been seen to its end."""
        return self._http.their_state is h11.SEND_BODY

    def _read_past(self) -> object:
        """Go on in a body nobody wants: h11's `NEED_DATA` where the bytes reach no further, None if
        its end has been seen, or enough; anything else means that there is more of it here."""
        event: object = None
        for _ in range(_CHUNKS_AT_ONCE):
            if not self._unread or self._body_bytes > self._site.max_body:
                return None
            event = self._step()
            if isinstance(event, h11.Data):
                self._body_bytes += len(event.data)
            elif event is h11.NEED_DATA:
                break
        return event

    def _step(self) -> object:
        """h11's next event."""
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._lose(error.error_status_hint)
        if isinstance(event, h11.Data):
            self._chunks += 1
            if self._chunks > MAX_CHUNKS:
                self._lose(400)
        return event

    def _lose(self, status: int) -> NoReturn:
        request = self._writer.exchange.request
        self._status_of_loss = status
        self.abandon()
        # Not h11's own words, which may quote what came.
        failure = Failure(BAD_HEADER, "this is not HTTP/1.1 that can be followed")
        raise ProtocolError(failure, None if request is None else request.id) from None


def _token(headers: _HeaderFields) -> str | None:
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
