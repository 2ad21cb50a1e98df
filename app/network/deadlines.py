"""How long a connection's peer may keep us waiting, and for what.

A connection says what it is waiting for (`Awaited`) and when something moved; `Deadline` says when
the peer's time is up. One timer a connection, and it does not move with every byte: when it is due
it looks again. Loop thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from app.network.loop import Loop, Timer

LINGER_SECONDS = 2.0
"""How long is read and dropped after the last reply."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a header once it is due (and a handshake before it), for the next bytes of a
    body, between two messages of a kept connection, and for a reply's next bytes to leave."""

    header: float = 10.0
    body: float = 30.0
    idle: float = 120.0
    write: float = 30.0

    @property
    def shortest(self) -> float:
        return min(self.header, self.body, self.idle, self.write)


class Awaited(Enum):
    """What a connection waits for."""

    NOTHING = auto()
    """It is we who are late: no deadline runs."""
    HANDSHAKE = auto()
    HEADER = auto()
    BODY = auto()
    NEXT = auto()
    """The next message of a kept connection."""
    TAKING = auto()
    """The peer is to take what was sent."""
    END = auto()
    """Everything is said; the peer's end of the stream is still to come."""


class Deadline:
    """One connection's clock. `awaited` is asked what is being waited for; `expired` is called when
    that took too long."""

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
        self._heard_at = self._sent_at = self._said_all_at = time.monotonic()
        self._timer: Timer | None = None
        self._stopped = False
        self._arm()

    def heard(self) -> None:
        """The peer's time begins anew: it sent something, or we turned back to it."""
        self._heard_at = time.monotonic()

    def sent(self) -> None:
        """The peer took something, or got the first of what it is to take."""
        self._sent_at = time.monotonic()

    def said_all(self) -> None:
        """From now on only the peer's end is waited for."""
        self._said_all_at = time.monotonic()
        # The deadline in force may be a long one: this one is nearer.
        if self._timer is not None:
            self._timer.cancel()
            self._arm()

    def stop(self) -> None:
        """Nothing is waited for any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self, awaited: Awaited) -> float | None:
        if awaited is Awaited.END:
            return self._said_all_at + LINGER_SECONDS
        if awaited is Awaited.TAKING:
            return self._sent_at + self._timeouts.write
        if awaited is Awaited.BODY:
            return self._heard_at + self._timeouts.body
        if awaited in (Awaited.HANDSHAKE, Awaited.HEADER):
            return self._heard_at + self._timeouts.header
        if awaited is Awaited.NEXT:
            return max(self._heard_at, self._sent_at) + self._timeouts.idle
        return None

    def _arm(self) -> None:
        # Never further off than the shortest deadline, which may come into force meanwhile.
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
