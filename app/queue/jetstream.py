"""JetStream's operations that the node uses, by the subjects of its API. Queue thread only.

nats-py's own pull subscriptions are not used: they leave orphaned requests behind (nats.py#933) and
do not renew requests after a reconnection (nats.py#504). Every method raises `BrokerError`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from app.queue import names
from app.queue.broker import Broker, BrokerError, Message
from app.queue.delivery import Delivery

_CHUNK_SECONDS = 60.0
"""Time for the next chunk of 512 KiB, enough at 10 kB/s."""

_ANSWER_SECONDS = 3.0
"""Time for the confirmation of an acknowledgement or a hand-back. A broker that was restarted does
not confirm that of a job which another node has ended."""

_LATE_SECONDS = 0.3
"""Time for the broker's word that a request has ended."""

_SUBJECT_FULL = 10_077
"""JetStream's code for a subject that already has its most messages."""

_ACK = "$JS.ACK."
"""The reply subject of a job begins with it; a status has none."""


class Pull:
    """One request for one job. `answer` is the delivery, None at its end without one; `absent` is
    true if there is no such consumer."""

    def __init__(self, token: str, consumer: str) -> None:
        self.token = token
        self.consumer = consumer
        self.absent = False
        self.answer: asyncio.Future[Delivery | None] = asyncio.get_running_loop().create_future()


