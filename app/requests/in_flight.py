"""A request on its way: from its header until its outcome was told.

What the rooms of the loop thread hand to one another. The intake makes it, `Outcomes.settle` ends
it. One that was taken up from a former process has nobody to reply to: no connection, no slot.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.messages import Origin, Reply, Request
from app.network.connection import Connection
from app.network.outbox import Slot
from app.storage.body import Body


@dataclass(slots=True, eq=False)
class InFlight:
    """`number` never comes twice; it is the job's number as well."""

    number: int
    request: Request
    origin: Origin
    connection: Connection | None = None
    slot: Slot | None = None
    body: Body | None = None
    """While it is being received; afterwards it is the worker's."""
    entry: str = ""
    """What the journal has it under; empty without a journal, and before it is there."""

    @property
    def cancellable(self) -> bool:
        """Whether it is dropped when its client is gone: it had nobody else to tell."""
        return self.request.reply in ("transcript", "segments")

    def tell(self, reply: Reply, final: bool) -> None:
        """Reply, if there is anybody who has not had the last reply yet."""
        if self.connection is not None and self.slot is not None and not self.slot.done:
            self.connection.answer(self.slot, reply, final)

    def close_unless_kept(self) -> None:
        """Nothing more is to be read of this message: is there another to come?"""
        if self.connection is not None and not self.request.keep_alive:
            self.connection.finish()

    def close_body(self) -> None:
        """Forget what was received."""
        if self.body is not None:
            self.body.close()
            self.body = None
