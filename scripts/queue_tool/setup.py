"""`init`: makes the streams, consumers and buckets. It may run again at any time: it creates the
missing ones, says which settings differ, and changes those only with --update."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from app.model_files import catalog
from app.queue.limits import LIMITS, StreamLimits
from app.queue.names import (
    ANY_MODEL,
    CLASSES,
    audio_bucket,
    bucket_stream,
    queue_model,
    results_bucket,
)
from queue_tool import configs, orphans, server
from queue_tool.broker import ApiError, Broker, QueueError
from queue_tool.configs import Config

_NO_STREAM, _NO_CONSUMER = 10059, 10014
_NO_STORAGE = frozenset({10023, 10028, 10047})


async def init(broker: Broker, tenants: Sequence[str], models: Sequence[str], update: bool) -> int:
    """Set up the queue. `models` are those beside the catalogue's. Returns the exit status.
    Raises `QueueError`."""
    for warning in server.warnings(await server.learn(broker)):
        print(f"warning: {warning}", file=sys.stderr)
    names = list(dict.fromkeys([ANY_MODEL, *catalogue_models(), *map(queue_model, models)]))
    setup = _Setup(broker, update)
    await setup.streams(names)
    await setup.consumers(names)
    for tenant in tenants:
        await setup.buckets(tenant)
        await setup.sweep(tenant)
    for warning in await setup.age_warnings(tenants):
        print(f"warning: {warning}", file=sys.stderr)
    setup.report(names, tenants)
    return 0


def catalogue_models() -> list[str]:
    """The models of the catalogue, without their quantizations."""
    return list(dict.fromkeys(entry.model for entry in catalog.entries()))


class _Setup:
    def __init__(self, broker: Broker, update: bool) -> None:
        self._broker = broker
        self._update = update
        self._created: list[str] = []
        self._updated: list[str] = []
        self._different: list[str] = []
        self._removed: list[str] = []

    async def streams(self, models: Sequence[str]) -> None:
        for limits in LIMITS.streams:
            await self._stream(configs.stream_config(limits, _subjects(limits, models)))

    async def buckets(self, tenant: str) -> None:
        for bucket, limits in (
            (audio_bucket(tenant), LIMITS.audio),
            (results_bucket(tenant), LIMITS.large_results),
        ):
            await self._stream(configs.bucket_config(bucket, limits))

    async def sweep(self, tenant: str) -> None:
        """Remove audio that no job names, once it is a day old."""
        self._removed += await orphans.sweep(self._broker, tenant)

    async def consumers(self, models: Sequence[str]) -> None:
        stream = LIMITS.jobs.name
        for model in models:
            for job_class in CLASSES:
                wanted = configs.consumer_config(model, job_class, LIMITS.consumer)
                name = wanted["durable_name"]
                body = {"stream_name": stream, "config": wanted}
                there = await self._info(f"CONSUMER.INFO.{stream}.{name}", _NO_CONSUMER)
                if there is None:
                    await self._apply(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body)
                    self._created.append(f"consumer {name}")
                elif self._differs(f"consumer {name}", there, wanted):
                    body["config"] = {**there, **wanted}
                    await self._apply(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body)

    async def _stream(self, wanted: Config) -> None:
        name = wanted["name"]
        there = await self._info(f"STREAM.INFO.{name}", _NO_STREAM)
        if there is None:
            await self._apply(f"STREAM.CREATE.{name}", wanted)
            self._created.append(f"stream {name}")
            return
        subjects = list(dict.fromkeys([*there.get("subjects", ()), *wanted["subjects"]]))
        changed = self._differs(f"stream {name}", there, wanted)
        config = {**there, **(wanted if changed else {}), "subjects": subjects}
        if changed or len(subjects) > len(there.get("subjects", ())):
            await self._apply(f"STREAM.UPDATE.{name}", config)
            if not changed:
                self._updated.append(f"stream {name}: subjects added")

    def _differs(self, what: str, there: Config, wanted: Config) -> bool:
        """Note the differences and return whether to change them."""
        found = [f"{what}: {phrase}" for phrase in configs.differences(there, wanted)]
        (self._updated if self._update else self._different).extend(found)
        return bool(found) and self._update

    async def _info(self, verb: str, missing: int) -> Config | None:
        try:
            config: Config = (await self._broker.api(verb))["config"]
        except ApiError as error:
            if error.number == missing:
                return None
            raise _failed(verb, error) from None
        return config

    async def _apply(self, verb: str, body: dict[str, Any]) -> None:
        try:
            await self._broker.api(verb, body)
        except ApiError as error:
            raise _failed(verb, error) from None

    async def age_warnings(self, tenants: Sequence[str]) -> list[str]:
        """Sentences about objects that would end before the messages that name them."""

        async def age(stream: str) -> float:
            config = await self._info(f"STREAM.INFO.{stream}", _NO_STREAM)
            return float((config or {}).get("max_age", 0)) or float("inf")

        jobs, dead = await age(LIMITS.jobs.name), await age(LIMITS.dead.name)
        results = await age(LIMITS.results.name)
        found = []
        for tenant in tenants:
            if await age(stream := bucket_stream(audio_bucket(tenant))) < jobs + dead:
                found.append(f"{stream}: audio ends before the jobs that name it: raise max_age")
            if await age(stream := bucket_stream(results_bucket(tenant))) < results:
                found.append(f"{stream}: large results end before their record: raise max_age")
        if jobs != float("inf"):
            found.append(f"{LIMITS.jobs.name}: jobs older than max_age are lost in silence")
        return found

    def report(self, models: Sequence[str], tenants: Sequence[str]) -> None:
        for what, lines in (
            ("created", self._created),
            ("updated", self._updated),
            ("removed", self._removed),
            ("differs, left as it is (--update changes it)", self._different),
        ):
            for line in lines:
                print(f"{what}: {line}")
        print(f"ready: {len(models)} models, tenants {', '.join(tenants)}")


def _subjects(limits: StreamLimits, models: Sequence[str]) -> Sequence[str]:
    return configs.job_subjects(models) if limits.name == LIMITS.jobs.name else limits.subjects


def _failed(verb: str, error: ApiError) -> QueueError:
    if error.number in _NO_STORAGE:
        message = (
            f"the broker has too little storage for {verb.rpartition('.')[2]}: raise max_file_store"
            f" in its configuration, or free disk space ({error.description})"
        )
        return QueueError("no_space", message)
    return QueueError("broker_error", f"the broker rejects {verb}: {error}")
