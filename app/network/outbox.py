"""What a connection owes its peer: replies in the order of the requests, and bytes not yet sent.

Each request has a `Slot`; what is put into one leaves when all slots before it are done. Sends as
much as the transport takes, at once. Loop thread only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.network.transport import Transport

MAX_UNSENT_BYTES = 1_048_576
"""A peer that does not read its replies is not read from beyond this."""

MAX_SLOTS = 1_024
"""Nor while this many of its requests wait for their replies: refused ones cost it nothing."""


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one request's reply in the connection's order."""

    request_id: str | None
    silent: bool
    """True for `reply: none`: the place is kept, but nothing is ever sent."""
    ready: list[bytes] = field(default_factory=list)
    done: bool = False


class Outbox:
    """Slots and unsent bytes of one connection."""

    def __init__(self) -> None:
        # Lists, though they are taken from at the front: both are short, and most connections are
        # idle, in which an empty deque costs 700 bytes more than an empty list.
        self._slots: list[Slot] = []
        self._unsent: list[memoryview] = []
        self.size = 0
        """Bytes that are ready or unsent."""
        self.discarding = False
        """True once the peer takes nothing more: what is put in is forgotten."""

    @property
    def owing(self) -> bool:
        """True while a request has not had its last reply."""
        return bool(self._slots)

    @property
    def unsent(self) -> bool:
        """True while there are bytes that could leave now if the peer took them."""
        return bool(self._unsent)

    @property
    def crowded(self) -> bool:
        """True while so much is due that no further request should be read."""
        return self.size >= MAX_UNSENT_BYTES or len(self._slots) >= MAX_SLOTS

    def expect(self, request_id: str | None, silent: bool) -> Slot:
        """Keep a place behind all others."""
        slot = Slot(request_id, silent)
        self._slots.append(slot)
        return slot

    def put(self, slot: Slot, data: bytes, final: bool) -> bool:
        """Add to a slot; `final` closes it. True if bytes became ready to leave that were not."""
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

    def say(self, data: bytes) -> bool:
        """Send between two replies, in no slot: before anything that is put in later."""
        if data and not self.discarding:
            had = bool(self._unsent)
            self._unsent.append(memoryview(data))
            self.size += len(data)
            return not had
        return False

    def send(self, transport: Transport) -> int:
        """Send what the peer takes; how many bytes that was. Raises `OSError`."""
        total = 0
        # Several small replies go in one call; a large one goes as far as the kernel takes it.
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
        """The peer takes nothing more: forget what is ready, and what will be."""
        self.discarding = True
        self._unsent.clear()
        for slot in self._slots:
            slot.ready.clear()
        self.size = 0
