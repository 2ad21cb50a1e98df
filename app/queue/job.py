"""A job as a message on the broker: its headers, made by the submitter and read by the node.

`Asr-Header` is the JSON header of the native protocol in ASCII, checked by that protocol's own
rules, so a field is added in one place. `Asr-Sent` is the time of submission (seconds since the
epoch). Audio over INLINE_BYTES is an object of the tenant's bucket that `Asr-Object` names, and the
message's body is empty. The tenant, the class and the model are those of the subject, which the
broker's permissions guard. Pure; any thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.messages import (
    BAD_FIELD,
    BAD_HEADER,
    INCOMPLETE,
    MISSING_FIELD,
    TOO_LARGE,
    Failure,
    Request,
)
from app.protocols.base import ProtocolError
from app.protocols.native.header import parse_header
from app.queue.names import SHORT_BYTES, Address, parse_job_subject

HEADER, SENT, OBJECT, MESSAGE_ID = "Asr-Header", "Asr-Sent", "Asr-Object", "Nats-Msg-Id"
"""Names of message headers; the last is JetStream's, for deduplication."""

SUBJECT, DEATHS = "Asr-Subject", "Asr-Deaths"
"""Headers of a dead job: the subject that it was submitted to, and the number of its deaths."""

INLINE_BYTES = 512 * 1024
"""The largest audio or result within a message; the broker's own limit is 1 MiB by default."""

MAX_HEADER_BYTES = 60_000
"""The broker stores at most 65,535 bytes of headers."""


class JobError(Exception):
    """The submitter's fields cannot be a job; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Job:
    """A job that a node can serve. `object_name` is None if the message holds the audio."""

    address: Address
    request: Request
    sent_at: float | None
    object_name: str | None

    @property
    def size(self) -> int:
        """Bytes of audio."""
        return self.request.content_length or 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that is no job. `tenant` and `request_id` address the result as well as they can be
    read."""

    tenant: str
    request_id: str
    failure: Failure


def job_headers(
    fields: Mapping[str, Any],
    address: Address,
    *,
    sent_at: float,
    max_body: int,
    object_name: str | None = None,
    message_id: str | None = None,
) -> dict[str, str]:
    """Return the headers of a job. `fields` are those of the native protocol, with `id` and
    `content-length`; `message_id` is for a job that is submitted again. Raises `JobError`."""
    text = json.dumps(dict(fields), ensure_ascii=True)
    failure, request = _request(text, max_body)
    if failure is None and "id" not in fields:
        failure = Failure(MISSING_FIELD, "id is missing")
    if len(text) > MAX_HEADER_BYTES:
        failure = Failure(TOO_LARGE, f"the header is over the limit of {MAX_HEADER_BYTES} bytes")
    if failure is None and request is not None:
        failure = _misplaced(address, request)
    if failure is not None or request is None:
        raise JobError(failure or Failure(BAD_HEADER, "the header cannot be read"))
    headers = {
        HEADER: text,
        SENT: f"{sent_at:.3f}",
        MESSAGE_ID: message_id or f"{address.tenant}/{request.id}",
    }
    if object_name is not None:
        headers[OBJECT] = object_name
    return headers


def read_job(
    subject: str, headers: Mapping[str, str], body_bytes: int, sequence: int, max_body: int
) -> Job | Refused:
    """Read a message of the stream of jobs; `sequence` is its number there, `body_bytes` the size
    of its body, and `max_body` the most bytes of audio that this node takes."""
    address = parse_job_subject(subject)
    text = headers.get(HEADER, "")
    fallback = _id_of(headers, address.tenant) or f"job-{sequence}"
    failure, request = _request(text, max_body, fallback)
    object_name = headers.get(OBJECT)
    if request is not None and failure is None:
        failure = _misplaced(address, request)
        if failure is None and object_name is None and request.content_length != body_bytes:
            message = f"content-length does not fit the {body_bytes} bytes of the message"
            failure = Failure(INCOMPLETE, message)
    if request is None or failure is not None:
        known = _header_id(text) or fallback if request is None else request.id
        failure = failure or Failure(BAD_HEADER, "the header cannot be read")
        return Refused(address.tenant, known, failure)
    return Job(address, request, _seconds(headers.get(SENT)), object_name)


def _request(
    text: str, max_body: int, fallback_id: str = ""
) -> tuple[Failure | None, Request | None]:
    try:
        parsed = parse_header(text.encode(), max_body, lambda: fallback_id)
    except ProtocolError as error:
        return error.failure, None
    return parsed.failure, parsed.request


def _misplaced(address: Address, request: Request) -> Failure | None:
    if request.live is not None:
        return Failure(BAD_FIELD, "live: the audio of a job is complete; omit the field")
    if address.job_class == "short" and (request.content_length or 0) > SHORT_BYTES:
        message = f"a job of class short has at most {SHORT_BYTES} bytes; submit it as long"
        return Failure(TOO_LARGE, message)
    return None


def _id_of(headers: Mapping[str, str], tenant: str) -> str | None:
    """Return the id within the message id, which a submitter makes of tenant, id and more."""
    owner, slash, rest = headers.get(MESSAGE_ID, "").partition("/")
    request_id = rest.partition("/")[0]
    return request_id if slash and owner == tenant and _is_id(request_id) else None


def _header_id(text: str) -> str | None:
    """Return the id of a header that is otherwise wrong, if it can be read."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    value = fields.get("id") if isinstance(fields, dict) else None
    return value if isinstance(value, str) and _is_id(value) else None


def _is_id(text: str) -> bool:
    return 1 <= len(text) <= 128 and text.isascii() and text.isprintable() and " " not in text


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    # Also false for NaN.
    return value if 0 <= value < 1e11 else None
