"""The limits of `app/queue/limits.py` as configurations of JetStream's API; their differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from app.queue.limits import BucketLimits, ConsumerLimits, StreamLimits
from app.queue.names import CLASSES, JobClass, bucket_stream, consumer, consumer_filter

Config = dict[str, Any]

_NANOSECONDS = 1_000_000_000
_TIMES = frozenset({"max_age", "duplicate_window", "ack_wait"})

_CLOSED = {
    "allow_rollup_hdrs": False,
    "allow_msg_ttl": False,
    "allow_msg_schedules": False,
    "allow_msg_counter": False,
}
"""Headers by which a publisher could remove, expire or rewrite messages of others."""


def _nanoseconds(seconds: float) -> int:
    return round(seconds * _NANOSECONDS)


def job_subjects(models: Sequence[str]) -> list[str]:
    """Return the subjects of the stream of jobs: those that have a consumer and no others. The
    server itself then rejects a job for an unknown model, whoever submits it."""
    return [consumer_filter(model, job_class) for model in models for job_class in CLASSES]


def stream_config(limits: StreamLimits, subjects: Sequence[str]) -> Config:
    return {
        "name": limits.name,
        "subjects": list(subjects),
        "retention": limits.retention,
        "storage": "file",
        "discard": limits.discard,
        "discard_new_per_subject": limits.reject_per_subject,
        "max_bytes": limits.max_bytes,
        "max_age": _nanoseconds(limits.max_age),
        "max_msgs": -1,
        "max_msgs_per_subject": limits.per_subject or -1,
        "duplicate_window": _nanoseconds(limits.duplicate_window),
        "allow_direct": limits.allow_direct,
        **_CLOSED,
    }


def bucket_config(bucket: str, limits: BucketLimits) -> Config:
    return {
        "name": bucket_stream(bucket),
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "discard_new_per_subject": False,
        "max_bytes": limits.max_bytes,
        "max_age": _nanoseconds(limits.max_age),
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "duplicate_window": _nanoseconds(120.0),
        "allow_direct": True,
        **_CLOSED,
        # Replaces a description, and deletes chunks.
        "allow_rollup_hdrs": True,
    }


def consumer_config(model: str, job_class: JobClass, limits: ConsumerLimits) -> Config:
    return {
        "durable_name": consumer(model, job_class),
        "filter_subject": consumer_filter(model, job_class),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_policy": "explicit",
        "ack_wait": _nanoseconds(limits.ack_wait),
        "max_deliver": limits.max_deliver,
        "max_ack_pending": limits.max_ack_pending,
        "max_waiting": limits.max_waiting,
    }


def source(stream: str, domain: str, subject: str | None = None) -> Config:
    """Return the source of a stream: the stream of the same name in another JetStream domain."""
    found: Config = {"name": stream, "external": {"api": f"$JS.{domain}.API", "deliver": ""}}
    return found if subject is None else {**found, "filter_subject": subject}


def has_source(there: Config, wanted: Config) -> bool:
    """Return whether a stream has this source already."""

    def key(one: Config) -> tuple[Any, ...]:
        external = one.get("external") or {}
        return one["name"], external.get("api"), one.get("filter_subject", "")

    return key(wanted) in map(key, there.get("sources") or ())


def differences(there: Config, wanted: Config) -> Iterator[str]:
    """Yield a phrase for each setting that the broker has otherwise. Subjects only grow and are not
    compared here."""
    for name, value in wanted.items():
        # The server omits what is zero or false.
        found = there.get(name, type(value)())
        if name != "subjects" and found != value:
            yield f"{name} is {shown(name, found)} instead of {shown(name, value)}"


def shown(name: str, value: Any) -> str:
    if name in _TIMES:
        return f"{value / _NANOSECONDS:g} s" if value else "unlimited"
    return str(value)
