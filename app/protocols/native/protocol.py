"""The native framing of port 56789: a length, a JSON header, a body.

    2 bytes   unsigned, network byte order: the length of the header in bytes
    header    UTF-8 JSON object: byteorder, content-length, content-type, content-encoding, ...
    body      content-length bytes; with "live": true, frames

Replies have the same shape. `NativeProtocol` is the state machine;
`app/protocols/native/header.py` checks headers, `app/protocols/native/frames.py` finds the end of a
body, and docs/protocol.md describes all three. An error after which the end of the message is still
known becomes a `Rejected` event. Any other raises `ProtocolError`, because the following bytes
cannot be interpreted. Loop thread only.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NoReturn

from app.messages import BAD_HEADER, Begin, BodyData, End, Event, Failure, Rejected, Reply
from app.protocols.base import ProtocolError
from app.protocols.native.frames import BodyReader, CountedBody, FramedBody
from app.protocols.native.header import parse_header
from app.protocols.native.replies import all_fields

_LENGTH = struct.Struct("!H")

_JSON_SPACE = b" \t\r\n"


class _State(Enum):
    LENGTH = auto()
    HEADER = auto()
    DECISION = auto()
    BODY = auto()
    DISCARD = auto()
    DONE = auto()


class NativeProtocol:
    """The native framing as a `Protocol`: see `app/protocols/base.py` for the contract.

    `max_body` is the largest `content-length` accepted, in bytes; `new_id` returns the id of a
    request without one.
    """

    end_means_gone = False
    full = False

    def __init__(self, max_body: int, new_id: Callable[[], str]) -> None:
        self._max_body = max_body
        self._new_id = new_id
        self._state = _State.LENGTH
        self._input = memoryview(b"")
        # Length and header are collected here, so that each byte of a slow header is copied once.
        self._gathered = bytearray()
        self._wanted = _LENGTH.size
        self._begun = False
        """True after the header's first brace."""
        self._body: BodyReader = CountedBody(0)
        self._keep_alive = False

    def feed(self, data: bytes) -> None:
        if self._state is _State.DONE:
            return
        # Input is left over only while a decision is pending, and little is fed then.
        left_over = bytes(self._input)
        self._input = memoryview(left_over + data if left_over else data)

    def next_event(self) -> Event | None:
        while True:
            if self._state in (_State.LENGTH, _State.HEADER):
                if not self._gather():
                    return None
                if self._state is _State.LENGTH:
                    self._expect_header()
                else:
                    return self._finish_header()
            elif self._state is _State.BODY:
                if data := self._take():
                    return BodyData(data)
                if not self._body.ended:
                    return None
                self._next_message()
                return End()
            elif self._state is _State.DISCARD:
                if not self._take() and not self._body.ended:
                    return None
                if self._body.ended:
                    self._next_message()
            else:
                return None

    def accept(self) -> bytes:
        self._decide(_State.BODY)
        return b""

    def reject(self) -> None:
        self._decide(_State.DISCARD)

    def abandon(self) -> None:
        self._state = _State.DONE
        self._input = memoryview(b"")

    @property
    def idle(self) -> bool:
        return self._state is _State.DONE or (self._state is _State.LENGTH and not self._gathered)

    @property
    def reading_body(self) -> bool:
        return self._state in (_State.BODY, _State.DISCARD)

    def encode(self, request_id: str | None, reply: Reply) -> bytes:
        return b"".join(_message(fields) for fields in all_fields(request_id, reply))

    def _gather(self) -> bool:
        missing = self._wanted - len(self._gathered)
        piece, self._input = self._input[:missing], self._input[missing:]
        if self._state is _State.HEADER and not self._begun:
            self._check_beginning(bytes(piece).lstrip(_JSON_SPACE))
        self._gathered += piece
        return len(self._gathered) == self._wanted

    def _take(self) -> memoryview:
        """Return the next piece of the body; empty if the input is used up or the body ended."""
        piece, self._input = self._body.take(self._input)
        return piece

    def _expect_header(self) -> None:
        (self._wanted,) = _LENGTH.unpack(self._gathered)
        self._gathered.clear()
        self._begun = False
        self._state = _State.HEADER
        if self._wanted == 0:
            failure = Failure(BAD_HEADER, "the header's length is 0; send a JSON object")
            self._lose(ProtocolError(failure))

    def _check_beginning(self, data: bytes) -> None:
        """Reject a header that does not begin like JSON.

        The first bytes of TLS or HTTP on this port look like the length of a long header. The
        client receives the error at once instead of after the deadline.
        """
        self._begun = bool(data)
        if data and not data.startswith(b"{"):
            failure = Failure(
                BAD_HEADER,
                "the header does not begin like a JSON object; this port requires native messages",
            )
            self._lose(ProtocolError(failure))

    def _finish_header(self) -> Event:
        try:
            parsed = parse_header(bytes(self._gathered), self._max_body, self._new_id)
        except ProtocolError as error:
            self._lose(error)
        self._gathered.clear()
        length = parsed.content_length
        self._body = FramedBody() if length is None else CountedBody(length)
        self._keep_alive = parsed.keep_alive
        if parsed.request is not None:
            self._state = _State.DECISION
            return Begin(parsed.request)
        assert parsed.failure is not None
        self._state = _State.DISCARD if parsed.keep_alive else _State.DONE
        return Rejected(parsed.id, parsed.failure, parsed.reply, parsed.keep_alive, parsed.token)

    def _decide(self, state: _State) -> None:
        if self._state is not _State.DECISION:
            raise RuntimeError("accept() or reject() without a Begin event")
        is_last = state is _State.DISCARD and not self._keep_alive
        self._state = _State.DONE if is_last else state

    def _next_message(self) -> None:
        self._state = _State.LENGTH if self._keep_alive else _State.DONE
        self._wanted = _LENGTH.size
        if self._state is _State.DONE:
            self._input = memoryview(b"")

    def _lose(self, error: ProtocolError) -> NoReturn:
        self.abandon()
        raise error from None


def _message(fields: dict[str, Any]) -> bytes:
    """Return one reply with its header."""
    body = json.dumps(fields, ensure_ascii=False).encode()
    header = json.dumps(
        {
            "byteorder": sys.byteorder,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "content-length": len(body),
        }
    ).encode()
    return _LENGTH.pack(len(header)) + header + body
