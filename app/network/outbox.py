"""The output of a connection: replies in the order of the requests, and bytes not yet sent.

Each request has a `Slot`. Its replies are sent once all slots before it are done, as far as the
transport takes them at once. Loop thread only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.network.transport import Transport

MAX_UNSENT_BYTES = 1_048_576
"""Unsent bytes, beyond which a connection is not read."""

MAX_SLOTS = 1_024
"""Requests without a last reply, beyond which a connection is not read: rejected requests cost the
client nothing."""


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one request's replies in the connection's order."""

    request_id: str | None
    silent: bool
    """True for `reply: none`: the place is kept, but nothing is sent."""
    ready: list[bytes] = field(default_factory=list)
    done: bool = False


class Outbox:
    """Slots and unsent bytes of one connection."""

    def __init__(self) -> None:
        # Lists, although items are taken from the front: both are short, and in an idle connection
        # an empty deque costs 700 bytes more than an empty list.
        self._slots: list[Slot] = []
        self._unsent: list[memoryview] = []
        self.size = 0
        """Bytes in slots and unsent bytes."""
        self.discarding = False
        """True once the client takes no more output, which is then dropped."""

    @property
    def owing(self) -> bool:
        """True while a request has not received its last reply."""
        return bool(self._slots)

    @property
    def unsent(self) -> bool:
        """True while bytes could be sent if the client took them."""
        return bool(self._unsent)

    @property
    def crowded(self) -> bool:
        """True while so much output is due that no further request should be read."""
        return self.size >= MAX_UNSENT_BYTES or len(self._slots) >= MAX_SLOTS

    def expect(self, request_id: str | None, silent: bool) -> Slot:
        """Reserve a slot after all others."""
        slot = Slot(request_id, silent)
        self._slots.append(slot)
        return slot

    def put(self, slot: Slot, data: bytes, final: bool) -> bool:
        """Add to a slot; `final` completes it. Return whether unsent bytes are there that were
        not."""
        if data and not slot.silent and not self.discarding:
            slot.ready.append(data)
            self.size += len(data)
        slot.done = slot.done or final
        had = bool(self._unsent)
        while self._slots:
            head = self._slots[0]
            self._unsent.extend(memoryview(data) for data in head.ready)
            head.ready.clear()
            if not head.done:
                break
            self._slots.pop(0)
        return bool(self._unsent) and not had

    def put_now(self, data: bytes) -> bool:
        """Add bytes outside of the slots, before anything added later; return as `put` does."""
        if data and not self.discarding:
            had = bool(self._unsent)
            self._unsent.append(memoryview(data))
            self.size += len(data)
            return not had
        return False

    def send(self, transport: Transport) -> int:
        """Send as much as the client takes and return the number of bytes. Raises `OSError`."""
        total = 0
        # Small replies are sent one after the other; a large one as far as the kernel takes it.
        while self._unsent:
            sent = transport.send(self._unsent[0])
            if not sent:
                break
            total += sent
            self.size -= sent
            if sent == len(self._unsent[0]):
                self._unsent.pop(0)
            else:
                self._unsent[0] = self._unsent[0][sent:]
        return total

    def discard_output(self) -> None:
        """Drop all output, now and later: the client takes no more."""
        self.discarding = True
        self._unsent.clear()
        for slot in self._slots:
            slot.ready.clear()
        self.size = 0
