"""`dead list|retry|drop`: the jobs that killed their node five times. Each keeps its audio until it
is dropped, or done after a retry. Needs the admin's rights."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from app.queue.job import DEATHS, HEADER, MESSAGE_ID, OBJECT, SENT, SUBJECT
from app.queue.names import (
    DEAD,
    RESULTS,
    Address,
    audio_bucket,
    parse_job_subject,
    result_subject,
)
from queue_tool import objects
from queue_tool.broker import ApiError, Broker, NoResponder, QueueError, Stored
from queue_tool.output import print_json

_KEPT = (HEADER, SENT, OBJECT)
"""The headers of the job itself; the others are the broker's, or the quarantine's."""


@dataclass(frozen=True)
class DeadJob:
    """One message of the stream of dead jobs."""

    message: Stored
    address: Address
    request_id: str

    @property
    def object_name(self) -> str | None:
        return self.message.headers.get(OBJECT)

    def fields(self) -> dict[str, Any]:
        deaths = self.message.headers.get(DEATHS, "")
        return {
            "id": self.request_id,
            "tenant": self.address.tenant,
            "model": self.address.model,
            "class": self.address.job_class,
            "bytes": _declared_bytes(self.message) or len(self.message.data),
            "deaths": int(deaths) if deaths.isdigit() else None,
            "quarantined_at": self.message.stored_at,
        }


async def list_dead(broker: Broker, as_json: bool) -> int:
    found = [job.fields() async for job in dead_jobs(broker)]
    if as_json:
        for fields in found:
            print_json(fields)
        return 0
    print(f"{'TENANT':<12} {'ID':<24} {'MODEL':<16} {'CLASS':<6} {'BYTES':>10}  QUARANTINED")
    for one in found:
        print(
            f"{one['tenant']:<12} {one['id']:<24} {one['model']:<16} {one['class']:<6}"
            f" {one['bytes']:>10}  {one['quarantined_at'][:19]}Z"
        )
    return 0


async def retry(broker: Broker, request_id: str, tenant: str | None) -> int:
    """Submit a dead job again. Its old result, `quarantined`, is removed first, because the broker
    keeps the first result of an id."""
    job = await _find(broker, request_id, tenant)
    await _purge(broker, RESULTS, result_subject(job.address.tenant, job.request_id))
    headers = {name: job.message.headers[name] for name in _KEPT if name in job.message.headers}
    # Its own message id: the broker may still know the first one. The same one if this is repeated.
    sequence = job.message.sequence
    headers[MESSAGE_ID] = f"{job.address.tenant}/{job.request_id}/retry/{sequence}"
    try:
        await broker.publish(job.message.headers[SUBJECT], job.message.data, headers)
    except (NoResponder, ApiError) as error:
        message = f"the queue does not take the job again ({error}): it stays among the dead jobs"
        raise QueueError("no_space", message) from None
    await _delete(broker, sequence)
    print(f"{job.request_id}: submitted again")
    return 0


async def drop(broker: Broker, request_id: str, tenant: str | None) -> int:
    """Delete a dead job and its audio."""
    job = await _find(broker, request_id, tenant)
    if job.object_name is not None:
        await objects.delete(broker, audio_bucket(job.address.tenant), job.object_name)
    await _delete(broker, job.message.sequence)
    print(f"{job.request_id}: dropped")
    return 0


async def dead_jobs(broker: Broker) -> AsyncIterator[DeadJob]:
    """Every dead job, the oldest first."""
    sequence = 1
    while True:
        try:
            message = await broker.next(DEAD, "asr.dead.*", sequence)
        except NoResponder:
            raise QueueError(
                "forbidden",
                "the dead jobs cannot be read: use the admin's --queue-credentials, or run"
                " scripts/queue init",
            ) from None
        if message is None:
            return
        sequence = message.sequence + 1
        try:
            address = parse_job_subject(message.headers.get(SUBJECT, ""))
        except ValueError:
            continue
        yield DeadJob(message, address, _request_id(message))


async def _find(broker: Broker, request_id: str, tenant: str | None) -> DeadJob:
    found = [
        job
        async for job in dead_jobs(broker)
        if job.request_id == request_id and tenant in (None, job.address.tenant)
    ]
    if not found:
        raise QueueError("not_found", f"no dead job has the id {request_id}: see dead list")
    if len({job.address.tenant for job in found}) > 1:
        raise QueueError("ambiguous", f"several tenants have a dead job {request_id}: add --tenant")
    return found[0]


def _header(message: Stored) -> dict[str, Any]:
    try:
        fields = json.loads(message.headers.get(HEADER, ""))
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _request_id(message: Stored) -> str:
    return str(_header(message).get("id", f"job-{message.sequence}"))


def _declared_bytes(message: Stored) -> int | None:
    size = _header(message).get("content-length")
    return size if isinstance(size, int) else None


async def _delete(broker: Broker, sequence: int) -> None:
    try:
        await broker.api(f"STREAM.MSG.DELETE.{DEAD}", {"seq": sequence})
    except ApiError as error:
        raise QueueError("broker_error", f"the dead job cannot be deleted: {error}") from None


async def _purge(broker: Broker, stream: str, subject: str) -> None:
    try:
        await broker.api(f"STREAM.PURGE.{stream}", {"filter": subject})
    except ApiError as error:
        raise QueueError("broker_error", f"{stream} cannot be purged: {error}") from None
