"""The contract between a session and its dialogue: the meaning of the messages of one API.

A dialogue belongs to one connection and lives on the loop thread. It turns messages into actions,
and the node's replies into messages. It sees no frame, socket, clock, thread or log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol as Interface

from app.live import LiveEvent
from app.messages import Reply, Request


@dataclass(frozen=True, slots=True)
class Say:
    """Send a text message."""

    text: str


@dataclass(frozen=True, slots=True)
class Audio:
    """Further samples of the stream. The first ones begin a stream with `Dialogue.request`."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EndStream:
    """End the stream, if there is one. Further messages wait for its outcome; the next audio begins
    another stream."""


@dataclass(frozen=True, slots=True)
class Leave:
    """End the stream and the session, with a close code and a reason."""

    code: int
    reason: str = ""


Action = Say | Audio | EndStream | Leave | LiveEvent


class Dialogue(Interface):
    """One API over WebSocket."""

    def greeting(self) -> Sequence[Action]:
        """Return the actions before the first message."""

    def on_text(self, text: str) -> Sequence[Action]:
        """Return the actions that a text message asks for."""

    def on_binary(self, data: bytes, ended: bool) -> Sequence[Action]:
        """Return the actions that a piece of a binary message asks for; `ended` with its last."""

    def request(self, request_id: str) -> Request:
        """Return the request of the stream that begins now, without a token."""

    def on_reply(self, reply: Reply) -> Sequence[Say | Leave]:
        """Return the messages for a reply of the stream. `Streamed` and `Failure` are its last."""
