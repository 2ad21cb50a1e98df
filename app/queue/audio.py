"""Reads the audio of a job from its object, a few chunks at a time. Queue thread only.

The chunks go to the loop, which writes them to the spool and returns credit for each, so that no
more than a few are in memory. The layout is that of JetStream's object store (ADR-20): a
description with size and SHA-256, and chunks on a subject of their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from app.messages import INCOMPLETE, Failure
from app.queue import names
from app.queue.events import Chunk, Counts, QueueEvent
from app.queue.jetstream import JetStream
from app.queue.lease import Lease
from app.queue.link import Link

_BATCH = 2
"""Chunks per request. They share the connection with the answers for other jobs, which wait for
them on a slow link."""


@dataclass(frozen=True, slots=True)
class Description:
    """An object as its description says; `digest` is SHA-256."""

    nuid: str
    size: int
    digest: bytes


async def describe(stream: JetStream, bucket: str, name: str) -> Description | None:
    """Return the description of an object; None if it does not exist or cannot be read."""
    data = await stream.last_of_bucket(
        names.bucket_stream(bucket), names.object_subject(bucket, name)
    )
    try:
        fields = json.loads(data or b"")
        kind, _, digest = fields["digest"].partition("=")
        if kind != "SHA-256" or fields.get("deleted", False):
            return None
        return Description(
            str(fields["nuid"]), int(fields["size"]), base64.urlsafe_b64decode(digest)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


async def fetch(
    lease: Lease,
    size: int,
    link: Link,
    report: Callable[[QueueEvent], None],
    counts: Counts,
) -> Failure | None:
    """Report the chunks of a job's object of `size` bytes. Return why it is unusable, if it is."""
    bucket = names.audio_bucket(lease.address.tenant)
    name = lease.object_name or ""
    found = await link.persist("cannot read audio", lambda stream: describe(stream, bucket, name))
    if found is None:
        return Failure(INCOMPLETE, "the audio is not in the bucket; submit the job again")
    if found.size != size:
        message = f"content-length does not fit the {found.size} bytes of the audio"
        return Failure(INCOMPLETE, message)
    stream_name = names.bucket_stream(bucket)
    subject = names.chunk_subject(bucket, found.nuid)
    digest, received, sequence = hashlib.sha256(), 0, 1
    while received < size:
        batch = await link.persist(
            "cannot read audio",
            lambda stream, at=sequence: stream.batch(stream_name, subject, at, _BATCH),  # type: ignore[misc]
        )
        if not batch:
            return Failure(INCOMPLETE, "a part of the audio is missing; submit the job again")
        for number, data in batch:
            sequence = number + 1
            received += len(data)
            counts.fetched_bytes += len(data)
            digest.update(data)
            if received > size:
                break
            await lease.credit.acquire()
            report(Chunk(lease.number, data))
    if received != size or digest.digest() != found.digest:
        return Failure(INCOMPLETE, "the audio does not match its digest; submit the job again")
    return None


async def delete(stream: JetStream, tenant: str, name: str) -> None:
    """Delete an object, if it exists."""
    bucket = names.audio_bucket(tenant)
    found = await describe(stream, bucket, name)
    if found is not None:
        await stream.delete_object(bucket, name, found.nuid)
