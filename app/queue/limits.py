"""The streams, consumers and buckets as `scripts/queue init` makes them. Data only; any thread.

No job leaves by age: jobs, dead jobs and the audio that they name are kept until they are done or
dropped, and bounded in bytes. A full stream rejects new messages instead of dropping old ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from app.queue.names import DEAD, HANDED_BACK, IDS, JOBS, RESULTS

MIN_SERVER = (2, 14)
"""The first release of nats-server without a known loss of messages over leaf nodes."""

MIB = 1024 * 1024
_DAY = 86_400.0

FOREVER = 0.0
"""An age that never ends, as JetStream writes it."""

SUSPECT_DEATHS = 2
"""A job with so many deaths is done alone, so that no other job is held by a node that it kills."""

MAX_DEATHS = 5
"""A job is quarantined after so many deliveries that ended without an outcome or a hand-back."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """One stream; ages in seconds. `per_subject` is the most messages of one subject, 0 without
    such a limit; with `reject_per_subject` one more is rejected instead of replacing the oldest."""

    name: str
    subjects: tuple[str, ...]
    retention: Literal["workqueue", "limits"]
    max_bytes: int
    max_age: float = FOREVER
    per_subject: int = 0
    reject_per_subject: bool = False
    duplicate_window: float = 600.0
    discard: Literal["new", "old"] = "new"
    allow_direct: bool = True


@dataclass(frozen=True, slots=True)
class ConsumerLimits:
    """Every consumer. The server delivers a job without end (`max_deliver`); nodes count deaths."""

    ack_wait: float = 30.0
    max_deliver: int = -1
    max_ack_pending: int = 10_000
    max_waiting: int = 2_048


@dataclass(frozen=True, slots=True)
class BucketLimits:
    """A bucket of each tenant. Names: `audio_bucket`, `results_bucket` of `app/queue/names.py`."""

    max_bytes: int
    max_age: float
    chunk_bytes: int = 512 * 1024


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Everything that `init` sets. The subjects of `jobs` are the filters of its consumers; `ids`
    holds the ids that submitters chose and what they stand for. A message of a large result names
    an object that is put before it, hence the longer age of the objects."""

    jobs: StreamLimits = field(
        default=StreamLimits(
            JOBS,
            (),
            "workqueue",
            max_bytes=1024 * MIB,
            per_subject=1_000,
            reject_per_subject=True,
        )
    )
    results: StreamLimits = field(
        default=StreamLimits(
            RESULTS,
            ("asr.result.>",),
            "limits",
            max_bytes=256 * MIB,
            max_age=_DAY,
            per_subject=1,
            reject_per_subject=True,
        )
    )
    dead: StreamLimits = field(
        default=StreamLimits(DEAD, ("asr.dead.>",), "limits", max_bytes=256 * MIB)
    )
    handed_back: StreamLimits = field(
        default=StreamLimits(
            HANDED_BACK,
            ("asr.handed_back.>",),
            "limits",
            max_bytes=16 * MIB,
            per_subject=1,
            discard="old",
        )
    )
    ids: StreamLimits = field(
        default=StreamLimits(
            IDS,
            ("asr.id.*.*",),
            "limits",
            max_bytes=64 * MIB,
            max_age=30 * _DAY,
            per_subject=1,
            reject_per_subject=True,
        )
    )
    consumer: ConsumerLimits = field(default=ConsumerLimits())
    audio: BucketLimits = field(default=BucketLimits(2048 * MIB, FOREVER))
    large_results: BucketLimits = field(default=BucketLimits(256 * MIB, 2 * _DAY))

    @property
    def streams(self) -> tuple[StreamLimits, ...]:
        return self.jobs, self.results, self.dead, self.handed_back, self.ids


LIMITS = QueueLimits()
