"""A peer of the HTTP protocol: feeds it requests, answers at once, and reads the responses."""

from __future__ import annotations

from collections.abc import Callable

from fakes import transcript_of
from forms import Answer, answers, request
from streams import Seen, see_body

from app import messages
from app.messages import (
    Begin,
    BodyData,
    Broken,
    End,
    Event,
    Failure,
    Query,
    Rejected,
    Report,
    Segment,
    Send,
)
from app.protocols.base import FromClient, ProtocolError
from app.protocols.http.protocol import HttpProtocol
from app.protocols.http.site import Site
from app.protocols.model_names import ModelNames

MAX_BODY = 100_000
AUDIO = b"RIFF\r\n--XyZ\r\n\r\n--XyZ0\xff\x00\r\r\n--"
"""Audio that resembles the end of the form."""

MODEL = ModelNames("tiny.en-q8_0", frozenset({"tiny.en", "tiny.en-q8_0", "whisper-1"}), strict=True)
SITE = Site(
    served=MODEL,
    created=1_700_000_000,
    max_body=MAX_BODY,
    pages={"/": ("text/html; charset=utf-8", b"<!doctype html>")},
)
TRANSCRIPT = transcript_of("one two", segments=(Segment(0, 1, "one", 0.5), Segment(1, 2, "two", 1)))


class Peer:
    """A protocol and a server that answers at once. Records the events and the bytes sent."""

    def __init__(
        self,
        site: Site = SITE,
        accepts: bool = True,
        reply: Callable[[str], messages.Reply] = lambda _id: TRANSCRIPT,
        proxied: bool = False,
    ) -> None:
        self.protocol = HttpProtocol(site, lambda: "made", proxied)
        self.accepts = accepts
        self.reply = reply
        self.seen: Seen = []
        self.sent = b""
        self.closed = False

    def feed(self, *pieces: bytes) -> Peer:
        for piece in pieces:
            if self.closed:
                break
            self.protocol.feed(piece)
            self._pump()
        return self

    def _pump(self) -> None:
        try:
            while not self.closed and (event := self.protocol.next_event()) is not None:
                self._take(event)
        except ProtocolError as error:
            self.seen.append(("lost", error.failure.code))
            self.sent += self.protocol.encode(error.request_id, error.failure)
            self.protocol.abandon()
            self.closed = True

    def _take(self, event: Event | FromClient) -> None:
        protocol = self.protocol
        if isinstance(event, BodyData):
            see_body(self.seen, event.data)
        elif isinstance(event, Begin):
            self.seen.append(("begin", event.request))
            assert protocol.next_event() is None, "nothing may come before the decision"
            if self.accepts:
                self.sent += protocol.accept()
            else:
                protocol.reject()
                self.sent += protocol.encode("made", Failure(messages.BUSY, "later", 1.2))
        elif isinstance(event, End):
            assert event.request is not None
            self.seen.append(("end", event.request))
            assert protocol.next_event() is None, "nothing may come before the reply"
            if event.request.reply == "segments":
                for segment in TRANSCRIPT.segments:
                    self.sent += protocol.encode("made", segment)
            self.sent += protocol.encode("made", self.reply("made"))
        elif isinstance(event, Broken):
            self.seen.append(("broken", event.failure.code))
            self.sent += protocol.encode("made", event.failure)
        elif isinstance(event, Rejected):
            self.seen.append(("refused", event.failure.code))
            self.sent += protocol.encode("made", event.failure)
        elif isinstance(event, Query):
            self.seen.append(("query", event.kind, event.token))
            self.sent += protocol.encode(None, Report(event.kind != "ready", "text/x", b"report"))
        elif isinstance(event, FromClient):
            self.seen.append(("from", event.address))
        else:
            assert isinstance(event, Send)
            self.sent += event.data
            self.closed = not event.keep_alive

    def answers(self, *methods: str) -> list[Answer]:
        return answers(self.sent, *methods, closed=self.closed)

    @property
    def answer(self) -> Answer:
        (answer,) = self.answers()
        return answer

    @property
    def names(self) -> list[str]:
        return [entry[0] for entry in self.seen]


def ask(target: str, method: str = "GET", site: Site = SITE, **headers: str) -> Answer:
    """The response to a request without a body."""
    peer = Peer(site).feed(request(method, target, **headers))
    (answer,) = peer.answers(method)
    return answer
