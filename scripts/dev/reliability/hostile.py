"""Thirty kinds of hostile connections, each with the ends that the node may give it.

Every kind is a function that runs one connection against the native port and returns its end: the
code of the error reply, the status of another reply, `closed` if the node closed the connection
without a reply, `reset`, or `open` if the client left first. The module sends bytes of its own and
imports nothing from `app`.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import soundfile

Address = tuple[str, int]
Play = Callable[[Address, random.Random], str]

GIVE_UP_SECONDS = 300.0
"""Seconds of a connection. A node that keeps a hostile connection open for longer has a bug."""

_BAD = frozenset({"bad_header", "bad_field", "missing_field"})


@dataclass(frozen=True)
class Kind:
    """One kind of misbehaviour, and the ends that docs/protocol.md allows."""

    name: str
    play: Play
    allowed: frozenset[str]


_STRANGERS = "127.0.0.66"
"""The address of hostile clients, unlike that of honest ones. Linux answers on all of 127/8."""


def connect(address: Address) -> socket.socket:
    """Connect as a stranger."""
    return socket.create_connection(address, GIVE_UP_SECONDS, source_address=(_STRANGERS, 0))


def _header(**fields: object) -> bytes:
    whole = {
        "byteorder": "little",
        "content-type": "audio/flac",
        "content-encoding": "flac",
        "content-length": 4,
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


def _framed(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("!H", len(header)) + header + body


def _end(peer: socket.socket) -> str:
    """Read to the end; return the code or status of the last reply."""
    said = "closed"
    stream = peer.makefile("rb")
    try:
        while len(length := stream.read(2)) == 2:
            header = json.loads(stream.read(struct.unpack("!H", length)[0]))
            reply = json.loads(stream.read(header["content-length"]))
            said = reply["error"]["code"] if reply["status"] == "error" else reply["status"]
    except ConnectionError:
        return said if said != "closed" else "reset"
    except TimeoutError:
        return "hung"
    finally:
        stream.close()
    return said


def _says(data: bytes, *, then_half_close: bool = False) -> Play:
    def play(address: Address, rng: random.Random) -> str:
        with connect(address) as peer:
            with contextlib.suppress(ConnectionError):
                peer.sendall(data)
                if then_half_close:
                    peer.shutdown(socket.SHUT_WR)
            return _end(peer)

    return play


def _slow_header(address: Address, rng: random.Random) -> str:
    data = _framed(_header())
    with connect(address) as peer:
        peer.settimeout(1.0)
        for at in range(len(data)):
            try:
                peer.sendall(data[at : at + 1])
                if peer.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                return "reset"
        peer.settimeout(GIVE_UP_SECONDS)
        return _end(peer)


def _stalled_body(address: Address, rng: random.Random) -> str:
    return _says(_framed(_header(content_length=100_000), b"fLaC" + bytes(1000)))(address, rng)


def _live_header(**fields: object) -> bytes:
    """The header of a stream with its length."""
    raw = {"content_encoding": "s16", "sample_rate": 16_000, "channels": 1, "live": True}
    named = {"content_type": "audio/pcm", "reply": "segments", "content_length": None, **raw}
    return _framed(_header(**{**named, **fields}))


def _frames(data: bytes, size: int) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(struct.pack("!H", len(piece)) + piece for piece in pieces)


def _live_noise(address: Address, rng: random.Random) -> str:
    """Stream 20 s of loud noise as fast as the node takes it."""
    noise = rng.randbytes(20 * 32_000)
    return _says(_live_header() + _frames(noise, 65_534) + b"\0\0")(address, rng)


def _live_reset(address: Address, rng: random.Random) -> str:
    data = _live_header() + _frames(rng.randbytes(60_000), 640) + b"\0\0"
    return _reset_within(data, address, rng)


def _short_length(address: Address, rng: random.Random) -> str:
    """State a length of four bytes and send more, so that the rest is an invalid header."""
    return _says(_framed(_header(connection="keep-alive"), b"abcd" + b"\xff" * 400))(address, rng)


def _reset_anywhere(address: Address, rng: random.Random) -> str:
    data = _framed(_header(content_length=60_000, reply="segments"), bytes(60_000))
    return _reset_within(data, address, rng)


def _reset_within(data: bytes, address: Address, rng: random.Random) -> str:
    with connect(address) as peer:
        peer.sendall(data[: rng.randrange(len(data) + 1)])
        time.sleep(rng.random() * 0.2)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return "open"


def _never_reads(address: Address, rng: random.Random) -> str:
    """Send many small invalid messages on one connection and read no reply."""
    message = _framed(_header(connection="keep-alive", language=7), b"abcd")
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.settimeout(2.0)
    with peer:
        peer.bind((_STRANGERS, 0))
        peer.connect(address)
        with contextlib.suppress(OSError):
            for _ in range(300):
                peer.sendall(message * 10)
    return "open"


def _tls(address: Address, rng: random.Random) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(address) as peer:
        try:
            context.wrap_socket(peer, server_hostname="node").close()
        except ConnectionResetError:
            return "reset"
        except (ssl.SSLError, OSError):
            return "not tls"
    return "tls"


def prepare() -> None:
    """Make the expensive bodies once, before threads start, which would each make them."""
    _long_silence()
    _flac()


@cache
def _long_silence() -> bytes:
    """Six hours of silence, which FLAC compresses to a few hundred kilobytes."""
    with io.BytesIO() as file:
        with soundfile.SoundFile(file, "w", 8000, 1, "PCM_16", format="FLAC") as sound:
            minute = np.zeros(8000 * 60, dtype=np.int16)
            for _ in range(6 * 60):
                sound.write(minute)
        return file.getvalue()


@cache
def _flac() -> bytes:
    wave = np.random.default_rng(3).standard_normal(16_000).astype(np.float32) * 0.1
    with io.BytesIO() as file:
        soundfile.write(file, wave, 16_000, format="FLAC")
        return file.getvalue()


def _file(make: Callable[[], bytes]) -> Play:
    def play(address: Address, rng: random.Random) -> str:
        body = make()
        return _says(_framed(_header(content_length=len(body)), body))(address, rng)

    return play


def _truncated_flac() -> bytes:
    return _flac()[: len(_flac()) // 2]


def _bomb() -> bytes:
    """A WAV header that states four gigabytes in 64 channels, and 40 bytes of samples."""
    fmt = struct.pack("<HHIIHH", 1, 64, 384_000, 384_000 * 128, 128, 16)
    return b"RIFF\xf0\xff\xff\xffWAVEfmt \x10\0\0\0" + fmt + b"data\xc0\xff\xff\xfe" + bytes(40)


def _deep() -> bytes:
    return _framed(b'{"a":' * 10_000 + b"1" + b"}" * 10_000)


KINDS = (
    Kind("slow header", _slow_header, frozenset({"timeout"})),
    Kind("header that never comes", _says(b""), frozenset({"timeout", "closed"})),
    Kind("stalled body", _stalled_body, frozenset({"timeout"})),
    Kind("length too short", _short_length, _BAD | {"unsupported_media_type"}),
    Kind(
        "length too long",
        _says(_framed(_header(content_length=1000), b"abcd"), then_half_close=True),
        frozenset({"incomplete"}),
    ),
    Kind("header of 65,535 bytes", _says(_framed(b"{" + b" " * 65_534)), _BAD),
    Kind("deep JSON", _says(_deep()), _BAD),
    Kind("key twice", _says(_framed(b'{"content-length":4,"content-length":5}')), _BAD),
    Kind("invalid UTF-8", _says(_framed(b'{"id":"\xff\xfe"}')), _BAD),
    Kind("number as string", _says(_framed(_header(content_length="4"), b"abcd")), _BAD),
    Kind("negative length", _says(_framed(_header(content_length=-1))), _BAD),
    Kind("huge length", _says(_framed(_header(content_length=10**30))), frozenset({"too_large"})),
    Kind("header of length 0", _says(b"\0\0"), _BAD),
    Kind(
        "half-close in the header", _says(b"\0\x40{", then_half_close=True), _BAD | {"incomplete"}
    ),
    Kind("reset at any moment", _reset_anywhere, frozenset({"open"})),
    Kind("pipelined garbage", _says(bytes(range(256)) * 400), _BAD | {"reset"}),
    Kind("TLS on the plain port", _tls, frozenset({"not tls", "reset"})),
    Kind("HTTP on the native port", _says(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), _BAD),
    Kind("never reads", _never_reads, frozenset({"open"})),
    Kind("truncated FLAC", _file(_truncated_flac), frozenset({"ok", "bad_audio"})),
    Kind("a bomb of a WAV", _file(_bomb), frozenset({"audio_too_long", "bad_audio", "ok"})),
    Kind("six hours of silence", _file(_long_silence), frozenset({"audio_too_long"})),
    Kind("noise", _file(lambda: _flac()[:42] + bytes(900)), frozenset({"ok", "bad_audio"})),
    Kind("live noise", _live_noise, frozenset({"ok"})),
    Kind("live audio, reset at any moment", _live_reset, frozenset({"open"})),
    Kind(
        "live audio in frames of a byte",
        _says(_live_header() + _frames(bytes(5_000), 1) + b"\0\0"),
        frozenset({"ok"}),
    ),
    Kind("live audio that stalls", _says(_live_header() + b"\0\4ab"), frozenset({"timeout"})),
    Kind(
        "half-close in live audio",
        _says(_live_header() + b"\0\4abcd", then_half_close=True),
        frozenset({"incomplete"}),
    ),
    Kind("reserved frame", _says(_live_header() + b"\xff\xff" + bytes(900)), _BAD),
    Kind("live audio with a length", _says(_live_header(content_length=4) + b"abcd"), _BAD),
    Kind(
        "wrong kind of file",
        _says(_framed(_header(), b"PK\3\4")),
        frozenset({"unsupported_media_type"}),
    ),
)
"""The allowed ends come from the table of errors in docs/protocol.md."""
