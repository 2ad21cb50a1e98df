"""A request that comes over a connection, from its header until its body is complete."""

from __future__ import annotations

import time
from dataclasses import dataclass

from app.messages import Origin
from app.network.connection import Connection
from app.requests.early import EarlyAudio
from app.requests.in_flight import InFlight
from app.requests.stream import Stream
from app.storage.body import Body


@dataclass(slots=True, eq=False)
class Upload:
    """`body` is None until the request has a place, and once it is complete; a stream of live audio
    has a `stream` instead. `early` is None if the worker cannot hear the body while it arrives."""

    connection: Connection
    in_flight: InFlight
    body: Body | None = None
    stream: Stream | None = None
    early: EarlyAudio | None = None

    @property
    def number(self) -> int:
        return self.in_flight.number

    @property
    def received(self) -> int:
        """Bytes of audio that came from the client."""
        if self.stream is not None:
            return self.stream.received
        return 0 if self.body is None else self.body.size

    @property
    def held_up(self) -> bool:
        """True while the node is slower than the client: the disk, the worker, or a place."""
        if self.stream is not None:
            return self.connection.state.paused
        return self.body is None or bool(self.body.unwritten)

    def finish_unless_kept(self) -> None:
        """End the connection after this message, unless the client wants to keep it."""
        if not self.in_flight.request.keep_alive:
            self.connection.finish()


def origin_of(connection: Connection) -> Origin:
    """Return the origin of a message that arrives now."""
    return Origin(connection.peer.name, time.time(), connection.peer.port.name)
