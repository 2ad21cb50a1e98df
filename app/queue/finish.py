"""The end of a job: the result is stored, the job acknowledged, its audio deleted. Queue thread.

The line on stdout comes before. A node that dies between two of these steps leaves the job to the
next node, so it is done at least once; of two results the first stays.
"""

from __future__ import annotations

import structlog

from app.messages import Outcome
from app.queue import audio, names
from app.queue.broker import BrokerError
from app.queue.events import Counts
from app.queue.jetstream import JetStream
from app.queue.job import INLINE_BYTES, MESSAGE_ID, OBJECT
from app.queue.lease import Lease
from app.queue.limits import LIMITS
from app.queue.link import Link
from app.queue.result import encode_result, result_fields, result_message_id, result_object

_ATTEMPTS = 8
_ACK_ATTEMPTS = 3

_log = structlog.get_logger("queue")


async def store_result(
    link: Link, lease: Lease, outcome: Outcome, node: str, counts: Counts
) -> None:
    """Store the result, however long it takes."""
    delivery, tenant = lease.delivery, lease.address.tenant
    data = encode_result(result_fields(lease.request_id, outcome, node, delivery.delivered))
    headers = {MESSAGE_ID: result_message_id(tenant, lease.request_id, delivery.sequence)}
    subject = names.result_subject(tenant, lease.request_id)
    large = result_object(lease.request_id, delivery.sequence, delivery.delivered)
    bucket, chunk_bytes = names.results_bucket(tenant), LIMITS.large_results.chunk_bytes

    async def store(stream: JetStream) -> bool:
        try:
            if len(data) <= INLINE_BYTES:
                return await stream.store(subject, data, headers)
            await stream.put_object(bucket, large, data, chunk_bytes)
            return await stream.store(subject, b"", {**headers, OBJECT: large})
        except BrokerError:
            counts.result_retries += 1
            raise

    if not await link.persist("cannot store a result", store):
        counts.duplicate_results += 1
        _log.info("there is a result already", id=lease.request_id, tenant=tenant)


async def acknowledge(link: Link, lease: Lease) -> None:
    """Remove the job from the queue. Raises `BrokerError` after some attempts: the node that gets
    the job again will find that there is a result."""
    await link.persist(
        "cannot acknowledge a job", lambda stream: stream.ack(lease.delivery), _ACK_ATTEMPTS
    )


async def delete_audio(link: Link, lease: Lease) -> None:
    """Delete the job's object, unless the job is kept. Raises `BrokerError` after some attempts;
    `scripts/queue init` sweeps audio that no job names."""
    name, tenant = lease.object_name, lease.address.tenant
    if name is not None and not lease.keep_audio:
        await link.persist(
            "cannot delete audio",
            lambda stream: audio.delete(stream, tenant, name),
            _ATTEMPTS,
        )
