"""One peer: its transport, its protocol, and the state of the two.

A `Connection` reads while it may, gives its protocol's events to its owner (the server), and sends
replies in the order of the requests, whatever order they become ready in. It never decides what is
admitted; it only stops reading while the owner has not decided, or has asked for a pause. What is
due to the peer lies in its `Outbox`, how long the peer may take in its `Deadline`, and whether
bytes are encrypted is its transport's secret. Loop thread only.

How it ends: after the last reply the sending side is shut, then what still comes in is read and
dropped for a moment, because closing a socket with unread input makes the kernel send a reset that
can destroy the reply on its way. `Connection` marks itself closed; it is buried at the end of the
turn, never in the middle of a callback.
"""

from __future__ import annotations

import time
from typing import Protocol as Interface

import structlog

from app.messages import TIMEOUT, Begin, Event, Failure, Reply, Send
from app.network.deadlines import Awaited, Deadline, Timeouts
from app.network.loop import WRITE, Loop
from app.network.outbox import Outbox, Slot
from app.network.ports import Peer
from app.network.transport import Transport
from app.protocols.base import ProtocolError

BODY_BYTES = 262_144
"""Read in one turn of a body: one busy sender does not hold up the others. With 64 KiB a body of
100 MB took 0.46 s over loopback, with 256 KiB 0.2 s, with 1 MiB no less."""

HEADER_BYTES = 16_384
"""Read in one turn outside of a body. What stands behind a header is held until its body has a
place, so this is what a waiting connection costs; a header seldom has a tenth of it."""

TURN_SECONDS = 0.002
"""For one peer's messages in one turn of the loop; what else it has sent waits for the next. Small
messages come by the thousand in what is read at one time, and each may take a millisecond: a page's
request for figures, a message that is refused with a line on stdout."""

LINGER_BYTES = 1_048_576
"""How much is read and dropped after the last reply."""

_log = structlog.get_logger("connection")


class Owner(Interface):
    """What a connection tells the server."""

    def on_event(self, connection: Connection, event: Event) -> None:
        """An event of the protocol. After a `Begin` no further one comes until `decide`."""

    def on_lost(self, connection: Connection, error: ProtocolError) -> None:
        """The peer's bytes can be followed no further; the owner tells it why."""

    def on_end(self, connection: Connection, reset: bool) -> None:
        """The peer sends no more; `reset` if it also takes nothing more."""

    def on_closed(self, connection: Connection) -> None:
        """The connection is over and its socket closed. Said once, of every connection."""


