"""What the journal writes beside a body: the request, where it came from, and how to tell that both
are whole.

Pure functions between a `Record` and one JSON object. `id` comes first, so that even of a file that
broke off it can be said whose it was. The token is left out: who may come in was decided, and a
secret has no place on a disk.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import asdict, dataclass, fields
from typing import Any

from app.messages import Origin, RawFormat, Request

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """A request as the journal keeps it. `size` of the body in bytes, `checksum` its CRC-32."""

    request: Request
    origin: Origin
    size: int
    checksum: int


class DamagedError(Exception):
    """Not what was written. `request_id` is None where not even that can be read."""

    def __init__(self, reason: str, request_id: str | None = None) -> None:
        super().__init__(reason)
        self.request_id = request_id


def encode(record: Record) -> bytes:
    """One line of JSON, with a checksum over the rest of it as its last field."""
    request = asdict(record.request)
    del request["token"]
    content = {
        "id": record.request.id,
        "version": _VERSION,
        "received_at": record.origin.received_at,
        "peer": record.origin.peer,
        "protocol": record.origin.protocol,
        "size": record.size,
        "checksum": record.checksum,
        "request": request,
    }
    return (json.dumps({**content, "check": _check(content)}) + "\n").encode()


def decode(data: bytes) -> Record:
    """The record, marked as recovered. Raises `DamagedError`."""
    try:
        content = json.loads(data)
        check = content.pop("check")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise DamagedError("the request is not whole", _id(data)) from None
    if check != _check(content):
        raise DamagedError("the request does not fit its checksum", _id(data))
    # From here on it is what some version of this module wrote.
    if content["version"] != _VERSION:
        raise DamagedError("the request was written by another version", content["id"])
    known = {field.name for field in fields(Request)}
    request: dict[str, Any] = {
        name: value for name, value in content["request"].items() if name in known
    }
    if request["raw"] is not None:
        request["raw"] = RawFormat(**request["raw"])
    return Record(
        Request(**request),
        Origin(content["peer"], content["received_at"], content["protocol"], recovered=True),
        content["size"],
        content["checksum"],
    )


def _check(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _id(data: bytes) -> str | None:
    found = re.match(rb'\{"id": "([^"\\]+)"', data)
    return found[1].decode(errors="replace") if found else None
