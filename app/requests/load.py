"""The node's load at one moment, for health, readiness and metrics. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.queue.events import Counts
from app.worker.live.counters import LiveCounts


@dataclass(frozen=True, slots=True)
class Load:
    """`admitted` requests hold one of `places`; `waiting` ones are not read. `streams` of live
    audio are open; `live` has the worker's counts; `dropped_partials` were not sent to slow
    clients. `queued_seconds` of audio are complete and unfinished, estimated from their bytes;
    `buffered_bytes` of bodies and streams are held or reserved. `ready` is False if a further
    request would wait or be rejected. The journal has `journal_entries` without a written outcome
    and `quarantined` ones; 0 without a journal. `cut_off` is true if all requests come from a
    broker that is away; `queue` is None without one. Of the `engines`, `busy_engines` decode now;
    `given_up` windows of files were given up for live audio.
    """

    ready: bool
    draining: bool
    worker_alive: bool
    connections: int
    places: int
    admitted: int
    waiting: int
    queued_seconds: float
    buffered_bytes: int
    journal_entries: int = 0
    quarantined: int = 0
    streams: int = 0
    live: LiveCounts = field(default_factory=LiveCounts)
    dropped_partials: int = 0
    cut_off: bool = False
    queue: Counts | None = None
    engines: int = 1
    busy_engines: int = 0
    given_up: int = 0
