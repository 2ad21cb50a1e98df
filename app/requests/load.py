"""How busy the node is at this moment: for health, readiness and metrics. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """`admitted` requests hold one of `places`, `waiting` ones are not read, `queued_seconds` of
    audio are complete and unfinished, by a guess from their bytes; `buffered_bytes` of bodies are
    held or promised. `ready` is False where a further request would wait or be refused. The journal
    has `journal_entries` whose outcome is not out yet, and put `quarantined` aside; 0 without one.
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
