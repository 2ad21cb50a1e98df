"""The messages between the queue thread and the loop, and the counts that both may read.

Frozen, except `Counts`, whose values only the queue thread writes. A lease is named by its number.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol as Interface

from app.messages import Failure, Outcome
from app.queue.job import Job, Refused
from app.queue.names import CLASSES, JobClass


@dataclass(frozen=True, slots=True)
class Arrived:
    """A job was delivered. `data` is its audio, empty if that is an object. Nodes died of a
    `suspect` job."""

    lease: int
    job: Job | Refused
    data: bytes = field(repr=False)
    delivered: int
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next bytes of a job's object. The loop answers each with `credit`."""

    lease: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A job's object is complete, its digest verified; or it is unusable."""

    lease: int
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Stored:
    """The result of a job is on the broker and the job is acknowledged; or it was handed back."""

    lease: int


QueueEvent = Arrived | Chunk | Fetched | Stored


@dataclass(frozen=True, slots=True)
class Room:
    """What the loop lets the queue thread ask for: up to `places` further jobs, of `classes`."""

    places: int = 0
    classes: frozenset[JobClass] = frozenset(CLASSES)


@dataclass(slots=True)
class Counts:
    """What the queue thread has done; times are `time.monotonic()`. Any thread may read it."""

    started_at: float = field(default_factory=time.monotonic)
    connected: bool = False
    away_since: float = 0.0
    """When the connection ended, or the node began without one."""
    held: dict[JobClass, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    """Jobs that are leased and not yet acknowledged."""
    deliveries: int = 0
    redeliveries: int = 0
    handed_back: int = 0
    quarantined: int = 0
    fetched_bytes: int = 0
    result_retries: int = 0
    duplicate_results: int = 0
    answered_at: float = 0.0
    """0 or when the broker last answered a request for a job."""


class Queue(Interface):
    """The queue thread as the loop uses it (`app/queue/thread.py`)."""

    def take_events(self) -> list[QueueEvent]: ...
    def set_room(self, room: Room) -> None: ...
    def fetch(self, lease: int, size: int) -> None: ...
    def credit(self, lease: int) -> None: ...
    def announce(self, lease: int, data: bytes) -> None: ...
    def settle(self, lease: int) -> None: ...
    def finish(self, lease: int, outcome: Outcome) -> None: ...
    def hand_back(self, lease: int, delay: float) -> None: ...
    def close(self) -> None: ...
