"""Frames of a WebSocket: bytes in, messages out, with bounds on the cost of a client.

wsproto parses the frames; it checks masks, lengths, UTF-8 and the order of fragments, and it limits
control frames to 125 bytes. This module limits what wsproto does not: the size of a message and the
number of its fragments. Loop thread.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    TextMessage,
)

MAX_MESSAGE_BYTES = 1_048_576
"""Bytes of a message. OpenAI's API allows 15 MiB; its clients send some kilobytes."""

MAX_FRAGMENTS = 1_024
"""Frames of a message: each costs some microseconds, even without a payload."""

_STEP_BYTES = 16_384
"""Bytes that are parsed at one time; the rest stays unread while the session cannot go on."""

_STEP_FRAMES = 64
"""Frames between two answers of `next`, so that the connection decides how many make a turn."""

# Close codes of RFC 6455, section 7.4.1, and of the IANA registry (1013).
NORMAL, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED_DATA = 1000, 1001, 1002, 1003
INVALID_DATA, POLICY, TOO_BIG, FAULT, TRY_AGAIN = 1007, 1008, 1009, 1011, 1013
_NO_CODE = 1005


class FrameError(Exception):
    """The client broke the protocol or a limit. `code` is that of the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Text:
    """A whole text message."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """A piece of a binary message; `ended` is true for its last one."""

    data: bytes = field(repr=False)
    ended: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes that answer a control frame."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The client closes the WebSocket; `data` is the close frame that answers it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class More:
    """There is more input; the connection may serve others first."""


Incoming = Text | Binary | Answer | Closed | More


class Frames:
    """The frames of one connection, both ways."""

    def __init__(self) -> None:
        self._socket = Connection(ConnectionType.SERVER)
        self._unread: deque[bytes] = deque()
        self.held = 0
        """Bytes that were fed and not parsed."""
        self._text: list[str] = []
        self._size = 0
        """Bytes of the message in progress."""
        self._fragments = 0

    def feed(self, data: bytes) -> None:
        """Take bytes from the client."""
        if data:
            self._unread.append(data)
            self.held += len(data)

    def next(self) -> Incoming | None:
        """Return the next message, or None if more bytes are needed. Raises `FrameError`."""
        for _ in range(_STEP_FRAMES):
            event = next(self._socket.events(), None)
            if event is None:
                if not self._unread:
                    return None
                self._socket.receive_data(self._step())
            elif (found := self._take(event)) is not None:
                return found
        return More()

    def clear(self) -> None:
        """Drop all input."""
        self._unread.clear()
        self._text.clear()
        self.held = 0

    def text(self, text: str) -> bytes:
        """Return a text message."""
        # A lone surrogate, which JSON can hold, has no UTF-8.
        clean = text.encode("utf-8", "replace").decode()
        return bytes(self._socket.send(TextMessage(data=clean)))

    def close(self, code: int, reason: str = "") -> bytes:
        """Return a close frame; no message may follow it."""
        return bytes(self._socket.send(CloseConnection(code=code, reason=reason)))

    def _step(self) -> bytes:
        data = self._unread.popleft()
        step, rest = data[:_STEP_BYTES], data[_STEP_BYTES:]
        if rest:
            self._unread.appendleft(rest)
        self.held -= len(step)
        return step

    def _take(self, event: Event) -> Incoming | None:
        if isinstance(event, Message):
            return self._take_message(event)
        if isinstance(event, Ping):
            return Answer(bytes(self._socket.send(Pong(payload=bytes(event.payload)))))
        if isinstance(event, CloseConnection):
            if self._socket.state is ConnectionState.OPEN:
                # wsproto reports broken frames like a close frame of the client. Its reason for
                # invalid UTF-8 depends on the pieces in which the bytes came.
                is_text = event.code == INVALID_DATA
                reason = "the text is not valid UTF-8" if is_text else event.reason
                raise FrameError(int(event.code), reason or "the frames are not valid")
            code = NORMAL if event.code == _NO_CODE else int(event.code)
            return Closed(self.close(code))
        return None

    def _take_message(self, event: Message[Any]) -> Incoming | None:
        self._fragments += event.frame_finished
        text = event.data if isinstance(event, TextMessage) else None
        self._size += len(event.data) if text is None else _bytes_of(text)
        if self._size > MAX_MESSAGE_BYTES:
            raise FrameError(TOO_BIG, f"a message has at most {MAX_MESSAGE_BYTES} bytes")
        if self._fragments > MAX_FRAGMENTS:
            raise FrameError(TOO_BIG, f"a message has at most {MAX_FRAGMENTS} fragments")
        ended = event.message_finished and event.frame_finished
        if ended:
            self._size = self._fragments = 0
        if text is None:
            assert isinstance(event, BytesMessage)
            return Binary(bytes(event.data), ended) if event.data or ended else None
        self._text.append(text)
        if not ended:
            return None
        whole = "".join(self._text)
        self._text.clear()
        return Text(whole)


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