class JetStream:
    """The operations over `broker`. A job that comes for a pull which was dropped meanwhile is
    passed to `on_surplus`."""

    def __init__(self, broker: Broker, on_surplus: Callable[[Delivery], None]) -> None:
        self._broker = broker
        self._on_surplus = on_surplus
        self._inbox = broker.new_inbox()
        self._pulls: dict[str, Pull] = {}
        """The pulls that wait, oldest first, by token: the last part of their reply subject."""
        self._open: dict[str, tuple[str, float]] = {}
        """The consumer of each pull and the time when it is over at the broker, dropped or not."""
        self._batches: dict[str, asyncio.Queue[Message]] = {}
        self._numbers = 0

    async def begin(self) -> None:
        """Subscribe to the answers. Call it once."""
        await self._broker.subscribe(f"{self._inbox}.*", self._on_answer)

    async def end(self) -> None:
        """End the subscription; what the broker sent before has been passed on."""
        await self._broker.unsubscribe(f"{self._inbox}.*")

    @property
    def connected(self) -> bool:
        return self._broker.connected

    # Jobs.

    async def pull(self, consumer: str, wait: float) -> Pull:
        """Ask for one job within `wait` seconds; 0 takes one that is there."""
        token = self._token()
        pull = self._pulls[token] = Pull(token, consumer)
        wish = {"expires": int(wait * 1e9)} if wait else {"no_wait": True}
        now = time.monotonic()
        self._open = {key: pull for key, pull in self._open.items() if pull[1] > now}
        self._open[token] = consumer, now + wait + _LATE_SECONDS
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{names.JOBS}.{consumer}"
        try:
            await self._broker.publish(subject, _json({"batch": 1, **wish}), self._reply(token))
        except BrokerError:
            self.drop(pull)
            raise
        return pull

    def drop(self, pull: Pull) -> None:
        """Forget a pull. The broker does not know: it may still send a job for it."""
        self._pulls.pop(pull.token, None)
        pull.answer.cancel()

    async def close_pulls(self) -> None:
        """Wait until the broker sends no further job."""
        while any(end > time.monotonic() for _, end in self._open.values()):
            await asyncio.sleep(0.01)

    async def progress(self, delivery: Delivery) -> None:
        """Renew the lease for another `ack_wait`."""
        await self._broker.publish(delivery.reply, b"+WPI")

    async def hand_back(self, delivery: Delivery, delay: float) -> None:
        """Have the job delivered again after `delay` seconds."""
        wish = b"-NAK" if not delay else b"-NAK " + _json({"delay": int(delay * 1e9)})
        await self._broker.request(delivery.reply, wish, seconds=_ANSWER_SECONDS)

    async def ack(self, delivery: Delivery) -> None:
        """Remove the job; returns once the broker has done it."""
        await self._broker.request(delivery.reply, b"+ACK", seconds=_ANSWER_SECONDS)

    async def pending(self, consumer: str) -> int | None:
        """Return the number of jobs that wait at a consumer; None if the node may not know it."""
        subject = f"$JS.API.CONSUMER.INFO.{names.JOBS}.{consumer}"
        try:
            fields = _object((await self._broker.request(subject, b"")).data)
        except BrokerError:
            return None
        return None if "error" in fields else int(fields.get("num_pending", 0))

    # Streams and buckets.

    async def store(self, subject: str, data: bytes, headers: Mapping[str, str]) -> bool:
        """Publish to a stream; return False if the stream has it already."""
        reply = await self._broker.request(subject, data, headers)
        fields = _object(reply.data)
        error = fields.get("error")
        if error is None and "stream" in fields:
            return not fields.get("duplicate", False)
        if error is not None and error.get("err_code") == _SUBJECT_FULL:
            return False
        reason = "no stream" if error is None else str(error.get("description"))
        raise BrokerError(f"{subject}: {reason}")

    async def announce(self, subject: str, data: bytes) -> None:
        """Publish to whoever listens."""
        await self._broker.publish(subject, data)

    async def last(self, stream: str, subject: str) -> bytes | None:
        """Return the last message of a subject, None if there is none."""
        return await self._get(stream, f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")

    async def last_of_bucket(self, stream: str, subject: str) -> bytes | None:
        """The same by a request that names only the stream, which one line of rights allows."""
        wish = _json({"last_by_subj": subject})
        return await self._get(stream, f"$JS.API.DIRECT.GET.{stream}", wish)

    async def _get(self, stream: str, subject: str, wish: bytes) -> bytes | None:
        reply = await self._broker.request(subject, wish)
        status = _status(reply)
        if status not in ("", "404"):
            raise BrokerError(f"reading {stream}: status {status}")
        return None if status else reply.data

    async def batch(
        self, stream: str, subject: str, sequence: int, count: int
    ) -> list[tuple[int, bytes]]:
        """Return up to `count` messages of `subject` from `sequence` on, each with its sequence."""
        token = self._token()
        arrived = self._batches[token] = asyncio.Queue[Message]()
        wish = {"seq": sequence, "batch": count, "next_by_subj": subject}
        messages: list[tuple[int, bytes]] = []
        try:
            await self._broker.publish(
                f"$JS.API.DIRECT.GET.{stream}", _json(wish), self._reply(token)
            )
            while len(messages) < count:
                message = await self._broker.unless_lost(arrived.get(), _CHUNK_SECONDS)
                status = _status(message)
                if status in ("204", "404"):
                    break
                if status:
                    raise BrokerError(f"reading {stream}: status {status}")
                messages.append((int(message.headers["Nats-Sequence"]), message.data))
        except (KeyError, ValueError):
            raise BrokerError(f"reading {stream}: a message without a sequence") from None
        finally:
            del self._batches[token]
        return messages

    async def roll_up(self, subject: str, data: bytes = b"") -> None:
        """Replace all messages of a subject by one; a node has no right to purge."""
        await self.store(subject, data, {"Nats-Rollup": "sub"})

    async def put_object(self, bucket: str, name: str, data: bytes, chunk_bytes: int) -> None:
        """Store an object in the layout of JetStream's object store (ADR-20)."""
        nuid = random.randbytes(11).hex()
        chunks = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
        for chunk in chunks:
            await self.store(names.chunk_subject(bucket, nuid), chunk, {})
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
        description = {
            "name": name,
            "bucket": bucket,
            "nuid": nuid,
            "size": len(data),
            "chunks": len(chunks),
            "digest": f"SHA-256={digest}",
            "options": {"max_chunk_size": chunk_bytes},
        }
        await self.roll_up(names.object_subject(bucket, name), _json(description))

    async def delete_object(self, bucket: str, name: str, nuid: str) -> None:
        """Delete an object, its description last, so that an interrupted deletion is repeated."""
        await self.roll_up(names.chunk_subject(bucket, nuid))
        gone = {"name": name, "bucket": bucket, "nuid": nuid, "size": 0, "chunks": 0}
        await self.roll_up(names.object_subject(bucket, name), _json({**gone, "deleted": True}))

    # Answers.

    def _token(self) -> str:
        self._numbers += 1
        return str(self._numbers)

    def _reply(self, token: str) -> str:
        return f"{self._inbox}.{token}"

    def _on_answer(self, message: Message) -> None:
        if message.reply.startswith(_ACK):
            # A job has its own subject, which does not say for which pull it was sent.
            self._on_job(_delivery(message))
            return
        token = message.subject.rpartition(".")[2]
        self._open.pop(token, None)
        if token in self._batches:
            self._batches[token].put_nowait(message)
        elif (pull := self._pulls.pop(token, None)) is not None and not pull.answer.done():
            pull.absent = _status(message) == "503"
            pull.answer.set_result(None)

    def _on_job(self, delivery: Delivery) -> None:
        for token, (consumer, _) in self._open.items():
            if consumer == delivery.consumer:
                del self._open[token]
                break
        for pull in self._pulls.values():
            if pull.consumer == delivery.consumer and not pull.answer.done():
                del self._pulls[pull.token]
                pull.answer.set_result(delivery)
                return
        self._on_surplus(delivery)


def _delivery(message: Message) -> Delivery:
    # $JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.ORDER.TIME.PENDING; a server with a domain puts it
    # and an account's hash before the stream, and a token after the end.
    parts = message.reply.split(".")[2:]
    if len(parts) > 7:
        parts = parts[2:]
    return Delivery(
        subject=message.subject,
        headers=message.headers,
        data=message.data,
        reply=message.reply,
        sequence=int(parts[3]),
        delivered=int(parts[2]),
        consumer=parts[1],
    )


def _status(message: Message) -> str:
    # A status has no body; a stored message with such a header has its sequence beside it.
    if message.data or "Nats-Sequence" in message.headers:
        return ""
    return message.headers.get("Status", "")


def _object(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise BrokerError("the answer is not JSON; is there a stream for this subject?")
    return fields


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(fields)).encode()
