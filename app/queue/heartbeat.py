"""Renews the leases of all jobs that the node holds, while the node shows signs of life.

A node that hangs must lose its jobs and get no others, so `fault` is asked first: it returns why
the node is stuck. Queue thread only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from app.queue.broker import BrokerError
from app.queue.leases import Leases
from app.queue.link import Link

SECONDS = 10.0
"""Between two heartbeats: two may be late before a lease of 30 s runs out."""

_log = structlog.get_logger("queue")


class Heartbeat:
    """For the jobs of `leases`."""

    def __init__(self, link: Link, leases: Leases, fault: Callable[[], str | None]) -> None:
        self._link = link
        self._leases = leases
        self._fault = fault

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SECONDS)
            reason = self._fault()
            if reason is not None and not self._leases.stuck:
                _log.critical(
                    "stopped renewing leases; other nodes will get the jobs", reason=reason
                )
            self._leases.stuck = reason is not None
            await self.beat()

    async def beat(self) -> None:
        """Renew once, unless the node is stuck."""
        if self._leases.stuck or not self._link.connected:
            return
        stream = await self._link.ready()
        try:
            for lease in self._leases.held:
                await stream.progress(lease.delivery)
        except BrokerError as error:
            _log.warning("cannot renew leases", error=str(error))
