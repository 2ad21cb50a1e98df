"""A cluster for the tests of the queue: streams and consumers as the limits say, a submitter, and
nodes with fake engines.

`Admin` uses nats-py's JetStream, which the node does not, so that the tests notice a mistake in the
node's own use of the API.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from fakes import HANG, RAW, pcm
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    ObjectStoreConfig,
    RetentionPolicy,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from app import build
from app.queue import names
from app.queue.broker import access, connect
from app.queue.job import INLINE_BYTES, OBJECT, job_headers
from app.queue.limits import LIMITS, StreamLimits
from app.queue.names import Address, JobClass
from app.queue.result import decode_result
from app.queue.thread import QueueSettings, QueueThread

Result = TypeVar("Result")

MAX_BODY = 1 << 28
MODEL = "fake.en"


def queue_parts(url: str, places: int = 3, *, model: str = MODEL, **more: Any) -> build.QueueParts:
    """The queue of a node whose broker is at `url`."""
    reached = access((url,), None, None, owner="node", name="test")
    wish = {"model": model, "places": places, "max_body": MAX_BODY, "node": "test:1", **more}

    def new_thread(wake: Callable[[], None], fault: Callable[[], str | None]) -> QueueThread:
        return QueueThread(QueueSettings(reached, **wish), wake, fault)

    return build.QueueParts(new_thread, places)


class Admin:
    """A client of the broker that may do everything, on a thread with an asyncio loop. `ack_wait`
    of the consumers and `timeout` of an answer are in seconds."""

    def __init__(
        self, url: str, ack_wait: float = LIMITS.consumer.ack_wait, timeout: float = HANG
    ) -> None:
        self._ack_wait = ack_wait
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        reached = access((url,), None, None, owner="admin", name="test")
        self._broker = self.do(connect(reached))
        self.js = self._broker.client.jetstream(timeout=timeout)

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run `work` on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(HANG)

    def close(self) -> None:
        self.do(self._broker.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(HANG)
        self._loop.close()

    # Set up.

    def init(self, *, models: Iterable[str] = (MODEL,), tenants: Iterable[str] = ("t1",)) -> None:
        self.do(self._init(tuple(models), tuple(tenants)))

    async def _init(self, models: tuple[str, ...], tenants: tuple[str, ...]) -> None:
        pairs = [(model, kind) for model in ("any", *models) for kind in names.CLASSES]
        for stream in LIMITS.streams:
            subjects = stream.subjects or [names.consumer_filter(*pair) for pair in pairs]
            await self.js.add_stream(stream_config(stream, list(subjects)))
        for pair in pairs:
            await self.js.add_consumer(
                names.JOBS,
                ConsumerConfig(
                    durable_name=names.consumer(*pair),
                    filter_subject=names.consumer_filter(*pair),
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=self._ack_wait,
                    max_deliver=LIMITS.consumer.max_deliver,
                    max_ack_pending=LIMITS.consumer.max_ack_pending,
                    max_waiting=LIMITS.consumer.max_waiting,
                ),
            )
        for tenant in tenants:
            for bucket in (names.audio_bucket(tenant), names.results_bucket(tenant)):
                await self.js.create_object_store(bucket, ObjectStoreConfig(max_bytes=1 << 28))

    # Jobs.

    def submit(
        self,
        request_id: str,
        body: bytes,
        *,
        model: str = "any",
        job_class: JobClass = "short",
        tenant: str = "t1",
        as_object: bool | None = None,
        **fields: Any,
    ) -> None:
        """Submit raw samples. Field names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        header = {**RAW, "id": request_id, "content-length": len(body), **named}
        address = Address(model, job_class, tenant)
        large = len(body) > INLINE_BYTES if as_object is None else as_object
        headers = job_headers(
            header,
            address,
            sent_at=time.time(),
            max_body=MAX_BODY,
            object_name=request_id if large else None,
        )
        if large:
            self.put_audio(request_id, body, tenant)
        self.publish(names.job_subject(address), b"" if large else body, headers)

    def submit_samples(self, request_id: str, count: int, **more: Any) -> None:
        self.submit(request_id, pcm(count), **more)

    def publish(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        self.do(self.js.publish(subject, body, headers=headers))

    def put_audio(self, name: str, body: bytes, tenant: str = "t1") -> None:
        async def put() -> None:
            store = await self.js.object_store(names.audio_bucket(tenant))
            await store.put(name, body)

        self.do(put())

    def delete_audio(self, name: str, tenant: str = "t1") -> None:
        async def delete() -> None:
            store = await self.js.object_store(names.audio_bucket(tenant))
            await store.delete(name)

        self.do(delete())

    def damage_audio(self, name: str, tenant: str = "t1") -> None:
        """Replace the last chunk of an object by other bytes of the same length."""

        async def damage() -> None:
            bucket = names.audio_bucket(tenant)
            store = await self.js.object_store(bucket)
            nuid = (await store.get_info(name)).nuid
            subject = names.chunk_subject(bucket, nuid)
            stream = names.bucket_stream(bucket)
            last = await self.js.get_last_msg(stream, subject)
            await self.js.delete_msg(stream, last.seq)
            await self.js.publish(subject, bytes(len(last.data or b"")))

        self.do(damage())

    def pull(self, consumer: str) -> Any:
        """Take the next job, and do nothing with it."""

        async def pull() -> Any:
            subscription = await self.js.pull_subscribe_bind(consumer, names.JOBS)
            [message] = await subscription.fetch(1, timeout=HANG)
            return message

        return self.do(pull())

    def listen(self, subject: str) -> list[dict[str, Any]]:
        """Return a list that grows with the messages of a subject."""
        heard: list[dict[str, Any]] = []

        async def take(message: Any) -> None:
            heard.append(json.loads(message.data))

        async def listen() -> None:
            await self._broker.client.subscribe(subject, cb=take)
            await self._broker.client.flush()

        self.do(listen())
        return heard

    # What is there.

    def result(self, request_id: str, tenant: str = "t1") -> dict[str, Any] | None:
        """The stored result, or None."""
        return self.do(self._result(tenant, request_id))

    async def _result(self, tenant: str, request_id: str) -> dict[str, Any] | None:
        subject = names.result_subject(tenant, request_id)
        try:
            found = await self.js.get_last_msg(names.RESULTS, subject, direct=True)
        except NotFoundError:
            return None
        data = found.data or b""
        if name := (found.headers or {}).get(OBJECT):
            store = await self.js.object_store(names.results_bucket(tenant))
            data = (await store.get(name)).data or b""
        return decode_result(data)

    def wait_for(self, request_id: str, tenant: str = "t1") -> dict[str, Any]:
        """Wait for the result."""
        end = time.monotonic() + HANG
        while (found := self.result(request_id, tenant)) is None:
            assert time.monotonic() < end, f"no result of {request_id}"
            time.sleep(0.01)
        return found

    def count(self, stream: str) -> int:
        """The number of messages in a stream."""
        return self.do(self.js.stream_info(stream)).state.messages

    def held(self, consumer: str) -> int:
        """The number of jobs of a consumer that nodes hold."""
        return self.do(self.js.consumer_info(names.JOBS, consumer)).num_ack_pending

    def messages(self, stream: str) -> list[Any]:
        """All messages of a stream, oldest first."""

        async def one(sequence: int) -> Any:
            try:
                return await self.js.get_msg(stream, sequence)
            except NotFoundError:
                return None

        async def read() -> list[Any]:
            state = (await self.js.stream_info(stream)).state
            sequences = range(max(1, state.first_seq), state.last_seq + 1)
            found = [await one(sequence) for sequence in sequences]
            return [message for message in found if message is not None]

        return self.do(read())

    def audio(self, tenant: str = "t1") -> list[str]:
        """The names of a tenant's audio objects."""

        async def read() -> list[str]:
            store = await self.js.object_store(names.audio_bucket(tenant))
            try:
                return [info.name for info in await store.list(ignore_deletes=True)]
            except NotFoundError:
                return []

        return self.do(read())

    def audio_bytes(self, tenant: str = "t1") -> int:
        """The bytes of a tenant's audio on the broker's disk."""
        stream = names.bucket_stream(names.audio_bucket(tenant))
        return self.do(self.js.stream_info(stream)).state.bytes


def stream_config(stream: StreamLimits, subjects: list[str]) -> StreamConfig:
    return StreamConfig(
        name=stream.name,
        subjects=subjects,
        retention=RetentionPolicy(stream.retention),
        discard=DiscardPolicy(stream.discard),
        max_bytes=stream.max_bytes,
        max_age=stream.max_age,
        max_msgs_per_subject=stream.per_subject or -1,
        discard_new_per_subject=stream.reject_per_subject,
        duplicate_window=stream.duplicate_window,
        allow_direct=stream.allow_direct,
    )
