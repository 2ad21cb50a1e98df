"""A live request in the worker, and its mail: the audio as it arrives, and the client's events.

A live job is a stream, which has no body, or a command whose body is heard while it arrives
(docs/live.md). Frozen; from the loop to the worker, in the order of the client's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.live import LiveEvent
from app.messages import SAMPLE_BYTES, RawFormat, Request


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A request with raw samples, to be heard from now on. A stream's request has `live` options,
    a command's has none, and its `Job` follows with the same number. `client` and `connection` are
    those of a `Job`."""

    number: int
    connection: int
    request: Request
    client: str = ""

    @property
    def raw(self) -> RawFormat:
        assert self.request.raw is not None, "live audio is raw samples"
        return self.request.raw

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return SAMPLE_BYTES[self.raw.encoding] * self.raw.channels


@dataclass(frozen=True, slots=True)
class Audio:
    """The next bytes of a live job's audio."""

    number: int
    data: bytes = field(repr=False)
    at: float
    """`time.monotonic()` when they arrived."""


@dataclass(frozen=True, slots=True)
class Control:
    """An event of a stream's client."""

    number: int
    event: LiveEvent
    at: float
    """`time.monotonic()` when it arrived."""


@dataclass(frozen=True, slots=True)
class AudioEnd:
    """A stream's audio is over. With `truncated` the node ends it, and the outcome says so."""

    number: int
    at: float
    """`time.monotonic()` when it was known."""
    truncated: bool = False


LiveMail = Audio | Control | AudioEnd
