"""The state of one connection, and all that follows from it: may it read, what does it wait for.

    OPEN -----------> FINISHING ----------> LINGERING ----------> CLOSED
     |  finish()       |  the last reply     |  the client's end,   ^
     |  lost position  |  was sent           |  LINGER_BYTES or     |
     |  client's end   |                     |  LINGER_SECONDS      |
     |                 |                     |                      |
     +-----------------+---------------------+----------------------+
        reset, write timeout, a bug, the last reply after the client's end

OPEN takes messages. FINISHING takes none and sends the replies that are due. LINGERING has shut
down its sending side and discards input, because closing a socket with unread input makes the
kernel send a reset that can destroy the reply on its way. CLOSED sends and reads nothing; the
socket is closed at the end of the turn, never in the middle of a callback. Loop thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, auto

from app.network.outbox import Outbox
from app.network.timeouts import Awaited
from app.network.transport import Transport
from app.protocols.base import Protocol, Session

LINGER_BYTES = 1_048_576
"""Input that is read and discarded after the last message."""


class Lifecycle(IntEnum):
    """The state in the picture above. It only grows."""

    OPEN = auto()
    FINISHING = auto()
    LINGERING = auto()
    CLOSED = auto()


class ReadBlock(Enum):
    """Reasons for not reading from a client."""

    CLOSED = auto()
    END_OF_STREAM = auto()
    DISCARD_LIMIT = auto()
    """LINGER_BYTES were discarded after the last message."""
    UNDECIDED = auto()
    """A request's body waits for a place."""
    PAUSED = auto()
    """The owner called `pause`: the disk is slower than the client."""
    UNDELIVERED = auto()
    """The protocol may still have events of the input before."""
    PROTOCOL_FULL = auto()
    REPLIES_DUE = auto()
    """The client does not take its replies, or too many of its requests wait for theirs."""


@dataclass(slots=True)
class ConnectionState:
    """Data of a connection and pure questions about it."""

    protocol: Protocol
    transport: Transport
    outbox: Outbox
    lifecycle: Lifecycle = Lifecycle.OPEN
    session: Session | None = None
    """The protocol, if it is a session after an upgrade; that happens at most once."""
    undecided: bool = False
    """The owner has a `Begin` and has not decided on it."""
    paused: bool = False
    undelivered: bool = False
    """The protocol was not asked for events until it had none."""
    peer_ended: bool = False
    """The client's stream has ended."""
    discarded_bytes: int = 0
    begun: bool = False
    """A first event has been delivered."""

    @property
    def open(self) -> bool:
        return self.lifecycle is Lifecycle.OPEN

    @property
    def closed(self) -> bool:
        return self.lifecycle is Lifecycle.CLOSED

    @property
    def idle(self) -> bool:
        """True if no message was begun and no reply is due."""
        return self.protocol.idle and not self.undelivered and self.all_sent

    @property
    def all_sent(self) -> bool:
        return not (self.outbox.owing or self.outbox.unsent)

    def discard(self, count: int) -> bool:
        """Count input that was discarded; return whether that was enough of it."""
        self.discarded_bytes += count
        return self.lifecycle is Lifecycle.LINGERING and self.discarded_bytes > LINGER_BYTES

    def read_block(self) -> ReadBlock | None:
        """Return why nothing is read at the moment; None if input is welcome."""
        if self.closed:
            return ReadBlock.CLOSED
        if self.peer_ended:
            return ReadBlock.END_OF_STREAM
        if not self.open:
            # Only to discard input and to notice the client's end.
            return ReadBlock.DISCARD_LIMIT if self.discarded_bytes > LINGER_BYTES else None
        if self.undecided:
            return ReadBlock.UNDECIDED
        if self.paused:
            return ReadBlock.PAUSED
        if self.undelivered:
            return ReadBlock.UNDELIVERED
        if self.protocol.full:
            return ReadBlock.PROTOCOL_FULL
        return ReadBlock.REPLIES_DUE if self.outbox.crowded else None

    def wants_read(self) -> bool:
        """Return whether to watch for input: nothing blocks reading."""
        return self.read_block() is None

    def wants_write(self) -> bool:
        """Return whether to watch for output: bytes are left that could not be sent at once."""
        return not self.closed and self.outbox.unsent

    def takes_events(self) -> bool:
        """Return whether the owner may get the next event."""
        if not self.open or self.undecided or self.paused:
            return False
        # A reply can be a hundred times as long as its request, and one read holds many requests.
        return not self.outbox.crowded

    def awaited(self) -> Awaited:
        """Return what the client has to do next, which selects the timeout that runs."""
        if self.closed:
            return Awaited.NOTHING
        if self.lifecycle is Lifecycle.LINGERING:
            return Awaited.END
        if self.transport.handshaking:
            return Awaited.HANDSHAKE
        if self.outbox.unsent:
            return Awaited.TAKING
        if not self.open or not self.wants_read():
            return Awaited.NOTHING
        if self.session is not None:
            return Awaited.AUDIO
        if self.protocol.reading_body:
            return Awaited.BODY
        if not self.protocol.idle or not self.begun:
            return Awaited.HEADER
        return Awaited.NOTHING if self.outbox.owing else Awaited.NEXT
