"""The sending side of one HTTP connection: answers and streams as h11 puts them on the wire.

`Writer` adds the headers that do not depend on the answer: the allowed origin, the request's id,
and `Connection: close` if the request was not read to its end. Loop thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

import h11

from app.messages import Failure, Request, Segment, Transcript
from app.protocols.http import openai
from app.protocols.http.answer import UNCACHED, Answer, Headers
from app.protocols.http.dialect import ReplyOptions
from app.protocols.http.replies import error_event

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

_STREAM: Headers = (
    ("Content-Type", "text/event-stream"),
    *UNCACHED,
    # Otherwise nginx buffers the events.
    ("X-Accel-Buffering", "no"),
)


@dataclass(slots=True)
class Exchange:
    """The request that is being served, as far as its answer depends on it: whether it wants the
    `head` only, its `origin` if that is allowed, and the `options` of its reply."""

    head: bool = False
    origin: str | None = None
    options: ReplyOptions | None = None
    request: Request | None = None
    streaming: bool = False
    """True after the first event of a stream."""


class Writer:
    """Encodes answers. `varies` if they depend on the origin; `model` is the loaded model's name,
    which the answers to audio have as `X-Model`."""

    def __init__(self, http: h11.Connection, varies: bool, model: str) -> None:
        self._http = http
        self._varies = varies
        # A file's name can have characters that a header cannot.
        self._model = quote(model, safe="!#$&'()*+,/:;=?@[]~")
        self.exchange = Exchange()

    @property
    def able(self) -> bool:
        """False if no answer can be sent: the last one closed the connection."""
        return self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE, h11.SEND_BODY)

    def go_on(self) -> bytes:
        """Return `100 Continue` if the client waits for it."""
        if not self._http.they_are_waiting_for_100_continue:
            return b""
        return self._send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))

    def switch(self, headers: Headers) -> bytes:
        """Return the answer after which the connection speaks another protocol."""
        response = h11.InformationalResponse(
            status_code=101, headers=list(headers), reason="Switching Protocols"
        )
        return self._send(response)

    def answer(self, answer: Answer) -> bytes:
        """Return a whole response."""
        headers = answer.headers
        if answer.status != 204:
            headers += (("Content-Length", str(len(answer.body))),)
        data = self._head(answer.status, headers)
        if answer.body and not self.exchange.head:
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
        event = openai.done(outcome) if isinstance(outcome, Transcript) else error_event(outcome)
        return start + self._send(h11.Data(data=event)) + self._send(h11.EndOfMessage())

    def _begin_stream(self) -> bytes:
        self.exchange.streaming = True
        return self._head(200, _STREAM)

    def _head(self, status: int, headers: Headers) -> bytes:
        headers += (("X-Content-Type-Options", "nosniff"),)
        if self.exchange.request is not None:
            headers += (("X-Request-Id", self.exchange.request.id), ("X-Model", self._model))
        if self._varies:
            headers += (("Vary", "Origin"),)
        if self.exchange.origin is not None:
            headers += (
                ("Access-Control-Allow-Origin", self.exchange.origin),
                ("Access-Control-Expose-Headers", "Retry-After, X-Model, X-Request-Id"),
            )
        if self._http.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR):
            headers += (("Connection", "close"),)
        # Values from the request can be any bytes; they were read as Latin-1.
        lines = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        reason = _PHRASES.get(status, "")
        return self._send(h11.Response(status_code=status, headers=lines, reason=reason))

    def _send(self, event: h11.Event) -> bytes:
        data = self._http.send(event)
        assert data is not None, "only the end of a connection has no bytes"
        return data
