"""One client connection: connects a transport to a protocol.

A `Connection` reads while its state allows it and delivers its protocol's events to its owner, the
server. It sends replies in the order of the requests, even if they become ready in another order.
It does not decide which requests are admitted; it only stops reading until the owner has decided or
calls `resume`. `app/network/connection_state.py` has a diagram of the states. Loop thread only.
"""

from __future__ import annotations

from typing import Protocol as Interface

from app.messages import TIMEOUT, Begin, BodyData, Event, Failure, Reply, Send
from app.network.connection_state import ConnectionState, Lifecycle
from app.network.event_pump import EventPump
from app.network.interest import Interest
from app.network.loop import WRITE, Loop
from app.network.outbox import Outbox, Slot
from app.network.ports import Peer
from app.network.timeouts import Awaited, Deadline, Timeouts
from app.network.tls import log_failed_handshake
from app.network.transport import Transport
from app.protocols.base import FromClient, Protocol, ProtocolError, Successor

BODY_BYTES = 262_144
"""Bytes of a body read in one turn of the loop, so that a fast sender does not delay others.
Measured in docs/lab-book.md, "Bytes read in one turn"."""

HEADER_BYTES = 16_384
"""Bytes read in one turn outside of a body: the most that follows a header whose request waits."""


class Owner(Interface):
    """Receives a connection's events: the server."""

    def on_event(self, connection: Connection, event: Event) -> None:
        """Handle an event of the protocol. After a `Begin` none follows until `decide`."""

    def on_protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        """Handle input that cannot be parsed any further; send the reason."""

    def on_end(self, connection: Connection, reset: bool) -> None:
        """Handle the end of the client's stream. After a reset the client receives no replies."""

    def on_closed(self, connection: Connection) -> None:
        """Handle the end of the connection, once; its socket is closed."""


