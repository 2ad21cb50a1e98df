"""A job that this node holds, from its delivery to its acknowledgement. Queue thread only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from app.queue.delivery import Delivery
from app.queue.names import Address

_CHUNKS_AHEAD = 4
"""Chunks that may be on their way to the disk."""


@dataclass(slots=True, eq=False)
class Lease:
    """`delivery` is the last one; `request_id` and `object_name` are set once it is read."""

    number: int
    delivery: Delivery
    address: Address
    request_id: str = ""
    object_name: str | None = None
    keep_audio: bool = False
    """True for a dead job, which can be retried."""
    deaths: int = 0
    """Deliveries that ended with the death of their node, 0 if there was at most one."""
    counted: bool = False
    """True if the next delivery was forgiven already, after the broker had been away."""
    free: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once another job may take its place."""
    credit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CHUNKS_AHEAD))
    fetching: asyncio.Task[None] | None = None
    returned: bool = False
    """True once it is handed back: the next delivery is another lease."""
    ending: bool = False
    """True once it is being finished or handed back."""
