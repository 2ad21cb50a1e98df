"""A session of live audio over WebSocket, as a protocol of the node.

A session has any number of streams, one after the other. Each is a message of the contract in
`app/protocols/base.py`: `Begin` with the first audio, `BodyData` and the events of live audio, and
`End`. Messages of the client wait while a stream begins or ends. Loop thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum, auto

from app import messages
from app.live import Clear, Commit, Configure
from app.messages import (
    BAD_FIELD,
    Begin,
    BodyData,
    End,
    Event,
    Failure,
    Reply,
    Send,
    Streamed,
)
from app.protocols.base import MAX_HELD_BYTES, ProtocolError
from app.protocols.websocket import frames
from app.protocols.websocket.dialogue import Action, Audio, Dialogue, EndStream, Leave, Say
from app.protocols.websocket.frames import Binary, Closed, FrameError, Frames, Incoming, More, Text

PIECE_BYTES = 32_768
"""Bytes of a `BodyData`: between two of them the connection may stop reading."""

_CLOSE_CODES = {
    messages.TIMEOUT: frames.GOING_AWAY,
    messages.SHUTTING_DOWN: frames.GOING_AWAY,
    messages.BUSY: frames.TRY_AGAIN,
    messages.UNAUTHORIZED: frames.POLICY,
}
"""Failures that end the session, with the close code."""


class _Stream(Enum):
    """The position within a stream."""

    NONE = auto()
    BEGINS = auto()
    """A `Begin` is queued, or waits for its decision."""
    OPEN = auto()
    ENDS = auto()
    """The `End` is queued, or the last reply is due."""


class WebSocketSession:
    """A session as a `Protocol`. `new_id` makes a stream's id; `token` is the client's."""

    end_means_gone = True

    def __init__(self, dialogue: Dialogue, new_id: Callable[[], str], token: str | None) -> None:
        self._dialogue = dialogue
        self._new_id = new_id
        self._token = token
        self._frames = Frames()
        self._events: deque[Event] = deque()
        self._stream = _Stream.NONE
        self._undecided = False
        self._fault: FrameError | None = None
        self._closed = False
        """A close frame was sent: nothing follows it."""
        self._left = False
        """The connection was asked to end."""
        self._do(dialogue.greeting())

    def feed(self, data: bytes) -> None:
        if not self._closed:
            self._frames.feed(data)

    def next_event(self) -> Event | None:
        if self._undecided:
            return None
        while not self._events:
            if self._closed:
                if self._left:
                    return None
                self._left = True
                return Send(b"", keep_alive=False)
            if self._stream is _Stream.ENDS:
                return None
            try:
                incoming = self._frames.next()
            except FrameError as error:
                raise self._lost(error) from None
            if incoming is None:
                return None
            if isinstance(incoming, More):
                return Send(b"")
            self._take(incoming)
        event = self._events.popleft()
        self._undecided = isinstance(event, Begin)
        return event

    def accept(self) -> bytes:
        self._decide()
        if self._stream is _Stream.BEGINS:
            self._stream = _Stream.OPEN
        return b""

    def reject(self) -> None:
        self._decide()
        self._forget_stream()

    def abandon(self) -> None:
        self._closed = self._left = True
        self._undecided = False
        self._stream = _Stream.NONE
        self._events.clear()
        self._frames.clear()

    @property
    def idle(self) -> bool:
        return self._stream is _Stream.NONE and not self._events

    @property
    def reading_body(self) -> bool:
        return self._stream is _Stream.OPEN

    @property
    def full(self) -> bool:
        return self._stream is _Stream.ENDS and self._frames.held >= MAX_HELD_BYTES

    def encode(self, request_id: str | None, reply: Reply) -> bytes:
        if self._closed:
            return b""
        if self._fault is not None and isinstance(reply, Failure):
            return self._close(self._fault.code, self._fault.reason)
        actions = list(self._dialogue.on_reply(reply))
        if isinstance(reply, Failure) and reply.code in _CLOSE_CODES:
            actions = [action for action in actions if isinstance(action, Say)]
            actions.append(Leave(_CLOSE_CODES[reply.code], reply.message))
        elif isinstance(reply, Streamed) and reply.truncated:
            actions.append(Leave(frames.GOING_AWAY, "the node is shutting down"))
        if isinstance(reply, Failure | Streamed):
            self._forget_stream()
        return self._said(actions)

    def farewell(self) -> bytes:
        """Return the close frame of a session that the node ends; nothing if it has ended."""
        return self._close(frames.GOING_AWAY, "the node is shutting down")

    # Input.

    def _take(self, incoming: Incoming) -> None:
        if isinstance(incoming, Text):
            self._do(self._dialogue.on_text(incoming.text))
        elif isinstance(incoming, Binary):
            self._do(self._dialogue.on_binary(incoming.data, incoming.ended))
        elif isinstance(incoming, Closed):
            self._leave(incoming.data)
        elif isinstance(incoming, frames.Answer):
            self._events.append(Send(incoming.data))

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if self._closed:
                return
            if isinstance(action, Say):
                self._events.append(Send(self._frames.text(action.text)))
            elif isinstance(action, Audio):
                self._pass_on(action.data)
            elif isinstance(action, EndStream):
                self._end_stream()
            elif isinstance(action, Leave):
                self._leave(self._frames.close(action.code, action.reason))
            elif self._is_streaming:
                assert isinstance(action, Commit | Clear | Configure)
                self._events.append(action)

    def _pass_on(self, data: bytes) -> None:
        if not data:
            return
        if self._stream is _Stream.NONE:
            request = self._dialogue.request(self._new_id())
            self._events.append(Begin(replace(request, token=self._token)))
            self._stream = _Stream.BEGINS
        view = memoryview(data)
        for at in range(0, len(data), PIECE_BYTES):
            self._events.append(BodyData(view[at : at + PIECE_BYTES]))

    def _end_stream(self) -> None:
        if self._is_streaming:
            self._events.append(End())
            self._stream = _Stream.ENDS

    def _leave(self, close_frame: bytes) -> None:
        """End the session; nobody waits for the text of the open utterance."""
        if self._is_streaming:
            self._events.append(Clear())
            self._end_stream()
        self._events.append(Send(close_frame))
        self._closed = True
        self._frames.clear()

    @property
    def _is_streaming(self) -> bool:
        return self._stream in (_Stream.BEGINS, _Stream.OPEN)

    def _lost(self, error: FrameError) -> ProtocolError:
        self._fault = error
        code = messages.TOO_LARGE if error.code == frames.TOO_BIG else BAD_FIELD
        return ProtocolError(Failure(code, error.reason))

    # Output.

    def _said(self, actions: Iterable[Say | Leave]) -> bytes:
        data = b""
        for action in actions:
            if self._closed:
                break
            if isinstance(action, Say):
                data += self._frames.text(action.text)
            else:
                data += self._close(action.code, action.reason)
        return data

    def _close(self, code: int, reason: str) -> bytes:
        if self._closed:
            return b""
        data = self._frames.close(code, reason)
        self._closed = True
        self._frames.clear()
        return data

    def _forget_stream(self) -> None:
        """Drop the events of the stream, which has its outcome; messages to the client stay."""
        self._stream = _Stream.NONE
        kept = [event for event in self._events if isinstance(event, Send)]
        self._events = deque(kept)

    def _decide(self) -> None:
        if not self._undecided:
            raise RuntimeError("accept() and reject() answer a Begin")
        self._undecided = False
