"""A server for sessions, for the tests without IO, and the client's side from `reliability`.

`Peer` runs a session of the node as the connection and the server do, and records what both sides
do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reliability.websocket_client import (
    BINARY,
    CLOSE,
    KEY,
    MASK,
    PING,
    PONG,
    TEXT,
    Message,
    accept_of,
    append,
    close,
    frame,
    messages,
    opening,
    text,
)

from app.messages import Begin, BodyData, Event, Failure, Reply, Send
from app.protocols.base import ProtocolError
from app.protocols.websocket.session import WebSocketSession

__all__ = [
    "BINARY",
    "CLOSE",
    "KEY",
    "MASK",
    "PING",
    "PONG",
    "TEXT",
    "Message",
    "Peer",
    "accept_of",
    "append",
    "close",
    "frame",
    "messages",
    "opening",
    "text",
]


@dataclass
class Peer:
    """A session and a server that admits every stream while `accepts` is True."""

    session: WebSocketSession
    accepts: bool | None = True
    """None leaves a `Begin` undecided."""
    events: list[Event] = field(default_factory=list)
    """The session's events other than `Send` and `BodyData`."""
    audio: bytes = b""
    sent: bytes = b""
    ended: bool = False
    lost: Failure | None = None

    def __post_init__(self) -> None:
        self.pump()

    def feed(self, *pieces: bytes) -> Peer:
        for piece in pieces:
            if not self.ended:
                self.session.feed(piece)
                self.pump()
        return self

    def say(self, *values: Any) -> Peer:
        """Send text messages."""
        return self.feed(*(text(value) for value in values))

    def reply(self, *replies: Reply) -> Peer:
        """Pass the node's replies to the client."""
        for reply in replies:
            self.sent += self.session.encode("made", reply)
            self.pump()
        return self

    def decide(self, accept: bool) -> Peer:
        if accept:
            self.sent += self.session.accept()
        else:
            self.session.reject()
        self.pump()
        return self

    def pump(self) -> None:
        try:
            while not self.ended and (event := self.session.next_event()) is not None:
                self._take(event)
        except ProtocolError as error:
            self.lost = error.failure
            self.sent += self.session.encode(error.request_id, error.failure)
            self.session.abandon()
            self.ended = True

    def _take(self, event: Event) -> None:
        if isinstance(event, Send):
            self.sent += event.data
            self.ended = not event.keep_alive
        elif isinstance(event, BodyData):
            self.audio += bytes(event.data)
        else:
            self.events.append(event)
            if isinstance(event, Begin) and self.accepts is not None:
                assert self.session.next_event() is None, "nothing may come before the decision"
                self.decide(self.accepts)

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def take(self) -> list[Message]:
        """The server's messages since the last call."""
        found = list(messages(self.sent))
        self.sent = b""
        return found

    def texts(self) -> list[Any]:
        """The server's text messages since the last call, decoded."""
        return [one.json for one in self.take()]
