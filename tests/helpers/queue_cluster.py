"""A broker with the users of deploy/queue, and a stand-in node.

`Cluster` starts a real server with deploy/queue/accounts.conf and one more tenant, which is added
as that file describes. `StandIn` answers jobs in a thread of its own: the text of a result is the
SHA-256 of the audio that it received.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from broker import HANG, Broker
from queue_tool.key import make_key

from app.queue import names
from app.queue.broker import Broker as Connection
from app.queue.broker import access, connect
from app.queue.delivery import Delivery
from app.queue.jetstream import JetStream
from app.queue.job import HEADER, INLINE_BYTES, OBJECT
from app.queue.limits import LIMITS
from app.queue.result import encode_result, result_message_id, result_object

ROOT = Path(__file__).resolve().parents[2]
ACCOUNTS = ROOT / "deploy" / "queue" / "accounts.conf"
USERS = ("admin", "worker", "home", "office")


def with_tenant(accounts: str, tenant: str) -> str:
    """Add a tenant by the recipe in accounts.conf: its line, and a copy of the block of "home"."""
    line = re.search(r"^ *\{[^\n]*OBJ_asr-audio-home\" \} \}\n(?=    \]\n    # The tenants)",
                     accounts, re.MULTILINE)  # fmt: skip
    block = re.search(r"^  HOME \{\n.*?^  \}\n", accounts, re.MULTILINE | re.DOTALL)
    assert line
    assert block
    copied = block[0].replace("HOME", tenant.upper()).replace("home", tenant)
    added = accounts.replace(block[0], block[0] + copied)
    return added.replace(line[0], line[0] + line[0].replace("home", tenant))


class Cluster:
    """A broker whose users are admin, worker, and the tenants home and office."""

    def __init__(self, make_broker: Callable[..., Broker], folder: Path) -> None:
        self.seeds = {user: folder / f"{user}.nk" for user in USERS}
        text = with_tenant(ACCOUNTS.read_text(), "office")
        for user, path in self.seeds.items():
            with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
                make_key(path)
            text = f'{user.upper()}_KEY: "{public_key(path)}"\n{text}'
        self.broker = make_broker(text)

    @property
    def url(self) -> str:
        return self.broker.url

    def options(self, user: str) -> list[str]:
        """The options of scripts/queue for one of the users."""
        return ["--queue", self.url, "--queue-credentials", str(self.seeds[user])]

    async def connect(self, user: str) -> Connection:
        owner = {"worker": "node"}.get(user, user)
        return await connect(access((self.url,), self.seeds[user], None, owner=owner, name=user))


def public_key(path: Path) -> str:
    from app.queue.credentials import read_credentials

    key = read_credentials(path).public_key
    assert key is not None
    return key


class StandIn:
    """A worker on its own thread, for the class short and long of `model`, until it is stopped.

    `reply` makes the fields of the result from the id and the audio's digest.
    """

    def __init__(
        self,
        connection: Callable[[], Coroutine[Any, Any, Connection]],
        model: str = names.ANY_MODEL,
        reply: Callable[[str, str], dict[str, Any]] | None = None,
    ) -> None:
        self._connection = connection
        self._model = model
        self._reply = reply or result
        self.jobs: list[tuple[str, str]] = []
        """Subject and id of each job done."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._stop = threading.Event()
        self.failure: BaseException | None = None

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(HANG)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure

    async def _run(self) -> None:
        connection = await self._connection()
        try:
            jetstream = JetStream(connection, lambda _: None)
            await jetstream.begin()
            while not self._stop.is_set():
                for job_class in names.CLASSES:
                    pull = await jetstream.pull(names.consumer(self._model, job_class), 0.05)
                    delivery = await asyncio.wait_for(pull.answer, HANG)
                    if delivery is not None:
                        await self._serve(jetstream, delivery)
        except BaseException as error:
            self.failure = error
        finally:
            await connection.close()

    async def _serve(self, jetstream: JetStream, delivery: Delivery) -> None:
        address = names.parse_job_subject(delivery.subject)
        request_id = json.loads(delivery.headers[HEADER])["id"]
        name = delivery.headers.get(OBJECT)
        audio = delivery.data
        if name is not None:
            audio = await read_object(jetstream, names.audio_bucket(address.tenant), name)
        fields = self._reply(request_id, hashlib.sha256(audio).hexdigest())
        data, headers = encode_result(fields), {}
        headers["Nats-Msg-Id"] = result_message_id(address.tenant, request_id, delivery.sequence)
        if len(data) > INLINE_BYTES:
            headers[OBJECT] = result_object(request_id, delivery.sequence, delivery.delivered)
            bucket = names.results_bucket(address.tenant)
            chunk = LIMITS.large_results.chunk_bytes
            await jetstream.put_object(bucket, headers[OBJECT], data, chunk)
            data = b""
        await jetstream.store(names.result_subject(address.tenant, request_id), data, headers)
        await jetstream.ack(delivery)
        self.jobs.append((delivery.subject, request_id))


async def read_object(jetstream: JetStream, bucket: str, name: str) -> bytes:
    """Read an object with the rights of a worker: direct reads of the bucket's stream."""
    stream = names.bucket_stream(bucket)
    described = await jetstream.batch(stream, names.object_subject(bucket, name), 1, 1)
    chunks = names.chunk_subject(bucket, json.loads(described[-1][1])["nuid"])
    parts: list[bytes] = []
    sequence = 1
    while found := await jetstream.batch(stream, chunks, sequence, 4):
        parts += [data for _, data in found]
        sequence = found[-1][0] + 1
    return b"".join(parts)


def result(request_id: str, text: str, **more: Any) -> dict[str, Any]:
    """The fields of a transcript of one segment."""
    segment = {"start": 0.0, "end": 1.5, "text": text, "confidence": 0.9}
    return {
        "id": request_id,
        "status": "ok",
        "text": text,
        "language": "en",
        "segments": [segment],
        "node": "stand-in",
        "delivered": 1,
        **more,
    }


@contextlib.contextmanager
def running(*stand_ins: StandIn) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for one in stand_ins:
            stack.enter_context(one)
        yield
