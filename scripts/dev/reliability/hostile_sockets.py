"""Hostile WebSocket clients, each with the ends that docs/websocket.md allows.

Every kind runs one connection against the HTTP port and returns its end: the close code of the
node, the status of an answer of HTTP, `closed` if the node closed without either, `reset`, or
`open` if the client left first. The module imports nothing from `app`.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from reliability.hostile import GIVE_UP_SECONDS, Address, Kind, Play, connect
from reliability.websocket_client import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    Message,
    append,
    close,
    frame,
    opening,
    text,
)

_MEBIBYTE = 1 << 20
_SECOND = bytes(2 * 24_000)
_LONGEST = 5.0
"""Seconds of the kinds that never end by themselves."""


class _Reader:
    """Reads the answer to the opening handshake, then frames."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._data = b""

    def status(self) -> int | None:
        while b"\r\n\r\n" not in self._data:
            if not self._more():
                return None
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        return int(head.split()[1])

    def frames(self) -> Iterator[Message]:
        while True:
            size, at = self._length()
            if size is None or not self._have(at + size):
                return
            yield Message(self._data[0] & 15, self._data[at : at + size])
            self._data = self._data[at + size :]

    def _length(self) -> tuple[int | None, int]:
        if not self._have(2):
            return None, 0
        size = self._data[1]
        if size < 126:
            return size, 2
        form, at = ("!H", 4) if size == 126 else ("!Q", 10)
        if not self._have(at):
            return None, 0
        return int(struct.unpack_from(form, self._data, 2)[0]), at

    def _have(self, count: int) -> bool:
        while len(self._data) < count:
            if not self._more():
                return False
        return True

    def _more(self) -> bool:
        more = self._peer.recv(65_536)
        self._data += more
        return bool(more)


def _end(peer: socket.socket) -> str:
    """Read to the end; return the close code, or the status of an answer that is no upgrade."""
    reader = _Reader(peer)
    said = "closed"
    try:
        status = reader.status()
        if status != 101:
            return "closed" if status is None else str(status)
        for message in reader.frames():
            if message.opcode == CLOSE:
                return str(message.code)
    except ConnectionError:
        return "reset"
    except TimeoutError:
        return "hung"
    return said


def _sends(make: Callable[[], bytes], path: str = "/v1/realtime") -> Play:
    """Open a WebSocket, send what `make` returns, and read to the end."""

    def play(address: Address, rng: random.Random) -> str:
        with connect(address) as peer:
            with contextlib.suppress(ConnectionError):
                peer.sendall(opening(path) + make())
            return _end(peer)

    return play


def _asks(request: bytes) -> Play:
    def play(address: Address, rng: random.Random) -> str:
        with connect(address) as peer:
            peer.sendall(request)
            return _end(peer)

    return play


def _for_a_while(make: Callable[[random.Random], bytes], reads: bool = True) -> Play:
    """Send bytes again and again until the node closes or the time is up, then leave."""

    def play(address: Address, rng: random.Random) -> str:
        end = time.monotonic() + _LONGEST
        with connect(address) as peer:
            peer.settimeout(1.0)
            try:
                peer.sendall(opening())
                while time.monotonic() < end:
                    peer.sendall(make(rng))
                    if reads:
                        with contextlib.suppress(BlockingIOError):
                            peer.recv(65_536, socket.MSG_DONTWAIT)
            except TimeoutError:
                return "open"  # the node does not read on, which is its right
            except ConnectionError:
                return "closed"
        return "open"

    return play


def _slow_frame(address: Address, rng: random.Random) -> str:
    """Send an event byte by byte with pauses, then leave in the middle."""
    data = opening() + text(append(_SECOND))[:60]
    with connect(address) as peer:
        for at in range(len(data)):
            try:
                peer.sendall(data[at : at + 1])
            except ConnectionError:
                return "closed"
            time.sleep(0.02)
    return "open"


def _leaves_anywhere(address: Address, rng: random.Random) -> str:
    commit = text({"type": "input_audio_buffer.commit"})
    data = opening() + text(append(_SECOND)) * 3 + commit + close()
    with connect(address) as peer:
        peer.sendall(data[: rng.randrange(len(data) + 1)])
        time.sleep(rng.random() * 0.2)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return "open"


def _unmasked() -> bytes:
    return frame(TEXT, b"{}", mask=None)


def _endless_fragments() -> bytes:
    return frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) * 2_000


