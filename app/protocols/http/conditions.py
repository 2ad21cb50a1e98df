"""Conditional requests (RFC 9110, section 13): `If-Match` and `If-None-Match`.

No resource has a date of modification, so the conditions with dates are ignored, as the RFC
demands. `Range` is ignored, too. Pure.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

from app.protocols.http.answer import Answer, Headers
from app.protocols.http.head import Head
from app.protocols.http.replies import error

_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_ENTITY = frozenset({"content-type"})
"""Headers that describe content, which a 304 does not have."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The values of the two fields of a GET or HEAD; None for a field that is missing."""

    match: str | None = None
    none_match: str | None = None

    @classmethod
    def of(cls, head: Head) -> Conditions | None:
        """Return the conditions of a request; None if it has none."""
        match, none_match = (head.joined(name) for name in (b"if-match", b"if-none-match"))
        return None if match is none_match is None else cls(match, none_match)

    def applied(self, answer: Answer) -> Answer:
        """Return `answer`, which is that without conditions, or the answer that replaces it."""
        if not 200 <= answer.status < 300:
            return answer
        tag = next((value for name, value in answer.headers if name == "ETag"), None)
        if self.match is not None and not _strongly(self.match, tag):
            message = "the resource is not the one that If-Match names; leave the header out"
            return error(412, "precondition_failed", message)
        if self.none_match is not None and _weakly(self.none_match, tag):
            kept = tuple(pair for pair in answer.headers if pair[0].lower() not in _ENTITY)
            return replace(answer, status=304, headers=kept, body=b"")
        return answer


def entity_tag(body: bytes) -> Headers:
    """Return the header with the strong tag of a body."""
    return (("ETag", f'"{hashlib.sha256(body).hexdigest()[:32]}"'),)


def _strongly(field: str, tag: str | None) -> bool:
    return field.strip() == "*" or any(not weak and one == tag for weak, one in _TAG.findall(field))


def _weakly(field: str, tag: str | None) -> bool:
    return field.strip() == "*" or any(one == tag for _, one in _TAG.findall(field))
