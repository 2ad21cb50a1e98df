"""The sending side of one HTTP connection: answers and streams as h11 puts them on the wire.

`Writer` adds the headers that do not depend on the answer: the allowed origin, the request's id,
and `Connection: close` if the request was not read to its end. Loop thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

import h11

from app.messages import Failure, Request, Segment, Transcript
from app.protocols.http import openai
from app.protocols.http.answer import UNCACHED, Answer, Headers
from app.protocols.http.conditions import Conditions
from app.protocols.http.dialect import ReplyOptions
from app.protocols.http.input import Input
from app.protocols.http.replies import error_event
from app.protocols.http.site import Site

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_MOST_NAMES = 30
"""Most names in `X-Ignored-Fields`. Names that a header cannot hold are left out."""

_READABLE = "Retry-After, X-Ignored-Fields, X-Model, X-Request-Id"
"""Headers that pages of allowed origins may read."""

_STREAM: Headers = (
    ("Content-Type", "text/event-stream"),
    *UNCACHED,
    # Otherwise nginx buffers the events.
    ("X-Accel-Buffering", "no"),
)


@dataclass(slots=True)
class Exchange:
    """The request that is being served, as far as its answer depends on it: whether it wants the
    `head` only, its `origin` if that is allowed, and the `options` of its reply. With `keeps` its
    client will send further requests, with `old` it speaks HTTP/1.0, and with `expects` it waits
    for `100 Continue`. `more` are headers of an error."""

    head: bool = False
    origin: str | None = None
    keeps: bool = False
    old: bool = False
    expects: bool = False
    conditions: Conditions | None = None
    options: ReplyOptions | None = None
    request: Request | None = None
    more: Headers = ()
    streaming: bool = False
    """True after the first event of a stream."""


class Writer:
    """Encodes answers to the requests of `source`. Those to audio have the name of the site's model
    as `X-Model`."""

    def __init__(self, source: Input, site: Site) -> None:
        self._source = source
        self._site = site
        # A file's name can have characters that a header cannot.
        self._model = quote(site.served.name, safe="!#$&'()*+,/:;=?@[]~")
        self.exchange = Exchange()
        self.keeps = False
        """True if the last answer announced that the connection stays open."""

    @property
    def _http(self) -> h11.Connection:
        return self._source.http

    @property
    def able(self) -> bool:
        """False if no answer can be sent: the last one closed the connection."""
        return self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE, h11.SEND_BODY)

    def go_on(self) -> bytes:
        """Return `100 Continue` if the client waits for it."""
        if not self._http.they_are_waiting_for_100_continue:
            return b""
        return self._continue()

    def _continue(self) -> bytes:
        return self._send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))

    def switch(self, headers: Headers) -> bytes:
        """Return the answer after which the connection speaks another protocol."""
        response = h11.InformationalResponse(
            status_code=101, headers=list(headers), reason="Switching Protocols"
        )
        # RFC 9110, section 7.8: a client that expects both has them in this order.
        return (self._continue() if self.exchange.expects else b"") + self._send(response)

    def answer(self, answer: Answer) -> bytes:
        """Return a whole response."""
        exchange = self.exchange
        if exchange.conditions is not None:
            answer = exchange.conditions.applied(answer)
        headers = answer.headers
        if answer.status == 415:
            headers += exchange.more
        if answer.status not in (204, 304):
            headers += (("Content-Length", str(len(answer.body))),)
        data = self._head(answer.status, headers)
        if self.keeps and exchange.old:
            # h11 ends every connection of HTTP/1.0.
            data = data.replace(b"\r\nConnection: close\r\n", b"\r\nConnection: keep-alive\r\n", 1)
        if answer.body and not exchange.head:
            data += self._send(h11.Data(data=answer.body))
        return data + self._send(h11.EndOfMessage())

    def segment(self, segment: Segment) -> bytes:
        """Return an event of a stream, which begins with the first."""
        first = not self.exchange.streaming
        start = self._begin_stream() if first else b""
        return start + self._send(h11.Data(data=openai.delta(segment, first)))

    def end_stream(self, outcome: Transcript | Failure) -> bytes:
        """Return the last event and the end of the stream."""
        start = b"" if self.exchange.streaming else self._begin_stream()
        if isinstance(outcome, Transcript):
            options = self.exchange.options
            event = openai.done(outcome, options is not None and options.logprobs)
        else:
            event = error_event(outcome)
        return start + self._send(h11.Data(data=event)) + self._send(h11.EndOfMessage())

    def _begin_stream(self) -> bytes:
        self.exchange.streaming = True
        data = self._head(200, _STREAM)
        # HTTP/1.0 has no chunks: the end of the connection is the end of the stream.
        self.keeps = self.keeps and not self.exchange.old
        return data

    def _head(self, status: int, headers: Headers) -> bytes:
        if self._site.date is not None:
            headers += (("Date", self._site.date()),)
        headers += (("X-Content-Type-Options", "nosniff"),)
        if self.exchange.request is not None:
            headers += (("X-Request-Id", self.exchange.request.id),)
            # The model's name is for clients with the token.
            headers += (("X-Model", self._model),) if status != 401 else ()
        if self.exchange.options is not None and self.exchange.options.ignored:
            names = [name for name in self.exchange.options.ignored if _NAME.fullmatch(name)]
            headers += (("X-Ignored-Fields", ", ".join(names[:_MOST_NAMES])),) if names else ()
        if self._site.origins:
            headers += (("Vary", "Origin"),)
        if self.exchange.origin is not None:
            headers += (
                ("Access-Control-Allow-Origin", self.exchange.origin),
                ("Access-Control-Expose-Headers", _READABLE),
            )
        unread = self._http.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR)
        self.keeps = self.exchange.keeps and not unread
        if unread:
            headers += (("Connection", "close"),)
        # Values from the request can be any bytes; they were read as Latin-1.
        lines = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        reason = _PHRASES.get(status, "")
        return self._send(h11.Response(status_code=status, headers=lines, reason=reason))

    def _send(self, event: h11.Event) -> bytes:
        data = self._http.send(event)
        assert data is not None, "only the end of a connection has no bytes"
        return data
