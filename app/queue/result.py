"""The record of a result: the JSON of the native protocol's replies, and who made it.

A record over INLINE_BYTES is an object of the tenant's bucket of results; the message on the
result's subject is then empty and names it with `Asr-Object`. Pure; any thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.messages import Outcome
from app.protocols.native.replies import reply_fields


def result_fields(request_id: str, outcome: Outcome, node: str, delivered: int) -> dict[str, Any]:
    """Return the fields of a result. `node` is the name of the node, and `delivered` counts how
    often the broker has delivered the job: above 1 the job may have been done before."""
    return {**reply_fields(request_id, outcome), "node": node, "delivered": delivered}


def encode_result(fields: Mapping[str, Any]) -> bytes:
    """Return the record as the broker keeps it: UTF-8 JSON."""
    return json.dumps(dict(fields), ensure_ascii=False).encode()


def decode_result(data: bytes) -> dict[str, Any]:
    """Reverse `encode_result`. Raises `ValueError`."""
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise ValueError("a result is a JSON object")
    return fields


def result_message_id(tenant: str, request_id: str, sequence: int) -> str:
    """Return the message id of the result of the job with this sequence in the stream of jobs, so
    that the result of a job that was done twice is stored once."""
    return f"{tenant}/{request_id}/{sequence}"


def result_object(request_id: str, sequence: int, delivered: int) -> str:
    """Return the name of the object of a large result. No two deliveries share one, so a late
    second result leaves the first as it is."""
    return f"{request_id}/{sequence}.{delivered}"
