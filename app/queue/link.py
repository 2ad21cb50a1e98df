"""Keeps the node connected to the broker, and repeats operations until they succeed.

The broker may be absent at the start, restart, or refuse the node for a while; none of that ends
the node. Queue thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from app.queue import broker
from app.queue.broker import Access, Broker, BrokerError
from app.queue.delivery import Delivery
from app.queue.events import Counts
from app.queue.jetstream import JetStream

Result = TypeVar("Result")
Operation = Callable[[JetStream], Awaitable[Result]]

_RETRY_SECONDS = (0.2, 0.8)
"""Between two attempts to connect; random, so that nodes do not come all at once."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts of an operation, doubled each time."""

_log = structlog.get_logger("queue")


class Link:
    """`on_surplus` takes a job that nobody waits for; `on_change` is called with whether the broker
    is connected, after every change."""

    def __init__(
        self,
        access: Access,
        counts: Counts,
        on_surplus: Callable[[Delivery], None],
        on_change: Callable[[bool], None],
    ) -> None:
        self._access = access
        self._counts = counts
        self._on_surplus = on_surplus
        self._on_change = on_change
        self._broker: Broker | None = None
        self._stream: JetStream | None = None
        self._connected = asyncio.Event()
        self._told = ""
        """The last complaint, so that each is logged once."""
        counts.away_since = time.monotonic()

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    async def run(self) -> None:
        """Connect, and again if the client gives up, as it does where its rights were withdrawn."""
        while True:
            try:
                await self._connect()
            except BrokerError as error:
                self._complain("the broker cannot be reached", str(error))
                await asyncio.sleep(random.uniform(*_RETRY_SECONDS))
                continue
            while self._broker is not None and not self._broker.client.is_closed:
                await asyncio.sleep(0.5)
            self._set(False)

    async def ready(self) -> JetStream:
        """Wait for the connection."""
        while True:
            await self._connected.wait()
            if self._stream is not None and self._stream.connected:
                return self._stream
            # nats-py knows already that the connection ended, and will say so in a moment.
            await asyncio.sleep(0.02)

    async def renew(self) -> JetStream:
        """Subscribe anew, for a broker that no longer answers the old subscription, and return
        that. It must live until its last requests have ended (`retire`)."""
        assert self._broker is not None
        assert self._stream is not None
        old, stream = self._stream, JetStream(self._broker, self._on_surplus)
        await stream.begin()
        self._stream = stream
        return old

    async def retire(self, stream: JetStream) -> None:
        """End a subscription; a job that still comes for its requests is a surplus."""
        await stream.close_pulls()
        with contextlib.suppress(BrokerError):
            await stream.end()

    async def persist(
        self, what: str, operation: Operation[Result], attempts: int | None = None
    ) -> Result:
        """Do it, over as many connections as it takes. With `attempts` it raises the last
        `BrokerError`."""
        pause, tried = _FIRST_PAUSE, 0
        while True:
            stream = await self.ready()
            try:
                return await operation(stream)
            except BrokerError as error:
                tried += 1
                if attempts is not None and tried >= attempts:
                    raise
                self._complain(what, str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def end(self) -> None:
        """Take no further delivery; those that still come are a surplus."""
        if self._stream is not None and self.connected:
            await self.retire(self._stream)

    async def close(self) -> None:
        if self._broker is not None:
            await self._broker.close()

    async def _connect(self) -> None:
        connected = await broker.connect(
            self._access,
            on_error=self._on_error,
            on_disconnect=self._on_disconnect,
            on_reconnect=self._on_reconnect,
        )
        self._broker = connected
        self._stream = JetStream(connected, self._on_surplus)
        try:
            await self._stream.begin()
        except BrokerError:
            await connected.close()
            raise
        self._set(True)

    async def _on_disconnect(self) -> None:
        self._set(False)

    async def _on_reconnect(self) -> None:
        self._set(True)

    async def _on_error(self, error: Exception) -> None:
        # Attempts to reconnect fail every half a second while the broker is away.
        if self.connected:
            self._complain("the broker reports an error", str(error) or type(error).__name__)

    def _set(self, connected: bool) -> None:
        if connected == self.connected:
            return
        self._counts.connected = connected
        if connected:
            self._told = ""
            self._connected.set()
            _log.info("connected to the broker", urls=list(self._access.urls))
        else:
            self._counts.away_since = time.monotonic()
            self._connected.clear()
            if self._broker is not None:
                self._broker.lose()
            _log.warning("the broker is away; results wait for it")
        self._on_change(connected)

    def _complain(self, what: str, reason: str) -> None:
        if reason != self._told:
            self._told = reason
            _log.warning(what, reason=reason)
