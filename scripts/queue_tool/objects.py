"""Objects of a bucket (JetStream's object store, ADR-20), written and read a chunk at a time.

Only the rights of a tenant are used: publishing chunks and a description, and direct reads. There
is no consumer and no purge. A chunk that is repeated after a lost answer carries a message id, so
the broker stores it once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, BinaryIO

from app.queue.names import bucket_stream, chunk_subject, object_subject
from queue_tool.broker import ApiError, Broker, NoResponder, QueueError

CHUNK_BYTES = 512 * 1024
"""Larger chunks are faster: each waits for the broker's disk."""

NO_SPACE = "no_space"


def digest_text(digest: bytes) -> str:
    """A SHA-256 in the form of the object store."""
    return "SHA-256=" + base64.urlsafe_b64encode(digest).decode()


async def put(
    broker: Broker,
    bucket: str,
    name: str,
    source: BinaryIO,
    size: int,
    on_sent: Callable[[int], None],
) -> bytes:
    """Store `size` bytes of `source` as the object `name` and return their SHA-256. `on_sent` gets
    the number of bytes stored so far.

    Raises `QueueError`: `no_space`, or `incomplete` if the source ends early. The chunks of an
    upload that failed are dropped.
    """
    nuid = secrets.token_hex(11)
    subject = chunk_subject(bucket, nuid)
    digest, sent, number = hashlib.sha256(), 0, 0
    try:
        while sent < size:
            data = await asyncio.to_thread(source.read, min(CHUNK_BYTES, size - sent))
            if not data:
                message = "the file became shorter during the upload: submit it again"
                raise QueueError("incomplete", message)
            digest.update(data)
            await _store(broker, bucket, subject, data, {"Nats-Msg-Id": f"{nuid}/{number}"})
            sent, number = sent + len(data), number + 1
            on_sent(sent)
        description = {
            "name": name,
            "bucket": bucket,
            "nuid": nuid,
            "size": size,
            "mtime": datetime.now(timezone.utc).isoformat(),
            "chunks": number,
            "digest": digest_text(digest.digest()),
            "deleted": False,
            "options": {"max_chunk_size": CHUNK_BYTES},
        }
        await _describe(broker, bucket, name, description, nuid)
    except BaseException:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(_drop_chunks(broker, bucket, nuid), 2)
        raise
    return digest.digest()


async def describe(broker: Broker, bucket: str, name: str) -> dict[str, Any] | None:
    """Return the description of an object that exists, read by its subject."""
    found = await broker.last(bucket_stream(bucket), object_subject(bucket, name))
    if found is None:
        return None
    description: dict[str, Any] = json.loads(found.data)
    return None if description.get("deleted") else description


async def get(broker: Broker, bucket: str, name: str) -> bytes | None:
    """Return the bytes of an object, or None. For results, which fit into memory.
    Raises `QueueError` (`damaged`) if they do not match the digest."""
    stream = bucket_stream(bucket)
    found = await broker.last_in(stream, object_subject(bucket, name))
    description = None if found is None else json.loads(found.data)
    if description is None or description.get("deleted"):
        return None
    parts: list[bytes] = []
    digest, sequence = hashlib.sha256(), 1
    subject = chunk_subject(bucket, description["nuid"])
    for _ in range(int(description["chunks"])):
        chunk = await broker.next(stream, subject, sequence)
        if chunk is None:
            break
        digest.update(chunk.data)
        parts.append(chunk.data)
        sequence = chunk.sequence + 1
    expected = str(description.get("digest", "")).partition("=")[2]
    with contextlib.suppress(ValueError, binascii.Error):
        # Writers differ in the padding.
        if base64.urlsafe_b64decode(expected + "=" * (-len(expected) % 4)) == digest.digest():
            return b"".join(parts)
    raise QueueError("damaged", f"the object {name} of {bucket} does not match its digest")


async def delete(broker: Broker, bucket: str, name: str) -> bool:
    """Delete an object and return whether it existed."""
    description = await describe(broker, bucket, name)
    if description is None:
        return False
    await _drop_chunks(broker, bucket, description["nuid"])
    gone = {**description, "deleted": True, "size": 0, "chunks": 0, "digest": ""}
    await _describe(broker, bucket, name, gone, f"{description['nuid']}/deleted")
    return True


async def _describe(
    broker: Broker, bucket: str, name: str, description: dict[str, Any], message_id: str
) -> None:
    headers = {"Nats-Rollup": "sub", "Nats-Msg-Id": message_id}
    data = json.dumps(description).encode()
    await _store(broker, bucket, object_subject(bucket, name), data, headers)


async def _drop_chunks(broker: Broker, bucket: str, nuid: str) -> None:
    # An empty message that replaces all others of its subject: a tenant may publish, but not purge.
    headers = {"Nats-Rollup": "sub", "Nats-Msg-Id": f"{nuid}/dropped"}
    await _store(broker, bucket, chunk_subject(bucket, nuid), b"", headers)


async def _store(
    broker: Broker, bucket: str, subject: str, data: bytes, headers: dict[str, str]
) -> None:
    try:
        await broker.publish(subject, data, headers)
    except NoResponder:
        raise QueueError(
            "tenant_not_found",
            f"there is no bucket {bucket} for this user: check --tenant and --queue-credentials, or"
            " run scripts/queue init --tenant NAME",
        ) from None
    except ApiError as error:
        message = f"the bucket {bucket} is full ({error.description}): submit again later"
        raise QueueError(NO_SPACE, message) from None
