"""Answers that need nobody else: pages, the list of models, health, and wrong requests.

Pure functions from a `Site` to an `Answer`. Loop thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.messages import MODEL_NOT_FOUND
from app.protocols.http.answer import JSON, UNCACHED, Answer, Headers, json_answer
from app.protocols.http.conditions import entity_tag
from app.protocols.http.replies import error
from app.protocols.http.routes import READ, WRITE, Fixed, NotFound, allowed_methods, route
from app.protocols.http.site import Site

_PAGE_HEADERS: Headers = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; media-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    # Revalidated each time: a cached page may be an older version's.
    ("Cache-Control", "no-cache"),
)

_PREFLIGHT_SECONDS = 600
"""Time for which a browser may cache the answer to a preflight."""


def fixed_answer(found: Fixed, site: Site) -> Answer:
    """Return the answer to a GET of a fixed resource."""
    if found.kind == "page":
        kind, body = site.pages[found.name]
        return Answer(200, (("Content-Type", kind), *_PAGE_HEADERS, *entity_tag(body)), body)
    if found.kind == "openapi":
        more = (("Cache-Control", "no-cache"), *entity_tag(site.openapi))
        return Answer(200, (("Content-Type", JSON), *more), site.openapi)
    if found.kind == "health":
        return json_answer(200, {"status": "ok"})
    if found.kind == "models":
        models = [_model(name, site) for name in sorted(site.served.all)]
        return json_answer(200, {"object": "list", "data": models})
    if found.name not in site.served.all:
        message = f"model {found.name[:80]!r} is not served here; /v1/models lists the models"
        return error(404, MODEL_NOT_FOUND, message)
    return json_answer(200, _model(found.name, site))


def moved(path: str) -> Answer:
    """Return the answer to a page's address with a slash at its end."""
    address = f"../{path.rpartition('/')[2]}"
    return Answer(308, (("Location", address), *UNCACHED))


def not_found(found: NotFound) -> Answer:
    """Return the answer where there is no resource, or none for the method."""
    if not found.allowed:
        return error(404, "not_found", "there is nothing at this address")
    allowed = ", ".join((*found.allowed, "OPTIONS"))
    message = f"this address accepts {allowed}"
    return error(405, "method_not_allowed", message, more=(("Allow", allowed),))


def unknown_method(method: str) -> Answer:
    """Return the answer to a method that no resource has (RFC 9110, section 9.1)."""
    message = f"the method {method[:20]} is not implemented; use GET, HEAD, POST or OPTIONS"
    return error(501, "method_unknown", message)


def wrong_host() -> Answer:
    """Return the answer to a request whose `Host` is not this port's."""
    message = (
        "unknown host name in Host or X-Forwarded-Host: use localhost or an IP address, or add the"
        " name with --cors-origin"
    )
    return error(403, "wrong_host", message)


def wrong_origin() -> Answer:
    """Return the answer to audio from a page of another origin."""
    message = "pages of this origin may not send audio; allow it with --cors-origin"
    return error(403, "wrong_origin", message)


def no_socket() -> Answer:
    """Return the answer to the opening of a WebSocket at an address that has none."""
    return error(404, "not_found", "there is no WebSocket at this address")


def socket_required() -> Answer:
    """Return the answer to another request for an address of WebSockets (RFC 9110, section
    15.5.22)."""
    more = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
    return error(426, "upgrade_required", "this address accepts WebSockets only", more=more)


def options_answer(path: str, headers: Mapping[bytes, str], site: Site, allowed: bool) -> Answer:
    """Return the methods of an address; if the page's origin is `allowed`, as a preflight."""
    routes = (route(method, path, site) for method in ("GET", "POST"))
    found = next((found for found in routes if not isinstance(found, NotFound)), NotFound())
    own = (*READ, *WRITE) if path == "*" else allowed_methods(found)
    methods = ", ".join((*own, "OPTIONS"))
    answer: Headers = (("Allow", methods),)
    if allowed:
        answer += (
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Max-Age", str(_PREFLIGHT_SECONDS)),
        )
        # Any headers: the origin is allowed by name.
        if wanted := headers.get(b"access-control-request-headers"):
            answer += (("Access-Control-Allow-Headers", wanted),)
        if headers.get(b"access-control-request-private-network") == "true":
            answer += (("Access-Control-Allow-Private-Network", "true"),)
    return Answer(204, answer)


def _model(name: str, site: Site) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": site.created,
        "owned_by": "node-whisper",
        "file": site.served.name,
    }
