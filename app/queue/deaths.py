"""Counts the deaths of a job, and quarantines a job that kills nodes. Queue thread only.

The broker counts deliveries. Nodes count those that ended with a hand-back in the stream
`HANDED_BACK`, under the job's sequence; the other ended deliveries are deaths.
"""

from __future__ import annotations

import structlog

from app.queue import names
from app.queue.broker import BrokerError
from app.queue.delivery import Delivery
from app.queue.jetstream import JetStream
from app.queue.job import DEATHS, MESSAGE_ID, SUBJECT
from app.queue.limits import SUSPECT_DEATHS
from app.queue.link import Link

UNREADABLE = "unreadable"
"""The model of dead messages whose subject is not a job's."""

ATTEMPTS = 8

_log = structlog.get_logger("queue")


async def deaths_of(link: Link, delivery: Delivery) -> int:
    """Return how often a node died or hung with this job, 0 if that is at most once. Raises
    `BrokerError`."""
    if delivery.delivered <= SUSPECT_DEATHS:
        return 0
    subject = names.handed_back_subject(delivery.sequence)
    back = await link.persist(
        "cannot read the hand-backs of a job",
        lambda stream: stream.last(names.HANDED_BACK, subject),
        ATTEMPTS,
    )
    return delivery.delivered - 1 - _number(back)


async def bury(link: Link, delivery: Delivery, model: str, deaths: int) -> None:
    """Copy a job to the dead jobs of `model`. Raises `BrokerError`."""
    headers = {
        **delivery.headers,
        # The original id would make a job that was retried and died again a duplicate.
        MESSAGE_ID: f"dead/{delivery.sequence}",
        SUBJECT: delivery.subject,
        DEATHS: str(deaths),
    }
    subject = names.dead_subject(model)
    await link.persist(
        "cannot quarantine a job",
        lambda stream: stream.store(subject, delivery.data, headers),
        ATTEMPTS,
    )
    _log.error("job quarantined", subject=delivery.subject, deaths=deaths)


async def discard(link: Link, delivery: Delivery, reason: str) -> None:
    """Move a message that cannot be a job to the dead jobs."""
    _log.error("not a job; moved to the dead jobs", subject=delivery.subject, reason=reason)
    try:
        await bury(link, delivery, UNREADABLE, 0)
        await (await link.ready()).ack(delivery)
    except BrokerError as error:
        _log.error("cannot move a message to the dead jobs", error=str(error))


async def count_hand_back(stream: JetStream, sequence: int) -> None:
    """Count a delivery that was no death. Only the holder of a lease counts, so reading and writing
    need not be one step. Raises `BrokerError`."""
    subject = names.handed_back_subject(sequence)
    before = _number(await stream.last(names.HANDED_BACK, subject))
    await stream.store(subject, str(before + 1).encode(), {})


def _number(data: bytes | None) -> int:
    return int(data) if data and data.isdigit() else 0
