"""`init`: makes the streams, consumers and buckets. It may run again at any time: it creates the
missing ones, says which settings differ, and changes those only with --update."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.model_files import catalog
from app.queue.limits import LIMITS, StreamLimits
from app.queue.names import (
    ANY_MODEL,
    CLASSES,
    audio_bucket,
    bucket_stream,
    escape,
    queue_model,
    results_bucket,
)
from queue_tool import configs, orphans, server
from queue_tool.broker import ApiError, Broker, QueueError
from queue_tool.configs import Config

_NO_STREAM, _NO_CONSUMER = 10059, 10014
_NO_STORAGE = frozenset({10023, 10028, 10047})


@dataclass(frozen=True)
class Plan:
    """What to set up. `models` are those beside the catalogue's.

    `sites` are the JetStream domains of brokers whose jobs this one fetches. `hub` is the domain of
    the broker that fetches the jobs of this one; no node takes them here then.
    """

    tenants: Sequence[str]
    models: Sequence[str] = ()
    sites: Sequence[str] = ()
    hub: str | None = None
    update: bool = False


async def init(broker: Broker, plan: Plan) -> int:
    """Set up the queue and return the exit status. Raises `QueueError`."""
    for warning in server.warnings(await server.learn(broker)):
        print(f"warning: {warning}", file=sys.stderr)
    names = list(dict.fromkeys([ANY_MODEL, *catalogue_models(), *map(queue_model, plan.models)]))
    setup = _Setup(broker, plan)
    await setup.streams(names)
    if plan.hub is None:
        await setup.consumers(names)
    for tenant in plan.tenants:
        await setup.buckets(tenant)
        if plan.hub is None:
            await setup.sweep(tenant)
    for warning in await setup.age_warnings():
        print(f"warning: {warning}", file=sys.stderr)
    setup.report(names)
    return 0


def catalogue_models() -> list[str]:
    """The models of the catalogue, without their quantizations."""
    return list(dict.fromkeys(entry.model for entry in catalog.entries()))


class _Setup:
    def __init__(self, broker: Broker, plan: Plan) -> None:
        self._broker = broker
        self._plan = plan
        self._created: list[str] = []
        self._updated: list[str] = []
        self._different: list[str] = []
        self._removed: list[str] = []

    async def streams(self, models: Sequence[str]) -> None:
        sources = {
            LIMITS.jobs.name: [configs.source(LIMITS.jobs.name, site) for site in self._plan.sites],
            LIMITS.results.name: self._results_of_the_hub(),
        }
        for limits in LIMITS.streams:
            config = configs.stream_config(limits, _subjects(limits, models))
            await self._stream(config, sources.get(limits.name, []))

    def _results_of_the_hub(self) -> list[Config]:
        hub, name = self._plan.hub, LIMITS.results.name
        if hub is None:
            return []
        subjects = [f"asr.result.{escape(tenant)}.*" for tenant in self._plan.tenants]
        return [configs.source(name, hub, subject) for subject in subjects]

    async def buckets(self, tenant: str) -> None:
        results = configs.bucket_config(results_bucket(tenant), LIMITS.large_results)
        if self._plan.hub is not None:
            # Without a bucket for audio: a job could reach the hub before its audio.
            await self._stream(results, [configs.source(results["name"], self._plan.hub)])
            return
        await self._stream(configs.bucket_config(audio_bucket(tenant), LIMITS.audio))
        await self._stream(results)

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

    async def _stream(self, wanted: Config, sources: Sequence[Config] = ()) -> None:
        name = wanted["name"]
        there = await self._info(f"STREAM.INFO.{name}", _NO_STREAM)
        if there is None:
            # The server knows no empty list of sources.
            config = {**wanted, "sources": list(sources)} if sources else wanted
            await self._apply(f"STREAM.CREATE.{name}", config)
            self._created.append(f"stream {name}")
            return
        changed = self._differs(f"stream {name}", there, wanted)
        config = {**there, **(wanted if changed else {})}
        # Subjects and sources only grow: other runs of init may have added theirs.
        new = [one for one in wanted["subjects"] if one not in there.get("subjects", ())]
        config["subjects"] = [*there.get("subjects", ()), *new]
        fetched = [one for one in sources if not configs.has_source(there, one)]
        if fetched:
            config["sources"] = [*(there.get("sources") or ()), *fetched]
        if new or fetched:
            self._updated.append(f"stream {name}: {'sources' if fetched else 'subjects'} added")
        if changed or new or fetched:
            await self._apply(f"STREAM.UPDATE.{name}", config)

    def _differs(self, what: str, there: Config, wanted: Config) -> bool:
        """Note the differences and return whether to change them."""
        found = [f"{what}: {phrase}" for phrase in configs.differences(there, wanted)]
        (self._updated if self._plan.update else self._different).extend(found)
        return bool(found) and self._plan.update

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

    async def age_warnings(self) -> list[str]:
        """Sentences about objects that would end before the messages that name them."""

        async def age(stream: str) -> float:
            config = await self._info(f"STREAM.INFO.{stream}", _NO_STREAM)
            return float((config or {}).get("max_age", 0)) or float("inf")

        jobs, dead = await age(LIMITS.jobs.name), await age(LIMITS.dead.name)
        results = await age(LIMITS.results.name)
        found = []
        for tenant in self._plan.tenants:
            if await age(stream := bucket_stream(audio_bucket(tenant))) < jobs + dead:
                found.append(f"{stream}: audio ends before the jobs that name it: raise max_age")
            if await age(stream := bucket_stream(results_bucket(tenant))) < results:
                found.append(f"{stream}: large results end before their record: raise max_age")
        if jobs != float("inf"):
            found.append(f"{LIMITS.jobs.name}: jobs older than max_age are lost in silence")
        return found

    def report(self, models: Sequence[str]) -> None:
        for what, lines in (
            ("created", self._created),
            ("updated", self._updated),
            ("removed", self._removed),
            ("differs, left as it is (--update changes it)", self._different),
        ):
            for line in lines:
                print(f"{what}: {line}")
        print(f"ready: {len(models)} models, tenants {', '.join(self._plan.tenants)}")


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