class Connection:
    """One peer. `number` never comes twice. Takes over `transport`."""

    def __init__(
        self,
        number: int,
        transport: Transport,
        peer: Peer,
        loop: Loop,
        owner: Owner,
        timeouts: Timeouts,
    ) -> None:
        self.number = number
        self.peer = peer
        self.protocol = peer.port.new_protocol()
        self.closed = False
        self._buried = False
        self._transport = transport
        self._loop = loop
        self._owner = owner
        self._outbox = Outbox()
        self._deciding = False
        """The owner has a `Begin` and has not decided."""
        self._paused = False
        self._pumping = False
        self._pump_is_due = False
        self._has_more = False
        """The protocol was not asked to the end: nothing further is read before."""
        self._look_is_due = False
        self._was_reading = True
        self._heard_end = False
        self._last = False
        """No further message is taken; ends once the slots are answered and all is sent."""
        self._lingering = False
        self._dropped_bytes = 0
        self._messages = 0
        self._deadline = Deadline(loop, timeouts, self._awaited, self._time_out)
        self._update()

    # What the owner calls.

    def decide(self, accept: bool) -> None:
        """The answer to the last `Begin`; what comes behind it follows by itself."""
        self._deciding = False
        self._deadline.heard()
        if accept:
            self._say(self.protocol.accept())
        else:
            self.protocol.reject()
        self._pump_soon()

    def pause(self) -> None:
        """Read nothing and give no events until `resume`; the peer's deadlines rest."""
        self._paused = True
        self._update()

    def resume(self) -> None:
        """Go on after `pause`."""
        if self._paused:
            self._paused = False
            self._pump_soon()

    def expect(self, request_id: str | None, silent: bool) -> Slot:
        """Keep a place for a request's replies, behind those before it."""
        return self._outbox.expect(request_id, silent)

    def answer(self, slot: Slot, reply: Reply, final: bool) -> None:
        """Send `reply` when its turn has come; `final` closes the slot."""
        if not self.closed:
            data = b"" if slot.silent else self.protocol.encode(slot.request_id, reply)
            self._put(slot, data, final)

    def finish(self) -> None:
        """Take no further message; end after the replies that are due."""
        self._last = True
        self._update()

    def abandon(self) -> None:
        """Close now and not at the end of a turn: there are no more turns."""
        self.closed = self._buried = True
        self._close_later()

    @property
    def idle(self) -> bool:
        """True if nothing was begun and nothing is due."""
        begun = self._has_more or not self.protocol.idle
        return not begun and not self._outbox.owing and not self._outbox.unsent

    def wants_read(self) -> bool:
        """1. Not after the peer's end. 2. After the last message only to hear that end, and not
        for ever. 3. Not while a body waits for a place, the owner is behind, or the protocol has
        all that it can hold or something to say. 4. Not while the peer does not take what we sent,
        or too much is due to it."""
        if self.closed or self._heard_end:
            return False
        if self._last:
            return self._dropped_bytes <= LINGER_BYTES
        if self._deciding or self._paused or self._has_more or self.protocol.full:
            return False
        return not self._outbox.crowded

    def wants_write(self) -> bool:
        """Only for what could not be sent at once."""
        return not self.closed and self._outbox.unsent

    # What the loop calls.

    def _ready(self, mask: int) -> None:
        transport = self._transport
        try:
            if transport.handshaking:
                if not self._shake_hands():
                    return
                # The last of the handshake may have brought more than the handshake.
                mask = transport.read_when | WRITE
            if mask & WRITE and self.wants_write():
                self._send()
            if mask & transport.read_when and self.wants_read():
                self._receive()
        except Exception:
            # A bug: end this connection, or the socket would be ready for it again and again.
            self.closed = True
            raise
        finally:
            self._update()

    def _shake_hands(self) -> bool:
        try:
            done = self._transport.handshake()
        except OSError as error:
            _log.debug("no handshake", peer=self.peer.name, error=str(error))
            self._outbox.discard_output()
            self._last = True
            return False
        if done:
            self._deadline.heard()
        return done

    def _receive(self) -> None:
        in_body = self.protocol.reading_body
        try:
            data = self._transport.receive(BODY_BYTES if in_body or self._last else HEADER_BYTES)
        except OSError:
            self._hear_end(reset=True)
            return
        if data is None:
            return
        if not data:
            self._hear_end(reset=False)
            return
        if self._last:
            self._dropped_bytes += len(data)
            self.closed = self._lingering and self._dropped_bytes > LINGER_BYTES
            return
        # A header's deadline runs from its first byte: one byte a second does not extend it.
        if self.protocol.idle or in_body:
            self._deadline.heard()
        self.protocol.feed(data)
        self._pump()

    def _pump_soon(self) -> None:
        """Ask for events at the end of this turn, unless somebody is asking already."""
        if not self._pumping and not self._pump_is_due:
            self._pump_is_due = True
            self._loop.defer(self._pump)

    @property
    def _goes_on(self) -> bool:
        """Whether the owner is to have further events."""
        if self.closed or self._last or self._deciding or self._paused:
            return False
        # Answers can be a hundred times as long as their questions, of which there may be many.
        return not self._outbox.crowded

    def _pump(self) -> None:
        """Give the owner what events there are, as far as a turn goes."""
        self._pump_is_due = False
        self._pumping = self._has_more = True
        until = time.monotonic() + TURN_SECONDS
        try:
            while self._goes_on:
                event = self.protocol.next_event()
                if event is None:
                    self._has_more = False
                    break
                self._messages += 1
                if isinstance(event, Send):
                    self._tell(event)
                else:
                    self._deciding = isinstance(event, Begin)
                    self._owner.on_event(self, event)
                if time.monotonic() >= until:
                    break
        except ProtocolError as error:
            self._lose(error)
        except Exception:
            self.closed = True
            raise
        finally:
            self._pumping = False
            self._update()

    def _tell(self, event: Send) -> None:
        # Not in a slot, which would lie behind that of the message it stands in: a peer with a
        # question for every piece of its audio would fill them all, and the audio could not end.
        self._say(event.data)
        if not event.keep_alive:
            self.finish()

    def _say(self, data: bytes) -> None:
        if self._outbox.say(data):
            self._deadline.sent()
        self._send()

    def _put(self, slot: Slot, data: bytes, final: bool) -> None:
        if self._outbox.put(slot, data, final):
            # The peer's time to take it runs from here, not from the last time it took something.
            self._deadline.sent()
        self._send()
        self._update()
        if final:
            # A protocol with one message at a time goes on to the next.
            self._pump_soon()

    def _hear_end(self, reset: bool) -> None:
        self._heard_end = True
        if self._lingering:
            self.closed = True
            return
        self._owner.on_end(self, reset)
        self._last = True
        self.closed = self.closed or reset

    def _send(self) -> None:
        if self.closed or self._transport.handshaking:
            return
        try:
            if self._outbox.send(self._transport):
                self._deadline.sent()
        except OSError as error:
            waits = not self.protocol.end_means_gone
            if isinstance(error, BrokenPipeError) and waits and not self._heard_end:
                # Not ECONNRESET: the peer's end came first and lies unread behind its last bytes;
                # our own reply to its closed socket provoked the reset. Read on.
                self._outbox.discard_output()
            else:
                self._break_off()

    def _break_off(self) -> None:
        """The peer takes nothing more."""
        # Closed first: what the owner still has to say must not be tried on this socket.
        self.closed = True
        # After the peer's end this is its socket closed: the work goes on, see on_end.
        if not self._heard_end:
            self._owner.on_end(self, reset=True)

    def _lose(self, error: ProtocolError) -> None:
        self._last = True
        self._owner.on_lost(self, error)
        self.protocol.abandon()

    def _update(self) -> None:
        """After anything happened: end if it is time, and compute interest anew."""
        if not (self.closed or self._outbox.owing or self._outbox.unsent) and self._last:
            self._linger()
        if self._buried:
            return
        if self._has_more and self._goes_on:
            self._pump_soon()
        reading, writing = self.wants_read(), self.wants_write()
        if reading and not self._was_reading:
            # The peer's time did not run while it was we who did not read.
            self._deadline.heard()
        self._was_reading = reading
        transport = self._transport
        interest = WRITE if writing else 0
        if reading or (transport.handshaking and not self.closed):
            interest |= transport.read_when
        self._loop.watch(transport, interest, self._ready)
        if self.closed:
            self._buried = True
            self._loop.defer(self._close_later)
        elif reading and transport.pending and not self._look_is_due:
            # No selector sees what is decrypted already.
            self._look_is_due = True
            self._loop.defer(self._look)

    def _look(self) -> None:
        self._look_is_due = False
        self._ready(self._transport.read_when)

    def _linger(self) -> None:
        if self._heard_end:
            self.closed = True
        elif not self._lingering:
            self._lingering = True
            self._transport.shutdown_sending()
            self._deadline.said_all()

    def _close_later(self) -> None:
        self._deadline.stop()
        self._transport.close()
        self._owner.on_closed(self)

    def _awaited(self) -> Awaited:
        if self.closed:
            return Awaited.NOTHING
        if self._lingering:
            return Awaited.END
        if self._transport.handshaking:
            return Awaited.HANDSHAKE
        if self._outbox.unsent:
            return Awaited.TAKING
        if self._last or not self.wants_read():
            return Awaited.NOTHING
        if self.protocol.reading_body:
            return Awaited.BODY
        if not self.protocol.idle or not self._messages:
            return Awaited.HEADER
        return Awaited.NOTHING if self._outbox.owing else Awaited.NEXT

    def _time_out(self, awaited: Awaited) -> None:
        if awaited in (Awaited.END, Awaited.HANDSHAKE):
            self.closed = True
        elif awaited is Awaited.TAKING:
            self._break_off()
        elif awaited is Awaited.NEXT:
            self._last = True
        else:
            what = "body" if awaited is Awaited.BODY else "header"
            self._lose(ProtocolError(Failure(TIMEOUT, f"the {what} did not arrive in time")))
        self._update()
