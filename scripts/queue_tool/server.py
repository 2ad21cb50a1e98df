"""The broker's own settings, as far as a client can learn them: its version, its sync to disk."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from dataclasses import dataclass
from typing import Any

from app.queue.limits import MIN_SERVER
from queue_tool.broker import Broker, NoResponder, QueueError

MONITOR_PORT = 8222
"""The conventional port of the server's monitoring pages."""

_SECONDS = 2.0


@dataclass(frozen=True)
class ServerFacts:
    """`version` as the server writes it. `syncs_always` is None if it cannot be learned."""

    version: str
    syncs_always: bool | None


async def learn(broker: Broker) -> ServerFacts:
    values = await _varz(broker)
    config = None if values is None else (values.get("jetstream") or {}).get("config")
    return ServerFacts(
        broker.server_version, None if config is None else bool(config.get("sync_always"))
    )


def warnings(facts: ServerFacts) -> list[str]:
    """Return a sentence for each setting that breaks a promise of the queue."""
    found = []
    least = ".".join(map(str, MIN_SERVER))
    version = re.match(r"v?(\d+)\.(\d+)", facts.version)
    if version is None:
        found.append(f"the broker's version {facts.version!r} is unknown; {least} is the oldest")
    elif (int(version[1]), int(version[2])) < MIN_SERVER:
        found.append(
            f"the broker is nats-server {facts.version}, which can lose messages over leaf nodes:"
            f" install {least} or newer"
        )
    if facts.syncs_always is False:
        found.append(
            "the broker does not sync every write to disk, so a power cut loses accepted jobs: set"
            " 'sync_interval: always' in the jetstream block of its configuration"
        )
    elif facts.syncs_always is None:
        found.append(
            "it is unknown whether the broker syncs every write to disk: this user may not ask,"
            f" and no monitoring page answers at port {MONITOR_PORT}. Check that its configuration"
            " has 'sync_interval: always'"
        )
    return found


async def _varz(broker: Broker) -> dict[str, Any] | None:
    """The server's variables, over the connection if this user may ask, else over HTTP."""
    try:
        reply = await broker.request(
            f"$SYS.REQ.SERVER.{broker.server_id}.VARZ", b"{}", timeout=_SECONDS
        )
        answer: dict[str, Any] = json.loads(reply.data)
        return answer.get("data")
    except (NoResponder, asyncio.TimeoutError, QueueError, ValueError):
        pass
    if broker.host is None:
        return None
    values = await asyncio.to_thread(_read_page, broker.host)
    # Another server may listen there.
    same = values is not None and values.get("server_id") == broker.server_id
    return values if same else None


def _read_page(host: str) -> dict[str, Any] | None:
    shown = f"[{host}]" if ":" in host else host
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{shown}:{MONITOR_PORT}/varz", timeout=_SECONDS) as page:
            values = json.loads(page.read(1 << 20))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
