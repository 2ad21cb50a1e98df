"""One socket: its buffers, its deadlines, its protocol, the order of its replies, its end.

A `Connection` reads while it may, gives its protocol's events to its owner (the server), and sends
replies in the order of the requests, whatever order they become ready in. It never decides what is
admitted; it only stops reading while the owner has not decided. Loop thread only.

How it ends: after the last reply the sending side is shut, then what still comes in is read and
dropped for a moment, because closing a socket with unread input makes the kernel send a reset that
can destroy the reply on its way. `Connection` marks itself closed; the owner's reaper closes the
socket at the end of the turn, never in the middle of a callback.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol as Interface

from app.loop import READ, WRITE, Loop, Timer
from app.messages import TIMEOUT, Event, Failure, Reply
from app.protocols.base import Protocol, ProtocolError

RECEIVE_BYTES = 262_144
"""Read in one turn: one busy sender does not hold up the others. With 64 KiB a body of 100 MB took
0.46 s over loopback, with 256 KiB 0.2 s, with 1 MiB no less."""

MAX_UNSENT_BYTES = 1_048_576
"""A peer that does not read its replies is not read from beyond this."""

MAX_SLOTS = 1_024
"""Nor while this many of its requests wait for their replies: refused ones cost it nothing."""

LINGER_SECONDS, LINGER_BYTES = 2.0, 1_048_576
"""How long, and how much, is read and dropped after the last reply."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds: for a header once it is due, for the next bytes of a body, between two messages of
    a kept connection, and for a reply's next bytes to leave."""

    header: float = 10.0
    body: float = 30.0
    idle: float = 120.0
    write: float = 30.0


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one request's reply in the connection's order."""

    request_id: str | None
    silent: bool
    """True for `reply: none`: the place is kept, but nothing is ever sent."""
    ready: list[bytes] = field(default_factory=list)
    done: bool = False


class Owner(Interface):
    """What a connection tells the server."""

    def on_event(self, connection: Connection, event: Event) -> None:
        """An event of the protocol. Until a `Begin` is decided, no further one comes."""

    def on_lost(self, connection: Connection, error: ProtocolError) -> None:
        """The peer's bytes can be followed no further; the owner tells it why."""

    def on_end(self, connection: Connection, reset: bool) -> None:
        """The peer sends no more; `reset` if it also takes nothing more."""

    def on_closed(self, connection: Connection) -> None:
        """The connection is over and its socket closed. Said once, of every connection."""


