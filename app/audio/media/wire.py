"""The messages from the child process to the node, through a pipe.

Each message is one byte for its kind, the length of its payload, and the payload. The node treats
the child as compromised: every length has a limit and every value is checked. Pure; used by both
processes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

HEAD = struct.Struct("<cI")
"""Kind and bytes of payload."""

MAX_PAYLOAD = 32 << 20
"""Bytes of the longest frame accepted: 65,535 samples of 64 channels of 64 bits."""

MAX_RATE = 1 << 22
MAX_SAMPLES = 1 << 48
"""Bounds within which the node's arithmetic is safe; its own limits are narrower."""

OPENED, SAMPLES, SILENCE, ENDED, FAILED = b"O", b"S", b"G", b"E", b"F"

_FRAME = struct.Struct("<qqIIH8s")
_GAP = struct.Struct("<q")

NO_TIME = -(1 << 63)
"""The timestamp of a frame that has none."""

SAMPLE_TYPES = {
    "u8": "<u1",
    "s16": "<i2",
    "s32": "<i4",
    "s64": "<i8",
    "flt": "<f4",
    "dbl": "<f8",
}
"""numpy's type for each of FFmpeg's packed sample formats; a planar format has "p" at the end."""

_LONGEST_TEXT = 80


class WireError(Exception):
    """A message that the child's program cannot have sent."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The chosen track: rate in Hz, number of channels, length in seconds if the file states it."""

    rate: int
    channels: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Frame:
    """Decoded samples: `count` for each of `channels` at `rate` Hz, in `kind`, one of FFmpeg's
    sample formats. `time` is the frame's timestamp in the track's units, or `NO_TIME`; `done` are
    the samples up to its end at the rate of `Opened`."""

    time: int
    done: int
    count: int
    rate: int
    channels: int
    kind: str
    data: memoryview


@dataclass(frozen=True, slots=True)
class Resume:
    """The place from which another child continues: behind the frame with timestamp `time`, the
    number `frames` of the file counted from 1, which ends at sample `done` at `rate` Hz, and behind
    `gap` samples of silence that followed it."""

    time: int
    frames: int
    done: int
    gap: int
    rate: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The reason why the child gives up: `codec` for an unsupported codec, which `detail` names,
    `track` without a track of sound, else `damaged`."""

    reason: str
    detail: str


def opened(rate: int, channels: int, seconds: float | None) -> bytes:
    payload = json.dumps([rate, channels, seconds]).encode()
    return HEAD.pack(OPENED, len(payload)) + payload


def frame_head(
    time: int, done: int, count: int, rate: int, channels: int, kind: str, size: int
) -> bytes:
    """Return the beginning of a frame's message; `size` bytes of samples follow it."""
    head = _FRAME.pack(time, done, count, rate, channels, kind.encode())
    return HEAD.pack(SAMPLES, len(head) + size) + head


def silence(count: int) -> bytes:
    return HEAD.pack(SILENCE, _GAP.size) + _GAP.pack(count)


def ended() -> bytes:
    return HEAD.pack(ENDED, 0)


def failed(reason: str, detail: str) -> bytes:
    payload = json.dumps([reason, detail]).encode()
    return HEAD.pack(FAILED, len(payload)) + payload


def read_opened(payload: bytes | bytearray) -> Opened:
    """Return the track. Raises `WireError`."""
    rate, channels, seconds = _values(payload, 3)
    if type(rate) is not int or type(channels) is not int:
        raise WireError("rate or channels")
    if not 0 < rate <= MAX_RATE or not 0 < channels < 1 << 16:
        raise WireError("rate or channels")
    if not isinstance(seconds, float) or not 0 < seconds < MAX_SAMPLES / MAX_RATE:
        return Opened(rate, channels, None)
    return Opened(rate, channels, seconds)


def read_frame(payload: bytes | bytearray) -> Frame:
    """Return the frame. Raises `WireError`."""
    if len(payload) < _FRAME.size:
        raise WireError("frame")
    time, done, count, rate, channels, name = _FRAME.unpack_from(payload)
    kind = name.rstrip(b"\0").decode("latin-1")
    sample_type = SAMPLE_TYPES.get(kind.removesuffix("p"))
    data = memoryview(payload)[_FRAME.size :]
    if sample_type is None or len(data) != count * channels * int(sample_type[2]):
        raise WireError("samples")
    if not 0 < rate <= MAX_RATE or not channels or not count or not 0 <= done < MAX_SAMPLES:
        raise WireError("rate, channels, count or position")
    return Frame(time, done, count, rate, channels, kind, data)


def read_silence(payload: bytes | bytearray) -> int:
    """Return the samples of a gap. Raises `WireError`."""
    if len(payload) != _GAP.size:
        raise WireError("gap")
    (count,) = _GAP.unpack(payload)
    if not 0 < count < MAX_SAMPLES:
        raise WireError("gap")
    return int(count)


def read_failed(payload: bytes | bytearray) -> Failed:
    """Return the failure, its detail without anything that is not plain text. Raises
    `WireError`."""
    reason, detail = _values(payload, 2)
    plain = "".join(mark for mark in str(detail)[:_LONGEST_TEXT] if " " <= mark <= "~")
    return Failed(str(reason), plain)


def _values(payload: bytes | bytearray, count: int) -> list[object]:
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError):
        raise WireError("not JSON") from None
    if not isinstance(values, list) or len(values) != count:
        raise WireError("values")
    return values
