"""An HTTP answer as data: status, headers, body."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"

Headers = tuple[tuple[str, str], ...]

UNCACHED: Headers = (("Cache-Control", "no-store"),)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response: a status, the headers that are its own, a body."""

    status: int
    headers: Headers
    body: bytes = field(default=b"", repr=False)


def encoded(value: Any) -> bytes:
    """Return `value` as JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode()


def json_answer(status: int, value: Any, more: Headers = ()) -> Answer:
    """Return an answer with a JSON body that no cache keeps."""
    return Answer(status, (("Content-Type", JSON), *UNCACHED, *more), encoded(value))