class Connection:
    """One peer. `number` never comes twice."""

    def __init__(
        self,
        number: int,
        sock: socket.socket,
        peer: str,
        protocol: Protocol,
        loop: Loop,
        owner: Owner,
        deadlines: Deadlines,
    ) -> None:
        self.number = number
        self.peer = peer
        self.protocol = protocol
        self.closed = False
        self._buried = False
        self.deciding = False
        """The owner has a `Begin` and has not decided; nothing is read meanwhile."""
        self._socket = sock
        self._loop = loop
        self._owner = owner
        self._deadlines = deadlines
        self._slots: deque[Slot] = deque()
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._was_reading = True
        self._heard_end = False
        self._unheard = False
        """The peer takes no more replies; what it sent before is still to be read."""
        self._last = False
        """No further message is taken; ends once the slots are answered and all is sent."""
        self._lingering_until: float | None = None
        self._dropped_bytes = 0
        self._heard_at = time.monotonic()
        self._sent_at = self._heard_at
        self._messages = 0
        self._timer: Timer | None = None
        self._update()

    # What the owner calls.

    def decide(self, accept: bool) -> None:
        """The answer to the last `Begin`."""
        self.deciding = False
        self._heard_at = time.monotonic()
        if accept:
            self.protocol.accept()
        else:
            self.protocol.reject()

    def pump(self) -> None:
        """Give the owner what events there are; after `decide`, outside of `on_event`."""
        try:
            while not self.closed and not self.deciding:
                event = self.protocol.next_event()
                if event is None:
                    break
                self._messages += 1
                self._owner.on_event(self, event)
        except ProtocolError as error:
            self._lose(error)
        self._update()

    def expect(self, request_id: str | None, silent: bool) -> Slot:
        """Keep a place for a request's replies, behind those before it."""
        slot = Slot(request_id, silent)
        self._slots.append(slot)
        return slot

    def answer(self, slot: Slot, reply: Reply, final: bool) -> None:
        """Send `reply` when its turn has come; `final` closes the slot."""
        if self.closed:
            return
        if not slot.silent and not self._unheard:
            data = self.protocol.encode(slot.request_id, reply)
            slot.ready.append(data)
            self._unsent_bytes += len(data)
        slot.done = slot.done or final
        while self._slots:
            head = self._slots[0]
            if head.ready and not self._unsent:
                # The write deadline runs from here, not from the last time something was sent.
                self._sent_at = time.monotonic()
            self._unsent.extend(memoryview(data) for data in head.ready)
            head.ready.clear()
            if not head.done:
                break
            self._slots.popleft()
        self._send()
        self._update()

    def finish(self) -> None:
        """Take no further message; end after the replies that are due."""
        self._last = True
        self._update()

    def abandon(self) -> None:
        """Close now and not at the end of a turn: there are no more turns."""
        self.closed = self._buried = True
        self._bury()

    @property
    def idle(self) -> bool:
        """True if nothing was begun and nothing is due."""
        return self.protocol.idle and not self._slots and not self._unsent

    def wants_read(self) -> bool:
        """1. Not after the peer's end. 2. After the last message only to hear that end, and not
        for ever. 3. Not while a body waits for a place. 4. Not while the peer does not take what
        we sent, or too much is due to it."""
        if self.closed or self._heard_end:
            return False
        if self._last:
            return self._dropped_bytes <= LINGER_BYTES
        if self.deciding:
            return False
        return self._unsent_bytes < MAX_UNSENT_BYTES and len(self._slots) < MAX_SLOTS

    def wants_write(self) -> bool:
        """Only for what could not be sent at once."""
        return not self.closed and bool(self._unsent)

    # What the loop calls.

    def _ready(self, mask: int) -> None:
        try:
            if mask & WRITE and not self.closed:
                self._send()
            if mask & READ and self.wants_read():
                self._receive()
        except Exception:
            # A bug: end this connection, or the socket would be ready for it again and again.
            self.closed = True
            raise
        finally:
            self._update()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._hear_end(reset=True)
            return
        if not data:
            self._hear_end(reset=False)
            return
        if self._last:
            self._dropped_bytes += len(data)
            lingering = self._lingering_until is not None
            self.closed = lingering and self._dropped_bytes > LINGER_BYTES
            return
        starts_header = self.protocol.idle
        # A header's deadline runs from its first byte: one byte a second does not extend it.
        if starts_header or self.protocol.reading_body:
            self._heard_at = time.monotonic()
        self.protocol.feed(data)
        self.pump()

    def _hear_end(self, reset: bool) -> None:
        self._heard_end = True
        if self._lingering_until is not None:
            self.closed = True
            return
        self._owner.on_end(self, reset)
        self._last = True
        self.closed = self.closed or reset

    def _send(self) -> None:
        # Several small replies go in one call; a large one goes as far as the kernel takes it.
        while self._unsent and not self.closed:
            try:
                sent = self._socket.send(self._unsent[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if isinstance(error, BrokenPipeError) and not self._heard_end:
                    # Not ECONNRESET: the peer's end came first and lies unread behind its last
                    # bytes; our own reply to its closed socket provoked the reset. Read on.
                    self._unheard = True
                    self._unsent.clear()
                    for slot in self._slots:
                        slot.ready.clear()
                    self._unsent_bytes = 0
                    return
                # Closed first: what the owner still has to say must not be tried on this socket.
                self.closed = True
                # After the peer's end this is its socket closed: the work goes on, see on_end.
                if not self._heard_end:
                    self._owner.on_end(self, reset=True)
                return
            self._sent_at = time.monotonic()
            self._unsent_bytes -= sent
            if sent == len(self._unsent[0]):
                self._unsent.popleft()
            else:
                self._unsent[0] = self._unsent[0][sent:]

    def _lose(self, error: ProtocolError) -> None:
        self._last = True
        self._owner.on_lost(self, error)
        self.protocol.abandon()

    def _update(self) -> None:
        """After anything happened: end if it is time, and compute interest and deadline anew."""
        if not self.closed and self._last and not self._slots and not self._unsent:
            self._linger()
        reading = self.wants_read()
        if reading and not self._was_reading:
            # The peer's time did not run while it was we who did not read.
            self._heard_at = time.monotonic()
        self._was_reading = reading
        interest = (READ if reading else 0) | (WRITE if self.wants_write() else 0)
        if not self._buried:
            self._loop.watch(self._socket, interest, self._ready)
        if self.closed:
            if not self._buried:
                self._buried = True
                self._loop.defer(self._bury)
        elif self._timer is None:
            self._arm()

    def _bury(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()
        self._owner.on_closed(self)

    def _linger(self) -> None:
        if self._heard_end:
            self.closed = True
        elif self._lingering_until is None:
            self._lingering_until = time.monotonic() + LINGER_SECONDS
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            # The deadline in force may be a long one: this one is nearer.
            if self._timer is not None:
                self._timer.cancel()
            self._arm()

    def _deadline(self) -> float | None:
        """When the peer's time is up, by `time.monotonic()`; None while it is we who are slow."""
        if self._lingering_until is not None:
            return self._lingering_until
        if self._unsent:
            return self._sent_at + self._deadlines.write
        if self.deciding or self._last or self._heard_end:
            return None
        if self.protocol.reading_body:
            return self._heard_at + self._deadlines.body
        if not self.protocol.idle or not self._messages:
            return self._heard_at + self._deadlines.header
        if self._slots:
            return None
        return max(self._heard_at, self._sent_at) + self._deadlines.idle

    def _arm(self) -> None:
        # Deadlines move with every byte, the timer does not: when it is due it looks again. It is
        # never set further off than the shortest of them, which may come into force meanwhile.
        shortest = min(self._deadlines.header, self._deadlines.body, self._deadlines.write)
        soon = time.monotonic() + shortest
        deadline = self._deadline()
        self._timer = self._loop.call_at(
            soon if deadline is None else min(deadline, soon), self._check
        )

    def _check(self) -> None:
        self._timer = None
        deadline = self._deadline()
        if deadline is not None and deadline <= time.monotonic():
            self._time_out()
        self._update()

    def _time_out(self) -> None:
        if self._lingering_until is not None or self._unsent:
            self.closed = True
            if self._lingering_until is None:
                self._owner.on_end(self, reset=True)
        elif self.protocol.idle and self._messages:
            self.finish()
        else:
            what = "body" if self.protocol.reading_body else "header"
            failure = Failure(TIMEOUT, f"the {what} did not arrive in time")
            self._lose(ProtocolError(failure))
