"""Keeps what the selector watches in step with a connection's state. Loop thread only."""

from __future__ import annotations

from app.network.connection_state import ConnectionState
from app.network.loop import WRITE, Loop, Ready


class Interest:
    """Watches the transport of `state` for what the state wants, and calls `ready`."""

    def __init__(self, loop: Loop, state: ConnectionState, ready: Ready) -> None:
        self._loop = loop
        self._state = state
        self._ready = ready
        self._reading = True
        self._look_scheduled = False

    def update(self) -> bool:
        """Watch for what is wanted now; return whether reading begins again after a break."""
        state, transport = self._state, self._state.transport
        reading = state.wants_read()
        begins, self._reading = reading and not self._reading, reading
        mask = WRITE if state.wants_write() else 0
        if reading or (transport.handshaking and not state.closed):
            mask |= transport.read_when
        self._loop.watch(transport, mask, self._ready)
        if reading and transport.pending and not self._look_scheduled:
            # The selector does not see bytes that are decrypted already.
            self._look_scheduled = True
            self._loop.defer(self._look)
        return begins

    def _look(self) -> None:
        self._look_scheduled = False
        self._ready(self._state.transport.read_when)
