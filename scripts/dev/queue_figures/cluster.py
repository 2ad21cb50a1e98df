"""A broker with a queue, node processes with a stand-in engine, and a client of both."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from broker import HANG, Broker
from queue_tool import cli, objects
from queue_tool.broker import Broker as Connection
from queue_tool.broker import connected

from app.queue import names
from app.queue.broker import access
from app.queue.job import INLINE_BYTES, job_headers

ROOT = Path(__file__).resolve().parents[3]
TENANT = "bench"
_FAKE = (
    *(sys.executable, "tests/helpers/fake_node.py", "--offline", "--output", "json"),
    *("--log-format", "json", "--vad-threshold", "0"),
)


@dataclass(frozen=True)
class Audio:
    """Raw 16-bit samples, mono. No two are equal, as the broker drops equal ones of one id only."""

    data: bytes
    rate: int

    def fields(self, request_id: str) -> dict[str, Any]:
        return {
            "id": request_id,
            "byteorder": "little",
            "content-type": "audio/pcm",
            "content-encoding": "s16",
            "sample-rate": self.rate,
            "channels": 1,
            "content-length": len(self.data),
        }


def audio(size: int, rate: int = 16_000) -> Audio:
    """Noise of `size` bytes."""
    samples = np.random.default_rng().integers(-8000, 8000, size // 2, dtype=np.int16)
    return Audio(samples.astype("<i2").tobytes(), rate)


def make_broker(folder: Path) -> Broker:
    """Start a broker that syncs always, with GOMEMLIMIT as deployed, and set up the queue."""
    os.environ["GOMEMLIMIT"] = "96MiB"
    folder.mkdir()
    broker = Broker(folder)
    try:
        with (
            open(os.devnull, "w") as null,
            contextlib.redirect_stdout(null),
            contextlib.redirect_stderr(null),
        ):
            if cli.main(["init", "--tenant", TENANT, "--queue", broker.url]):
                raise RuntimeError("scripts/queue init failed")
    except BaseException:
        broker.kill()
        raise
    return broker


class NodeProcess:
    """A node whose engine sleeps `window` seconds for each window. `port` is its native port."""

    def __init__(self, url: str | None, window: float, *options: str, port: int | None = None):
        queue = [] if url is None else ["--queue", url]
        arguments = [*queue, "--port", "off" if port is None else str(port), *options]
        self.process = subprocess.Popen(
            [*_FAKE, *arguments],
            cwd=ROOT,
            env={**os.environ, "FAKE_NODE_WINDOW_SECONDS": str(window)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(HANG)

    def resident(self) -> float:
        """Its own memory in MiB, without the files that it shares with other processes."""
        return float(psutil.Process(self.process.pid).memory_full_info().uss) / 2**20


def waiting_places(broker: Broker) -> int:
    """The number of places of nodes that wait for a short job of any model."""
    page = broker.monitor("jsz?consumers=true&accounts=true")
    return sum(
        consumer["num_waiting"]
        for account in page.get("account_details", [])
        for stream in account.get("stream_detail", [])
        for consumer in stream.get("consumer_detail") or []
        if consumer["name"] == names.consumer(names.ANY_MODEL, "short")
    )


def wait_for_nodes(broker: Broker, count: int, places: int = 3) -> None:
    """Wait until `count` idle nodes of `places` places are there. One place is for long jobs."""
    wanted = count * max(1, places - 1)
    end = time.monotonic() + 3 * HANG
    while waiting_places(broker) < wanted:
        if time.monotonic() > end:
            raise RuntimeError(f"only {waiting_places(broker)} of {wanted} places are there")
        time.sleep(0.05)


class QueueClient:
    """Submits jobs and hears their results."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._results: dict[str, asyncio.Future[dict[str, Any]]] = {}

    @staticmethod
    @contextlib.asynccontextmanager
    async def of(url: str) -> Any:
        way = access((url,), None, None, owner=TENANT, name="queue_bench")
        async with connected(way) as connection:
            client = QueueClient(connection)
            await connection.client.subscribe(f"asr.result.{TENANT}.*", cb=client._take)
            await connection.client.flush()
            yield client

    async def _take(self, message: Any) -> None:
        result = json.loads(message.data)
        future = self._results.get(result["id"])
        if future is not None and not future.done():
            future.set_result(result)

    async def submit(self, sound: Audio, request_id: str = "") -> asyncio.Future[dict[str, Any]]:
        """Return once the broker has accepted the job; the future is its result."""
        request_id = request_id or secrets.token_hex(8)
        future = asyncio.get_running_loop().create_future()
        self._results[request_id] = future
        size, name = len(sound.data), None
        if size > INLINE_BYTES:
            name = request_id
            bucket = names.audio_bucket(TENANT)
            await objects.put(
                self._connection, bucket, name, io.BytesIO(sound.data), size, lambda _: None
            )
        address = names.Address(
            names.ANY_MODEL, "short" if size <= names.SHORT_BYTES else "long", TENANT
        )
        headers = job_headers(
            sound.fields(request_id),
            address,
            sent_at=time.time(),
            max_body=1 << 30,
            object_name=name,
        )
        data = b"" if name else sound.data
        await self._connection.publish(names.job_subject(address), data, headers)
        return future


class NativeClient:
    """Sends requests on one connection of the native port."""

    def __init__(self, port: int) -> None:
        end = time.monotonic() + HANG
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self._file = self._socket.makefile("rb")

    def transcribe(self, sound: Audio) -> dict[str, Any]:
        fields = {**sound.fields(secrets.token_hex(8)), "connection": "keep-alive"}
        header = json.dumps(fields).encode()
        self._socket.sendall(struct.pack("!H", len(header)) + header + sound.data)
        (length,) = struct.unpack("!H", self._file.read(2))
        reply = json.loads(self._file.read(length))
        found: dict[str, Any] = json.loads(self._file.read(reply["content-length"]))
        return found

    def close(self) -> None:
        self._file.close()
        self._socket.close()
