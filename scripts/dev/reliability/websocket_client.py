"""A WebSocket client's side of RFC 6455, without a package and without the node's own modules.

`frame` makes a client's frame, valid or not; `messages` reads the server's. The tests and the
hostile clients share it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of the example in RFC 6455, section 1.3."""


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    mask: bytes | None = MASK,
    reserved: int = 0,
    length: int | None = None,
) -> bytes:
    """A frame. `length` states another length than the payload's; `mask` None leaves it out."""
    size = len(payload) if length is None else length
    bit = 0 if mask is None else 0x80
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65_536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if mask is None:
        return head + payload
    keys = mask * (len(payload) // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(keys[: len(payload)], "big")
    return head + mask + masked.to_bytes(len(payload), "big")


def text(value: Any) -> bytes:
    """A text message; a value that is not a string is sent as JSON."""
    return frame(TEXT, (value if isinstance(value, str) else json.dumps(value)).encode())


def append(samples: bytes) -> dict[str, str]:
    """The event of the Realtime API with audio."""
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(samples).decode()}


def close(code: int | None = 1000) -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code))


def accept_of(key: str) -> str:
    guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(key.encode() + guid).digest()).decode()


def opening(target: str = "/v1/realtime", **headers: str | None) -> bytes:
    """An opening handshake. Header names have underscores for hyphens; None leaves one out."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode()


@dataclass(frozen=True)
class Message:
    """A frame of the server, which sends whole messages."""

    opcode: int
    data: bytes

    @property
    def json(self) -> Any:
        assert self.opcode == TEXT
        return json.loads(self.data)

    @property
    def code(self) -> int:
        assert self.opcode == CLOSE
        return int(struct.unpack("!H", self.data[:2])[0])


def messages(data: bytes) -> Iterator[Message]:
    """The server's frames: whole, unmasked, without extensions."""
    at = 0
    while at < len(data):
        first, second = data[at], data[at + 1]
        assert first & 0xF0 == 0x80, "a fragment, or a reserved bit"
        assert second < 128, "servers do not mask"
        size, at = second, at + 2
        if size == 126:
            size, at = struct.unpack_from("!H", data, at)[0], at + 2
        elif size == 127:
            size, at = struct.unpack_from("!Q", data, at)[0], at + 8
        assert at + size <= len(data), "a frame is incomplete"
        yield Message(first & 15, data[at : at + size])
        at += size
