"""Hands a protocol's events to the connection, as many as fit into one turn of the loop.

Loop thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.messages import Event
from app.network.connection_state import ConnectionState
from app.network.loop import Callback, Loop
from app.protocols.base import FromClient

TURN_SECONDS = 0.002
"""Time for one connection's events in one turn of the loop; the rest waits for the next turn. A
single read can hold thousands of small messages, and each may take a millisecond: a request for the
page's figures, or a rejected message with its line on stdout."""


class EventPump:
    """Schedules `run`, the connection's callback, which calls `drain`."""

    def __init__(self, loop: Loop, run: Callback) -> None:
        self._loop = loop
        self._run = run
        self._draining = False
        self._scheduled = False

    def schedule(self) -> None:
        """Run at the end of this turn, unless it runs already or is about to."""
        if not self._draining and not self._scheduled:
            self._scheduled = True
            self._loop.defer(self._run)

    def drain(self, state: ConnectionState, deliver: Callable[[Event | FromClient], None]) -> bool:
        """Deliver events while `state` takes them, until there are none or the turn is over; return
        whether there may be more. Raises what the protocol and `deliver` raise."""
        self._scheduled = False
        self._draining = True
        until = time.monotonic() + TURN_SECONDS
        try:
            while state.takes_events():
                # Read again each time: the handler of an event may have switched the protocol.
                event = state.protocol.next_event()
                if event is None:
                    return False
                deliver(event)
                if time.monotonic() >= until:
                    break
            return True
        finally:
            self._draining = False
