"""The names on the broker: subjects, streams, consumers and buckets. Pure; any thread.

A name that a person chooses becomes one token of a subject or consumer by `escape`: every byte of
its UTF-8 form outside A-Z a-z 0-9 _ - becomes `=` and two upper-case hexadecimal digits. `=` itself
is such a byte, so `unescape` reverses it. `tiny.en` becomes `tiny=2Een`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Literal, get_args

from app.model_files import catalog

JobClass = Literal["short", "long"]
"""A class is a subject with consumers of its own, so that short jobs do not queue behind long ones.
"""

CLASSES: tuple[JobClass, ...] = get_args(JobClass)

SHORT_BYTES = 480_000
"""The largest audio of class short: half a minute of 16-bit samples at 8 kHz, a few minutes of
compressed speech."""

ANY_MODEL = "any"
"""The model of jobs that every node may take."""

JOBS, RESULTS, DEAD, HANDED_BACK = "ASR_JOBS", "ASR_RESULTS", "ASR_DEAD", "ASR_HANDED_BACK"
IDS = "ASR_IDS"
"""The streams."""

_TENANT = re.compile(r"[A-Za-z0-9_-]{1,32}")
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_ESCAPED = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a job's subject. `model` is `any` or a model of `queue_model`."""

    model: str
    job_class: JobClass
    tenant: str


def escape(name: str) -> str:
    """Return `name` as one token of a subject or of a consumer's name."""
    return "".join(chr(byte) if byte in _SAFE else f"={byte:02X}" for byte in name.encode())


def unescape(token: str) -> str:
    """Reverse `escape`. Raises `ValueError` for a token that it did not make."""
    if not _ESCAPED.fullmatch(token):
        raise ValueError(f"{token!r} is not an escaped name")
    parts = re.split(r"=(..)", token)
    data = b"".join(
        bytes.fromhex(part) if odd else part.encode()
        for part, odd in zip(parts, [False, True] * len(parts), strict=False)
    )
    name = data.decode()
    if escape(name) != token:
        raise ValueError(f"{token!r} is not an escaped name")
    return name


def is_tenant(name: str) -> bool:
    """Return whether `name` can be a tenant's: 1 to 32 of A-Z a-z 0-9 _ -."""
    return _TENANT.fullmatch(name) is not None


def queue_model(name: str) -> str:
    """Return the name under which a model has its jobs: without its quantization if the catalogue
    has it, so that nodes with different quantizations share them, else `name`."""
    entry = catalog.find(name)
    return name if entry is None else entry.model


def job_subject(address: Address) -> str:
    return f"asr.job.{escape(address.model)}.{address.job_class}.{escape(address.tenant)}"


def parse_job_subject(subject: str) -> Address:
    """Reverse `job_subject`. Raises `ValueError`."""
    parts = subject.split(".")
    if len(parts) != 5 or parts[:2] != ["asr", "job"] or parts[3] not in CLASSES:
        raise ValueError(f"{subject!r} is not the subject of a job")
    return Address(unescape(parts[2]), parts[3], unescape(parts[4]))


def consumer(model: str, job_class: JobClass) -> str:
    """Return the name of the consumer of a model's jobs of one class."""
    return f"{escape(model)}-{job_class}"


def consumer_filter(model: str, job_class: JobClass) -> str:
    """Return the subjects of the jobs of `consumer`, one for each tenant. The stream of jobs takes
    exactly these, so the broker itself rejects a job for a model without consumers."""
    return f"asr.job.{escape(model)}.{job_class}.*"


def result_subject(tenant: str, request_id: str) -> str:
    return f"asr.result.{escape(tenant)}.{escape(request_id)}"


def id_subject(tenant: str, request_id: str) -> str:
    """Return the subject on which a submitter claims an id that it chose, with the SHA-256 of the
    audio in hexadecimal digits as the message. The first claim stays."""
    return f"asr.id.{escape(tenant)}.{escape(request_id)}"


def segment_subject(tenant: str, request_id: str) -> str:
    """Return the subject of the segments of an unfinished job. No stream keeps them."""
    return f"asr.segment.{escape(tenant)}.{escape(request_id)}"


def dead_subject(model: str) -> str:
    return f"asr.dead.{escape(model)}"


def handed_back_subject(sequence: int) -> str:
    """Return the subject of the count of hand-backs of the job with this sequence in `JOBS`."""
    return f"asr.handed_back.{sequence}"


def inbox(owner: str) -> str:
    """Return the prefix of the reply subjects of a user: a tenant, `node` or `admin`. Each has its
    own, because replies within a common prefix could be read by every user."""
    return f"_INBOX.{escape(owner)}"


def audio_bucket(tenant: str) -> str:
    """Return the bucket of a tenant's audio that is too large for a message."""
    return f"asr-audio-{tenant}"


def results_bucket(tenant: str) -> str:
    """Return the bucket of a tenant's results that are too large for a message."""
    return f"asr-results-{tenant}"


def bucket_stream(bucket: str) -> str:
    """Return the stream behind an object bucket (JetStream's object store, ADR-20)."""
    return f"OBJ_{bucket}"


def object_subject(bucket: str, name: str) -> str:
    """Return the subject of the description of the object `name`."""
    return f"$O.{bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def chunk_subject(bucket: str, nuid: str) -> str:
    """Return the subject of the chunks of an object; `nuid` is from its description."""
    return f"$O.{bucket}.C.{nuid}"