def _event(value: object) -> Callable[[], bytes]:
    return lambda: text(value) + close()


def _bad_base64() -> bytes:
    bad = {"type": "input_audio_buffer.append", "audio": "*" * 400}
    return text(bad) * 50 + close()


def _nested() -> bytes:
    return text("[" * 30_000 + "]" * 30_000)


def _wide() -> bytes:
    return text('{"type": "session.update", "session": [' + "{}," * 300_000 + "{}]}") + close()


_OPEN = frozenset({"open", "closed"})

_KINDS = (
    Kind("unmasked frame", _sends(_unmasked), frozenset({"1002"})),
    Kind("reserved bits", _sends(lambda: frame(TEXT, b"{}", reserved=4)), frozenset({"1002"})),
    Kind("endless fragments", _sends(_endless_fragments), frozenset({"1009"})),
    Kind("giant control frame", _sends(lambda: frame(PING, bytes(70_000))), frozenset({"1002"})),
    Kind(
        "message of 2 MiB",
        _sends(lambda: frame(TEXT, b"x" * 2 * _MEBIBYTE)),
        frozenset({"1009", "reset"}),
    ),
    Kind(
        "frame of 2^62 bytes",
        _sends(lambda: frame(BINARY, bytes(2 * _MEBIBYTE), length=1 << 62), "/vosk"),
        frozenset({"1009", "reset"}),
    ),
    Kind("invalid UTF-8 in text", _sends(lambda: frame(TEXT, b"\xff\xfe")), frozenset({"1007"})),
    Kind("nested JSON", _sends(_nested), frozenset({"1007"})),
    Kind("wide JSON", _sends(_wide), frozenset({"1000"})),
    Kind("invalid base64", _sends(_bad_base64), frozenset({"1000"})),
    Kind("unknown events", _sends(_event({"type": "response.create"})), frozenset({"1000"})),
    Kind("binary for Realtime", _sends(lambda: frame(BINARY, bytes(99))), frozenset({"1003"})),
    Kind("no JSON for Vosk", _sends(lambda: text("eof"), "/vosk"), frozenset({"1007"})),
    Kind("ping flood", _for_a_while(lambda rng: frame(PING, rng.randbytes(125)) * 200), _OPEN),
    Kind(
        "ping flood without reading",
        _for_a_while(lambda rng: frame(PING, rng.randbytes(125)) * 200, reads=False),
        _OPEN,
    ),
    Kind("audio flood", _for_a_while(lambda rng: text(append(_SECOND)) * 4), _OPEN),
    Kind("random frames", _for_a_while(lambda rng: rng.randbytes(4096)), _OPEN),
    Kind("slow frame", _slow_frame, _OPEN),
    Kind("leaves anywhere", _leaves_anywhere, frozenset({"open"})),
    Kind("wrong version", _asks(opening(Sec_WebSocket_Version="7")), frozenset({"426"})),
    Kind("no key", _asks(opening(Sec_WebSocket_Key=None)), frozenset({"400"})),
    Kind("page of another origin", _asks(opening(Origin="http://x.test")), frozenset({"403"})),
    Kind("rebound name", _asks(opening(Host="x.test")), frozenset({"403"})),
    Kind("no such address", _asks(opening("/v2")), frozenset({"404"})),
)

SOCKET_KINDS = tuple(replace(kind, allowed=kind.allowed | {"503"}) for kind in _KINDS)
"""The allowed ends come from the tables in docs/websocket.md. `reset` may come with a close frame
while the client still sends; 503 is the answer while all places for live audio are taken."""


def transcribe(address: Address, samples: bytes) -> str:
    """Be an honest client: send samples of 24 kHz, commit, and return the text."""
    update = {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}}
    with socket.create_connection(address, GIVE_UP_SECONDS) as peer:
        peer.sendall(opening() + text(update))
        for at in range(0, len(samples), 48_000):
            peer.sendall(text(append(samples[at : at + 48_000])))
        peer.sendall(text({"type": "input_audio_buffer.commit"}))
        reader = _Reader(peer)
        if (status := reader.status()) != 101:
            raise ConnectionError(f"the node answered {status}")
        for message in reader.frames():
            event = json.loads(message.data) if message.opcode == TEXT else {}
            if event.get("type", "").endswith("transcription.completed"):
                peer.sendall(close())
                return str(event["transcript"])
    raise ConnectionError("the node closed without a text")
