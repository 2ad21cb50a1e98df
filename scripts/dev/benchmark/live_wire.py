"""The bytes of live audio on the wire: packets with their deadlines, and readers of the answers.

The deadline of a packet is the time of its last sample: a microphone cannot send it earlier. The
end follows the last packet at once. The formats are those of docs/wyoming.md and docs/protocol.md,
written without the modules of the node.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from benchmark.corpus import RATE

Packet = tuple[float, bytes]
"""Seconds since the first sample, and the bytes to send then."""

Message = dict[str, Any]

_FORMAT = {"rate": RATE, "width": 2, "channels": 1}


def chunks(
    samples: np.ndarray, seconds: float, burst: float = 0.0
) -> Iterator[tuple[float, bytes]]:
    """Yield the samples in packets of `seconds`, each with its deadline. With `burst` the packets
    of that many seconds have the deadline of the last of them."""
    size = round(seconds * RATE)
    per_burst = max(1, round(burst / seconds))
    for number, at in enumerate(range(0, len(samples), size)):
        last = (number // per_burst + 1) * per_burst * size
        yield min(last, len(samples)) / RATE, samples[at : at + size].tobytes()


def wyoming_event(kind: str, data: Message | None = None, payload: bytes = b"") -> bytes:
    """Return the bytes of one event."""
    extra = b"" if data is None else json.dumps(data).encode()
    header: Message = {"type": kind, "version": "1.8.0"}
    if extra:
        header["data_length"] = len(extra)
    if payload:
        header["payload_length"] = len(payload)
    return json.dumps(header).encode() + b"\n" + extra + payload


def wyoming(
    samples: np.ndarray, language: str, seconds: float, burst: float = 0.0
) -> Iterator[Packet]:
    """Yield a whole command as Home Assistant sends it."""
    yield 0.0, wyoming_event("transcribe", {"language": language})
    yield 0.0, wyoming_event("audio-start", {**_FORMAT, "timestamp": 0})
    due = 0.0
    for due, data in chunks(samples, seconds, burst):
        yield due, wyoming_event("audio-chunk", _FORMAT, data)
    yield due, wyoming_event("audio-stop", {"timestamp": 0})


def native_stream(packets: Iterable[Packet], **fields: object) -> Iterator[Packet]:
    """Yield a native stream of live audio."""
    header = {
        "live": True,
        "byteorder": "little",
        "content-type": "audio/pcm",
        "content-encoding": "s16",
        "sample-rate": RATE,
        "channels": 1,
        **fields,
    }
    encoded = json.dumps(header).encode()
    yield 0.0, len(encoded).to_bytes(2, "big") + encoded
    due = 0.0
    for due, data in packets:
        yield due, len(data).to_bytes(2, "big") + data
    yield due, b"\x00\x00"


class Reader(Protocol):
    """Makes messages of a server's bytes."""

    def feed(self, data: bytes) -> list[Message]: ...

    def is_last(self, message: Message) -> bool: ...


class WyomingReader:
    """Events; `transcript` is the last one, and `error`."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[Message]:
        self._data += data
        messages: list[Message] = []
        while (end := self._data.find(b"\n")) >= 0:
            header = json.loads(self._data[:end])
            extra, payload = header.get("data_length") or 0, header.get("payload_length") or 0
            if len(self._data) < end + 1 + extra + payload:
                break
            fields = header.get("data") or {}
            if extra:
                fields = {**fields, **json.loads(self._data[end + 1 : end + 1 + extra])}
            messages.append({**fields, "type": header["type"]})
            self._data = self._data[end + 1 + extra + payload :]
        return messages

    def is_last(self, message: Message) -> bool:
        return message["type"] in ("transcript", "error")


class NativeReader:
    """Replies: a two-byte length, a JSON header, and as many bytes of JSON as it says."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[Message]:
        self._data += data
        messages: list[Message] = []
        while len(self._data) >= 2:
            begin = 2 + int.from_bytes(self._data[:2], "big")
            if len(self._data) < begin:
                break
            end = begin + int(json.loads(self._data[2:begin])["content-length"])
            if len(self._data) < end:
                break
            messages.append(json.loads(self._data[begin:end]))
            self._data = self._data[end:]
        return messages

    def is_last(self, message: Message) -> bool:
        return message["status"] in ("ok", "error")
