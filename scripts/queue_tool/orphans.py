"""Audio in a tenant's bucket that no job names: its upload broke off, or its submitter died before
the job was published. `init` removes such audio after a day, and the descriptions of deleted audio.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from app.queue.job import OBJECT
from app.queue.names import DEAD, JOBS, audio_bucket, bucket_stream, chunk_subject
from queue_tool.broker import ApiError, Broker, QueueError, Stored

OLD_SECONDS = 86_400.0
"""No upload takes so long."""


@dataclass(frozen=True)
class _Object:
    name: str
    subject: str
    nuid: str
    deleted: bool
    size: int


async def sweep(broker: Broker, tenant: str) -> list[str]:
    """Remove the orphans of a tenant and return a phrase for each. Raises `QueueError`."""
    bucket = audio_bucket(tenant)
    stream = bucket_stream(bucket)
    subjects = await _subjects(broker, stream, f"$O.{bucket}.>")
    objects = [one async for one in _objects(broker, stream, subjects, bucket)]
    described = {chunk_subject(bucket, one.nuid) for one in objects}
    old = {one.subject for one in objects if await _is_old(broker, stream, one.subject)}
    candidates = [one for one in objects if one.subject in old]
    needed: set[str] = set()
    if any(not one.deleted for one in candidates):
        needed = await _named(broker, tenant)
    removed = []
    for one in candidates:
        if one.deleted or one.name not in needed:
            await _purge(broker, stream, chunk_subject(bucket, one.nuid), one.subject)
            if not one.deleted:
                removed.append(f"audio {one.name} of {tenant}, {one.size} bytes that no job names")
    for subject in subjects:
        is_chunk = subject.startswith(f"$O.{bucket}.C.")
        if is_chunk and subject not in described and await _is_old(broker, stream, subject):
            await _purge(broker, stream, subject)
            removed.append(f"an unfinished upload of {tenant}")
    return removed


async def _subjects(broker: Broker, stream: str, pattern: str) -> list[str]:
    state = (await _api(broker, f"STREAM.INFO.{stream}", {"subjects_filter": pattern}))["state"]
    return list(state.get("subjects") or {})


async def _objects(
    broker: Broker, stream: str, subjects: list[str], bucket: str
) -> AsyncIterator[_Object]:
    for subject in subjects:
        if not subject.startswith(f"$O.{bucket}.M."):
            continue
        found = await broker.last_in(stream, subject)
        if found is None:
            continue
        try:
            fields = json.loads(found.data)
            yield _Object(
                str(fields["name"]),
                subject,
                str(fields["nuid"]),
                bool(fields.get("deleted")),
                int(fields.get("size", 0)),
            )
        except (ValueError, KeyError, TypeError):
            continue


async def _named(broker: Broker, tenant: str) -> set[str]:
    """Return the names of the objects that jobs and dead jobs of the tenant name."""
    names: set[str] = set()
    for stream, pattern in ((JOBS, f"asr.job.*.*.{tenant}"), (DEAD, "asr.dead.*")):
        sequence = 1
        while message := await broker.next(stream, pattern, sequence):
            sequence = message.sequence + 1
            names.update(_object_name(message))
    return names


def _object_name(message: Stored) -> Iterator[str]:
    if name := message.headers.get(OBJECT):
        yield name


async def _is_old(broker: Broker, stream: str, subject: str) -> bool:
    first = await broker.next(stream, subject, 1)
    if first is None:
        return False
    # Nanoseconds are more than Python reads.
    text = re.sub(r"(\.\d+)?Z$", "", first.stored_at)
    stored = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    return (datetime.now(timezone.utc) - stored).total_seconds() > OLD_SECONDS


async def _purge(broker: Broker, stream: str, *subjects: str) -> None:
    for subject in subjects:
        await _api(broker, f"STREAM.PURGE.{stream}", {"filter": subject})


async def _api(broker: Broker, verb: str, body: dict[str, str]) -> dict[str, Any]:
    try:
        return await broker.api(verb, body)
    except ApiError as error:
        raise QueueError("broker_error", f"the broker rejects {verb}: {error}") from None
