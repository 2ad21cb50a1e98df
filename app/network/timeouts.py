"""Timeouts of a connection: which one runs, and when it expires.

A connection says what it waits for (`Awaited`) and when bytes moved; its `Deadline` reports when
the client was too slow. There is one timer per connection, which is not moved with every byte:
when it fires, it computes the deadline again. Loop thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from app.network.loop import Loop, Timer

LINGER_SECONDS = 2.0
"""Time for discarding input after the last reply."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts in seconds: for a header (and the handshake before it), for the next bytes of a
    body, between two messages of a keep-alive connection, for the next audio of a session, and for
    the client to read the next bytes of a reply."""

    header: float = 10.0
    body: float = 30.0
    idle: float = 120.0
    session: float = 600.0
    write: float = 30.0

    @property
    def shortest(self) -> float:
        return min(self.header, self.body, self.idle, self.session, self.write)


class Awaited(Enum):
    """The client's next step, which the connection waits for."""

    NOTHING = auto()
    """It is the node's turn: no timeout runs."""
    HANDSHAKE = auto()
    HEADER = auto()
    BODY = auto()
    AUDIO = auto()
    """The next audio of a session after an upgrade."""
    NEXT = auto()
    """The next message of a kept connection."""
    TAKING = auto()
    """The client has to take the output."""
    END = auto()
    """Everything was sent; the client has to end its stream."""


class Deadline:
    """One connection's timer. `awaited` returns what is waited for; `expired` is called if that
    takes too long."""

    def __init__(
        self,
        loop: Loop,
        timeouts: Timeouts,
        awaited: Callable[[], Awaited],
        expired: Callable[[Awaited], None],
    ) -> None:
        self._loop = loop
        self._timeouts = timeouts
        self._awaited = awaited
        self._expired = expired
        self._input_at = self._output_at = self._lingering_since = time.monotonic()
        self._timer: Timer | None = None
        self._stopped = False
        self._arm()

    def restart_input(self) -> None:
        """Restart the timeouts of input: the client sent something, or the node reads again."""
        self._input_at = time.monotonic()

    def restart_output(self) -> None:
        """Restart the write timeout: the client took something, or there is something to take."""
        self._output_at = time.monotonic()

    def start_lingering(self) -> None:
        """Wait only for the client's end from now on."""
        self._lingering_since = time.monotonic()
        # The timer may be set for a later deadline than this one.
        if self._timer is not None:
            self._timer.cancel()
            self._arm()

    def stop(self) -> None:
        """Stop for good."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self, awaited: Awaited) -> float | None:
        if awaited is Awaited.END:
            return self._lingering_since + LINGER_SECONDS
        if awaited is Awaited.TAKING:
            return self._output_at + self._timeouts.write
        if awaited is Awaited.BODY:
            return self._input_at + self._timeouts.body
        if awaited is Awaited.AUDIO:
            return self._input_at + self._timeouts.session
        if awaited in (Awaited.HANDSHAKE, Awaited.HEADER):
            return self._input_at + self._timeouts.header
        if awaited is Awaited.NEXT:
            return max(self._input_at, self._output_at) + self._timeouts.idle
        return None

    def _arm(self) -> None:
        # Never later than the shortest timeout, which may begin to apply meanwhile.
        soon = time.monotonic() + self._timeouts.shortest
        due = self._due(self._awaited())
        self._timer = self._loop.call_at(soon if due is None else min(due, soon), self._look)

    def _look(self) -> None:
        self._timer = None
        awaited = self._awaited()
        due = self._due(awaited)
        if due is not None and due <= time.monotonic():
            self._expired(awaited)
        if not self._stopped:
            self._arm()
