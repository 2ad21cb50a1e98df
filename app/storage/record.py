"""The file `request.json` of a journal entry: the request, its origin, and checksums.

Pure functions between a `Record` and one JSON object. `id` comes first, so that it can be read even
from a file that broke off. The token is left out: it was checked already, and a secret does not
belong on a disk. A field that this version does not know is ignored and a missing one has its
default, so that fields can be added without a new version number.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import asdict, dataclass, fields
from typing import Any

from app.limits import CueLayout
from app.messages import Origin, RawFormat, Request

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """A request as the journal keeps it. `size` is the body's in bytes, `checksum` its CRC-32."""

    request: Request
    origin: Origin
    size: int
    checksum: int


class DamagedError(Exception):
    """The file is not as it was written. `request_id` is None if it cannot be read."""

    def __init__(self, reason: str, request_id: str | None = None) -> None:
        super().__init__(reason)
        self.request_id = request_id


def encode(record: Record) -> bytes:
    """Return one line of JSON that ends with a checksum over its other fields."""
    request = asdict(record.request)
    del request["token"], request["ignored"]
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
    """Return the record, its origin marked as recovered. Raises `DamagedError`."""
    try:
        content = json.loads(data)
        check = content.pop("check")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise DamagedError("the request is incomplete", _id(data)) from None
    if check != _check(content):
        raise DamagedError("the request does not match its checksum", _id(data))
    # The checksum fits: some version of this module wrote the rest.
    if content["version"] != _VERSION:
        raise DamagedError("the request was written by an incompatible version", content["id"])
    request = _known(Request, content["request"])
    if request.get("raw") is not None:
        request["raw"] = RawFormat(**_known(RawFormat, request["raw"]))
    if request.get("cues") is not None:
        request["cues"] = CueLayout(**_known(CueLayout, request["cues"]))
    request["languages"] = tuple(request.get("languages", ()))
    return Record(
        Request(**request),
        Origin(content["peer"], content["received_at"], content["protocol"], recovered=True),
        content["size"],
        content["checksum"],
    )


def _known(kind: type[Request | RawFormat | CueLayout], values: dict[str, Any]) -> dict[str, Any]:
    """Leave out the fields that a later version has added."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _check(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _id(data: bytes) -> str | None:
    found = re.match(rb'\{"id": "([^"\\]+)"', data)
    return found[1].decode(errors="replace") if found else None
