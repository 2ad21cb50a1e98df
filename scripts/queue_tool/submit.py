"""`submit`: makes a job of each file. Small audio is in the job's message; larger audio becomes an
object first, a chunk at a time. The acknowledgement of the message means that the job is accepted.

A given id is claimed before anything is sent, together with the SHA-256 of its audio. The broker
keeps the first claim, so of two clients with the same id and different audio one receives
`duplicate_id`.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import client

from app.queue.job import INLINE_BYTES, MESSAGE_ID, OBJECT, JobError, job_headers
from app.queue.names import (
    ANY_MODEL,
    IDS,
    SHORT_BYTES,
    Address,
    JobClass,
    audio_bucket,
    bucket_stream,
    id_subject,
    job_subject,
    object_subject,
    queue_model,
    results_bucket,
)
from queue_tool import objects
from queue_tool.broker import ApiError, Broker, NoResponder, QueueError
from queue_tool.objects import NO_SPACE
from queue_tool.output import Output
from queue_tool.results import Waiting, stored

SHORT_SECONDS = 30.0
"""The longest raw audio of class short. The length of a file is unknown, so its size counts."""

MAX_BODY = 1 << 40
"""The nodes have their own limit, --max-message-bytes."""

_PER_SUBJECT = "per subject"

Accepted = dict[str, Any]


@dataclass(frozen=True)
class Submission:
    """One file on its way: `source` holds `size` bytes from its position on."""

    name: str
    source: BinaryIO
    size: int
    tenant: str
    request_id: str
    given: bool
    """True if the user chose the id."""
    address: Address
    headers: Mapping[str, str]


async def submit(broker: Broker, options: Namespace, output: Output) -> int:
    """Submit every file, then wait for the results if asked to. Returns the exit status.
    Raises `QueueError` if nothing can be submitted."""
    await _check_tenant(broker, options.tenant)
    found: list[tuple[str, str, Waiting | QueueError]] = []
    for name in options.files:
        request_id = options.id or secrets.token_hex(12)
        waiting = Waiting(broker, options.tenant, request_id)
        try:
            await _submit_file(broker, name, request_id, waiting, options, output)
        except QueueError as error:
            await waiting.stop()
            found.append((name, request_id, error))
        else:
            found.append((name, request_id, waiting))
        if not options.wait:
            _, _, last = found[-1]
            accepted = {"id": request_id, "status": "accepted"}
            output.show(name, request_id, last if isinstance(last, QueueError) else accepted)
    if options.wait:
        for name, request_id, one in found:
            try:
                result = await one.result() if isinstance(one, Waiting) else one
            except QueueError as error:
                result = error
            output.show(name, request_id, result)
    return 1 if output.failed else 0


async def _check_tenant(broker: Broker, tenant: str) -> None:
    """Raise `QueueError` if the tenant has no buckets: a large result could not be stored."""
    bucket = results_bucket(tenant)
    try:
        await broker.last_in(bucket_stream(bucket), object_subject(bucket, "-"))
    except NoResponder:
        raise QueueError(
            "tenant_not_found",
            f"the broker has no tenant {tenant} for this user: check --tenant and"
            f" --queue-credentials, or run scripts/queue init --tenant {tenant}",
        ) from None


async def _submit_file(
    broker: Broker,
    name: str,
    request_id: str,
    waiting: Waiting,
    options: Namespace,
    output: Output,
) -> None:
    try:
        source, size = await asyncio.to_thread(client.open_source, name)
    except client.Failed as failure:
        raise QueueError("bad_file", str(failure)) from None
    with source:
        submission = _prepare(name, source, size, request_id, options)
        if options.wait:
            await waiting.start()
        try:
            await _accept(
                broker,
                submission,
                lambda sent: output.progress.update(request_id, name, sent, size),
            )
        finally:
            output.progress.finish(request_id)


def _prepare(
    name: str, source: BinaryIO, size: int, request_id: str, options: Namespace
) -> Submission:
    """Apply the rules of the header and of the class before anything is sent."""
    try:
        fields = client.header_fields(name, size, options)
    except client.Failed as failure:
        raise QueueError("bad_field", str(failure)) from None
    fields["id"] = request_id
    address = Address(
        model=queue_model(options.model) if options.model else ANY_MODEL,
        job_class=options.job_class or job_class_of(fields),
        tenant=options.tenant,
    )
    try:
        headers = job_headers(fields, address, sent_at=time.time(), max_body=MAX_BODY)
    except JobError as error:
        raise QueueError(error.failure.code, error.failure.message) from None
    return Submission(
        name, source, size, options.tenant, request_id, bool(options.id), address, headers
    )


def job_class_of(fields: Mapping[str, Any]) -> JobClass:
    """Return the class of a job by its size and, for raw samples, its length."""
    size = fields["content-length"]
    if size > SHORT_BYTES:
        return "long"
    if "sample-rate" in fields and client.raw_seconds(fields) > SHORT_SECONDS:
        return "long"
    return "short"


async def _accept(broker: Broker, submission: Submission, on_sent: Callable[[int], None]) -> None:
    """Return once the broker has accepted the job."""
    one = submission
    if one.given:
        digest = await asyncio.to_thread(_digest_of, one.source, one.size)
        # A job with a result is done; running it again would not change that.
        if await _claim(broker, one, digest) and await stored(broker, one.tenant, one.request_id):
            return
    if one.size <= INLINE_BYTES:
        data = await asyncio.to_thread(one.source.read, one.size)
        if len(data) < one.size:
            raise QueueError("incomplete", "the file became shorter: submit it again")
        await _publish(broker, one, data, hashlib.sha256(data).digest(), None)
        return
    bucket = audio_bucket(one.tenant)
    # Never the name of another job's audio, so that no upload can replace it.
    name = f"{one.request_id}/{secrets.token_hex(8)}"
    digest = await objects.put(broker, bucket, name, one.source, one.size, on_sent)
    # The job needs its audio as soon as it may be stored, so only a certain refusal deletes it.
    try:
        is_new = await _publish(broker, one, b"", digest, name)
    except QueueError as error:
        if not error.maybe_stored:
            await objects.delete(broker, bucket, name)
        raise
    if not is_new:
        await objects.delete(broker, bucket, name)


async def _publish(
    broker: Broker, one: Submission, data: bytes, digest: bytes, object_name: str | None
) -> bool:
    """Publish the job and return whether it is, or may be, new. The message id contains the digest,
    so that only a client that has the audio can make the broker drop a job as a duplicate."""
    headers = {**one.headers, MESSAGE_ID: f"{one.tenant}/{one.request_id}/{digest.hex()}"}
    if object_name is not None:
        headers[OBJECT] = object_name
    try:
        answer = await broker.publish(job_subject(one.address), data, headers)
    except NoResponder:
        raise QueueError(
            "model_not_found",
            f"no consumer takes jobs for the model {one.address.model}: check --model, or run"
            f" scripts/queue init --model {one.address.model}",
        ) from None
    except ApiError as error:
        if _PER_SUBJECT in error.description:
            raise QueueError(
                "busy",
                f"the tenant {one.tenant} has as many unfinished {one.address.job_class} jobs as it"
                " may have: submit again later",
                error.repeated,
            ) from None
        message = f"the queue has no space ({error.description}): submit again later"
        raise QueueError(NO_SPACE, message, error.repeated) from None
    return answer["repeated"] or not answer.get("duplicate", False)


async def _claim(broker: Broker, one: Submission, digest: bytes) -> bool:
    """Claim the id for this audio, and return whether it was claimed before. Raises `QueueError`:
    `duplicate_id` if it stands for other audio."""
    subject = id_subject(one.tenant, one.request_id)
    try:
        await broker.publish(subject, digest.hex().encode(), {})
        return False
    except NoResponder:
        message = "the broker keeps no ids: run scripts/queue init"
        raise QueueError("unavailable", message) from None
    except ApiError as error:
        there = await broker.last(IDS, subject)
        if there is None:
            message = f"the broker has no space for the id ({error.description}): retry later"
            raise QueueError(NO_SPACE, message) from None
    if there.data != digest.hex().encode():
        raise QueueError(
            "duplicate_id",
            f"the id {one.request_id} belongs to other audio of the tenant {one.tenant}: choose"
            " another --id, or leave it out",
        )
    return True


def _digest_of(source: BinaryIO, size: int) -> bytes:
    """Return the SHA-256 of the next `size` bytes, and return to the position."""
    start, digest = source.tell(), hashlib.sha256()
    while size > 0 and (data := source.read(min(objects.CHUNK_BYTES, size))):
        digest.update(data)
        size -= len(data)
    source.seek(start)
    return digest.digest()