class Connection:
    """One client's connection. `number` is unique; `peer` changes with the messages of a proxy.
    Takes over `transport`."""

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
        self._accepted = peer
        self._transport = transport
        self._loop = loop
        self._owner = owner
        self._outbox = Outbox()
        self.state = ConnectionState(peer.new_protocol(), transport, self._outbox)
        self._pump = EventPump(loop, self._deliver_events)
        self._interest = Interest(loop, self.state, self._ready)
        self._deadline = Deadline(loop, timeouts, self.state.awaited, self._time_out)
        self._update()

    def decide(self, accept: bool) -> None:
        """Accept or reject the last `Begin`. Later events are delivered at the end of the turn."""
        self.state.undecided = False
        self._deadline.restart_input()
        if accept:
            self._send_now(self.protocol.accept())
        else:
            self.protocol.reject()
        self._pump.schedule()

    def pause(self) -> None:
        """Read nothing and deliver no events until `resume`, and suspend the client's timeouts."""
        self.state.paused = True
        self._update()

    def resume(self) -> None:
        """Continue after `pause`."""
        if self.state.paused:
            self.state.paused = False
            self._pump.schedule()

    def expect(self, request_id: str | None, silent: bool) -> Slot:
        """Reserve the slot of a request's replies, after those of earlier requests."""
        return self._outbox.expect(request_id, silent)

    def answer(self, slot: Slot, reply: Reply, final: bool) -> None:
        """Send `reply` once the earlier slots are complete; `final` completes the slot."""
        if self.state.closed:
            return
        data = b"" if slot.silent else self.protocol.encode(slot.request_id, reply)
        if self._outbox.put(slot, data, final):
            self._deadline.restart_output()  # from now on there is output for the client to read
        self._send()
        self._update()
        if final:
            self._pump.schedule()  # a protocol with one message at a time continues

    def switch_protocol(self, successor: Successor) -> None:
        """Send the response and continue with the session. Raises `RuntimeError` if the protocol
        was switched before, if a reply is due, or if the connection is closing."""
        if self.state.session is not None or not self.state.open or self._outbox.owing:
            raise RuntimeError("switch only once, on an open connection with no reply due")
        self._send_now(successor.response)
        self.state.protocol = self.state.session = successor.session
        self._deadline.restart_input()
        self.protocol.feed(successor.unread)
        self._pump.schedule()

    def finish(self) -> None:
        """Accept no further message; close after the replies that are due."""
        if self.state.session is not None and self.state.open and not self._outbox.owing:
            self._send_now(self.state.session.farewell())
        self._advance(Lifecycle.FINISHING)
        self._update()

    def close_now(self) -> None:
        """Close at once; for use after the last turn of the loop."""
        self.state.lifecycle = Lifecycle.CLOSED
        self._close()

    @property
    def protocol(self) -> Protocol:
        return self.state.protocol

    def _ready(self, mask: int) -> None:
        transport = self._transport
        try:
            if transport.handshaking:
                if not self._shake_hands():
                    return
                mask = transport.read_when | WRITE  # data may have come with the handshake's end
            if mask & WRITE and self.state.wants_write():
                self._send()
            if mask & transport.read_when and self.state.wants_read():
                self._receive()
        except Exception:
            self._advance(Lifecycle.CLOSED)  # or the ready socket would trigger the bug again
            raise
        finally:
            self._update()

    def _shake_hands(self) -> bool:
        try:
            done = self._transport.handshake()
        except OSError as error:
            log_failed_handshake(self.peer.name, error)
            self._outbox.discard_output()
            self._advance(Lifecycle.FINISHING)
            return False
        if done:
            self._deadline.restart_input()
        return done

    def _receive(self) -> None:
        in_body = self.protocol.reading_body
        discard = not self.state.open
        try:
            data = self._transport.receive(BODY_BYTES if in_body or discard else HEADER_BYTES)
        except OSError:
            self._take_end(reset=True)
            return
        if data == b"":
            self._take_end(reset=False)
        elif data and discard:
            if self.state.discard(len(data)):
                self._advance(Lifecycle.CLOSED)
        elif data:
            # A header's timeout runs from its first byte, a session's from its last audio.
            if self.state.session is None and (self.protocol.idle or in_body):
                self._deadline.restart_input()
            self.protocol.feed(data)
            self._deliver_events()

    def _deliver_events(self) -> None:
        # Set before the pump runs, so that it also holds if the pump raises.
        self.state.undelivered = True
        try:
            self.state.undelivered = self._pump.drain(self.state, self._deliver)
        except ProtocolError as error:
            self._fail_parsing(error)
        except Exception:
            self._advance(Lifecycle.CLOSED)
            raise
        finally:
            self._update()

    def _deliver(self, event: Event | FromClient) -> None:
        self.state.begun = True
        if self.state.session is not None and isinstance(event, BodyData):
            self._deadline.restart_input()
        if isinstance(event, Send):
            # Sent outside the slots, because a client that pings with every chunk of audio would
            # fill the outbox, and its audio could not end.
            self._send_now(event.data)
            if not event.keep_alive:
                self.finish()
        elif isinstance(event, FromClient):
            self.peer = self._accepted.client_at(event.address)
        else:
            self.state.undecided = isinstance(event, Begin)
            self._owner.on_event(self, event)

    def _fail_parsing(self, error: ProtocolError) -> None:
        self._advance(Lifecycle.FINISHING)
        # Failed input names no client, and need not come from the last one; a session has one.
        self.peer = self._accepted if self.state.session is None else self.peer
        self._owner.on_protocol_error(self, error)
        self.protocol.abandon()

    def _send_now(self, data: bytes) -> None:
        if self._outbox.put_now(data):
            self._deadline.restart_output()
        self._send()

    def _send(self) -> None:
        if self.state.closed or self._transport.handshaking:
            return
        try:
            if self._outbox.send(self._transport):
                self._deadline.restart_output()
        except OSError as error:
            may_read_on = not self.protocol.end_means_gone
            if isinstance(error, BrokenPipeError) and may_read_on and not self.state.peer_ended:
                # Not ECONNRESET: the node's reply to the client's closed socket caused the reset,
                # and the client's last bytes are still unread.
                self._outbox.discard_output()
            else:
                self._break_off()

    def _take_end(self, reset: bool) -> None:
        self.state.peer_ended = True
        if self.state.lifecycle is Lifecycle.LINGERING:
            self._advance(Lifecycle.CLOSED)
            return
        self._owner.on_end(self, reset)
        self._advance(Lifecycle.CLOSED if reset else Lifecycle.FINISHING)

    def _break_off(self) -> None:
        """Close, because the client reads no more output."""
        self._advance(Lifecycle.CLOSED)  # first, so that no later reply is sent on this socket
        # After the client's end of stream `on_end` has been called, and the request continues.
        if not self.state.peer_ended:
            self._owner.on_end(self, reset=True)

    def _advance(self, state: Lifecycle) -> None:
        """Enter `state`, unless the connection is beyond it already."""
        if state <= self.state.lifecycle:
            return
        self.state.lifecycle = state
        if state is Lifecycle.LINGERING:
            self._transport.shutdown_sending()
            self._deadline.start_lingering()
        elif state is Lifecycle.CLOSED:
            self._interest.update()
            self._loop.defer(self._close)

    def _update(self) -> None:
        """Advance if all is sent, and recompute which events to wait for, after any change."""
        if self.state.lifecycle is Lifecycle.FINISHING and self.state.all_sent:
            self._advance(Lifecycle.CLOSED if self.state.peer_ended else Lifecycle.LINGERING)
        if self.state.closed:
            return
        if self.state.undelivered and self.state.takes_events():
            self._pump.schedule()
        if self._interest.update():
            self._deadline.restart_input()  # it did not run while the node did not read

    def _close(self) -> None:
        self._deadline.stop()
        self._transport.close()
        self.protocol.abandon()  # frees its input before the garbage is collected
        self._owner.on_closed(self)

    def _time_out(self, awaited: Awaited) -> None:
        if awaited in (Awaited.HEADER, Awaited.BODY, Awaited.AUDIO):
            message = f"the {awaited.name.lower()} did not arrive in time"
            self._fail_parsing(ProtocolError(Failure(TIMEOUT, message)))
        elif awaited is Awaited.TAKING:
            self._break_off()
        else:
            self._advance(Lifecycle.FINISHING if awaited is Awaited.NEXT else Lifecycle.CLOSED)
        self._update()
