"""`result`, and waiting for results: live by subject, and from the stream after a break."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from nats.aio.msg import Msg

from app.queue.job import OBJECT
from app.queue.names import RESULTS, result_subject, results_bucket
from app.queue.result import decode_result
from queue_tool import objects
from queue_tool.broker import Broker, NoResponder, QueueError

_OBJECT_LOOKS, _OBJECT_SECONDS = 20, 0.5
"""Looks for the object of a large result, and the time between two of them."""

LOOK_SECONDS = 5.0
"""A waiting client also looks into the stream, because a message on the subject is lost while the
connection is down."""


async def stored(broker: Broker, tenant: str, request_id: str) -> dict[str, Any] | None:
    """Return the stored result of a job, or None. Raises `QueueError`."""
    try:
        found = await broker.last(RESULTS, result_subject(tenant, request_id))
    except NoResponder:
        raise QueueError(
            "tenant_not_found",
            f"no results of tenant {tenant} can be read: check --tenant and --queue-credentials, or"
            " run scripts/queue init",
        ) from None
    return None if found is None else await _decode(broker, tenant, found.headers, found.data)


async def _arrived(broker: Broker, tenant: str, name: str) -> bytes | None:
    """Return the object of a large result; None if it does not come. At a site the object can
    arrive after the result that names it, and piece by piece. Raises `QueueError`."""
    for _ in range(_OBJECT_LOOKS):
        with contextlib.suppress(QueueError):
            if (found := await objects.get(broker, results_bucket(tenant), name)) is not None:
                return found
        await asyncio.sleep(_OBJECT_SECONDS)
    return await objects.get(broker, results_bucket(tenant), name)


async def _decode(
    broker: Broker, tenant: str, headers: dict[str, str], data: bytes
) -> dict[str, Any]:
    name = headers.get(OBJECT)
    if name is not None:
        large = await _arrived(broker, tenant, name)
        if large is None:
            message = f"the result {name} is too large for a message, and its object is gone"
            raise QueueError("not_found", message)
        data = large
    try:
        return decode_result(data)
    except ValueError:
        raise QueueError("damaged", "the result on the broker is not a result") from None


class Waiting:
    """The result of one job, awaited from before the job is submitted."""

    def __init__(self, broker: Broker, tenant: str, request_id: str) -> None:
        self._broker = broker
        self._tenant = tenant
        self._id = request_id
        self._arrived: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._subscription: Any = None

    async def start(self) -> None:
        subject = result_subject(self._tenant, self._id)
        self._subscription = await self._broker.client.subscribe(subject, cb=self._on_message)

    async def _on_message(self, message: Msg) -> None:
        if not self._arrived.done():
            self._arrived.set_result(message)

    async def result(self) -> dict[str, Any]:
        """Wait without a limit. Raises `QueueError` if the result cannot be read."""
        try:
            while True:
                await asyncio.wait({self._arrived}, timeout=LOOK_SECONDS)
                if self._arrived.done():
                    message = self._arrived.result()
                    headers = {str(name): value for name, value in (message.headers or {}).items()}
                    return await _decode(self._broker, self._tenant, headers, message.data)
                if not self._broker.client.is_connected:
                    continue
                found = await stored(self._broker, self._tenant, self._id)
                if found is not None:
                    return found
        finally:
            await self.stop()

    async def stop(self) -> None:
        if self._subscription is not None and not self._broker.client.is_closed:
            subscription, self._subscription = self._subscription, None
            await subscription.unsubscribe()


async def fetch(broker: Broker, tenant: str, request_id: str, wait: bool) -> dict[str, Any]:
    """Return a result for `result ID`. Raises `QueueError`: `not_found` if there is none yet."""
    found = await stored(broker, tenant, request_id)
    if found is None and wait:
        waiting = Waiting(broker, tenant, request_id)
        await waiting.start()
        found = await waiting.result()
    if found is None:
        raise QueueError(
            "not_found",
            f"there is no result for {request_id}: its job is not done, or its result is older than"
            " a day, or the id or --tenant is wrong; --wait waits for it",
        )
    return found
