"""Finds the part of the node that answers a request, and applies the guards. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from app.protocols.http import fixed
from app.protocols.http.answer import Answer
from app.protocols.http.head import Head
from app.protocols.http.routes import (
    METHODS,
    Fixed,
    NodeReport,
    NotFound,
    Upload,
    normal_path,
    route,
)
from app.protocols.http.site import Site, right_host, right_origin
from app.protocols.http.upgrade import PendingUpgrade, read_upgrade


@dataclass(frozen=True, slots=True)
class Private:
    """An answer for a client with a valid token only."""

    answer: Answer


Found = Answer | Private | NodeReport | Upload | PendingUpgrade


def resolve(head: Head, site: Site, readable: bool) -> Found:
    """Return the answer to a request, or the route that makes it; `readable` if a page of the
    request's origin may read the answer."""
    hosts = (head.headers.get(b"host"), head.forwarded.host)
    if not all(right_host(host, site) for host in hosts):
        return fixed.wrong_host()
    if (upgrade := read_upgrade(head, site)) is not None:
        return upgrade
    if head.method not in METHODS:
        return fixed.unknown_method(head.method)
    path = normal_path(head.path)
    if head.method == "OPTIONS":
        return fixed.options_answer(path, head.headers, site, readable)
    found = route(head.method, path, site)
    if isinstance(found, NotFound):
        if not found.allowed and site.socket(path) is not None:
            return fixed.socket_required()
        return fixed.not_found(found)
    if isinstance(found, Fixed):
        if found.kind == "page" and path != "/" and head.path == f"{path}/":
            # A page's relative addresses hold only without the slash.
            return fixed.moved(path)
        answer = fixed.fixed_answer(found, site)
        return answer if found.is_open else Private(answer)
    if isinstance(found, Upload) and not right_origin(head, site):
        return fixed.wrong_origin()
    return found
