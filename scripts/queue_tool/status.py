"""`status`: how many jobs wait and are held, how old the oldest is, and how many are dead."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from app.queue.names import CLASSES, DEAD, JOBS, RESULTS, unescape
from queue_tool.broker import ApiError, Broker, QueueError
from queue_tool.output import print_json


async def status(broker: Broker, as_json: bool) -> int:
    """Print the state of the queue. Needs the admin's rights. Raises `QueueError`."""
    values = await state(broker)
    if as_json:
        print_json(values)
        return 0
    rows = [one for one in values["consumers"] if one["pending"] or one["held"] or one["waiting"]]
    print(f"{'MODEL':<16} {'CLASS':<6} {'PENDING':>8} {'HELD':>6} {'REDELIVERED':>12} {'IDLE':>6}")
    for one in rows:
        print(
            f"{one['model']:<16} {one['class']:<6} {one['pending']:>8} {one['held']:>6}"
            f" {one['redelivered']:>12} {one['waiting']:>6}"
        )
    oldest = values["oldest_seconds"]
    print(f"oldest job: {'none' if oldest is None else f'{oldest:.0f} s'}")
    print(f"jobs: {values['jobs']}, {values['job_bytes'] / 1e6:.1f} MB without large audio")
    print(f"dead: {values['dead']}")
    print(f"results kept: {values['results']}")
    return 0


async def state(broker: Broker) -> dict[str, Any]:
    """The state as numbers; `waiting` counts the requests of nodes with a free place."""
    jobs, dead, results = [await _stream(broker, name) for name in (JOBS, DEAD, RESULTS)]
    consumers = [_consumer(one) for one in await _consumers(broker)]
    consumers.sort(key=lambda one: (one["model"], CLASSES.index(one["class"])))
    return {
        "jobs": jobs["messages"],
        "job_bytes": jobs["bytes"],
        "pending": sum(one["pending"] for one in consumers),
        "held": sum(one["held"] for one in consumers),
        "oldest_seconds": _age(jobs),
        "dead": dead["messages"],
        "results": results["messages"],
        "consumers": consumers,
    }


def _age(stream: dict[str, Any]) -> float | None:
    if not stream["messages"]:
        return None
    # Nanoseconds are more than Python reads.
    text = str(stream["first_ts"])[:19]
    first = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    return max(0.0, (datetime.now(timezone.utc) - first).total_seconds())


def _consumer(info: dict[str, Any]) -> dict[str, Any]:
    model, _, job_class = str(info["name"]).rpartition("-")
    return {
        "model": unescape(model),
        "class": job_class,
        "pending": info["num_pending"],
        "held": info["num_ack_pending"],
        "redelivered": info["num_redelivered"],
        "waiting": info["num_waiting"],
    }


async def _stream(broker: Broker, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = (await broker.api(f"STREAM.INFO.{name}"))["state"]
    except ApiError as error:
        message = f"there is no stream {name} ({error}): run scripts/queue init"
        raise QueueError("not_set_up", message) from None
    return found


async def _consumers(broker: Broker) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = await broker.api(f"CONSUMER.LIST.{JOBS}", {"offset": len(found)})
        found += page["consumers"] or []
        if not page["consumers"] or len(found) >= page["total"]:
            return [one for one in found if str(one["name"]).endswith(("-short", "-long"))]
