"""A request that comes over a connection, from its header until its body is complete."""

from __future__ import annotations

from dataclasses import dataclass

from app.network.connection import Connection
from app.requests.in_flight import InFlight
from app.storage.body import Body


@dataclass(slots=True, eq=False)
class Upload:
    """`body` is None until the request has a place, and once it is complete."""

    connection: Connection
    in_flight: InFlight
    body: Body | None = None

    @property
    def number(self) -> int:
        return self.in_flight.number

    def finish_unless_kept(self) -> None:
        """End the connection after this message, unless the client wants to keep it."""
        if not self.in_flight.request.keep_alive:
            self.connection.finish()
