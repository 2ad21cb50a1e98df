"""Passes a command's audio to the worker while it arrives, if it arrives at the pace of speech.

The worker can then have decoded the command before its last byte. Its body is received as any
other, and without early audio its job takes the usual path. A file sent at full speed is therefore
not passed on: it is complete before there is anything to gain. Loop thread only.
"""

from __future__ import annotations

import time

from app.messages import SAMPLE_BYTES, Request
from app.requests.dispatch import Dispatch
from app.requests.in_flight import InFlight
from app.requests.stream import bytes_per_second

_FIRST_SECONDS = 0.3
"""Audio is held for this long at first: most files are complete by then."""

_AHEAD_SECONDS, _PACE = 3.0, 1.25
"""Audio that has come faster than this is a file: a client may begin with some seconds that it has
recorded already, and its clock may be somewhat fast."""

_MOST_BYTES_PER_SECOND = 400_000
"""Two channels of 48 kHz floats. The worker may be busy for seconds, and all audio that comes
meanwhile is held twice."""


class EarlyAudio:
    """The audio of one command, whose body begins now."""

    def __init__(self, in_flight: InFlight, dispatch: Dispatch) -> None:
        raw = in_flight.request.raw
        assert raw is not None
        self._in_flight = in_flight
        self._dispatch = dispatch
        self._bytes_per_second = bytes_per_second(raw)
        self._began_at = time.monotonic()
        self._received = 0
        self._held: list[bytes] = []
        self._passing = False
        self._dropped = False

    def receive(self, data: bytes | memoryview) -> None:
        """The next bytes of the body."""
        if self._dropped:
            return
        elapsed = time.monotonic() - self._began_at
        self._received += len(data)
        if self._received / self._bytes_per_second > _AHEAD_SECONDS + _PACE * elapsed:
            self.drop()
        elif self._passing:
            self._dispatch.feed(self._in_flight.number, bytes(data))
        else:
            self._held.append(bytes(data))
            if elapsed >= _FIRST_SECONDS:
                self._passing = True
                self._dispatch.listen(self._in_flight)
                self._dispatch.feed(self._in_flight.number, b"".join(self._held))
                self._held.clear()

    def drop(self) -> None:
        """Pass nothing on, and let the worker forget what it has heard."""
        self._dropped = True
        self._held.clear()
        self._dispatch.stop_listening(self._in_flight.number)


def early_audio(in_flight: InFlight, dispatch: Dispatch) -> EarlyAudio | None:
    """Return the early audio of a request whose body begins; None if its worker cannot use it."""
    return EarlyAudio(in_flight, dispatch) if _is_command(in_flight.request) else None


def _is_command(request: Request) -> bool:
    raw = request.raw
    return (
        raw is not None
        and raw.encoding in SAMPLE_BYTES
        and request.live is None
        and request.channel_mode == "auto"
        and not request.word_timestamps
        and bytes_per_second(raw) <= _MOST_BYTES_PER_SECOND
    )
