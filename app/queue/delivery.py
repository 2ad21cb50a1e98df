"""One delivery of a job by the broker. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Delivery:
    """`sequence` is the job's number in the stream of jobs, and the same in every delivery;
    `delivered` counts them from 1. `reply` is the subject that takes the answer: done, or handed
    back."""

    subject: str
    headers: Mapping[str, str]
    data: bytes = field(repr=False)
    reply: str
    sequence: int
    delivered: int
    consumer: str
