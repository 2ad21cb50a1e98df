"""What HTTP answers by itself: pages, the list of models, health, and what an address does not do.

Pure functions from a `Site` to an `Answer`. Loop thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.messages import MODEL_NOT_FOUND
from app.protocols.http.replies import JSON, UNCACHED, Answer, Headers, encoded, error
from app.protocols.http.routes import NoSuch, Site, Tell, allowed_methods, route

_PAGE_HEADERS: Headers = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; media-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    # Asked for again each time: what a browser has kept may be an older version's.
    ("Cache-Control", "no-cache"),
)

_PREFLIGHT_SECONDS = 600
"""How long a browser may remember what a preflight said."""


def told(what: Tell, site: Site) -> Answer:
    """The answer to a GET that needs nobody else."""
    if what.what == "page":
        kind, body = site.pages[what.name]
        return Answer(200, (("Content-Type", kind), *_PAGE_HEADERS), body)
    if what.what == "healthy":
        return _json({"status": "ok"})
    if what.what == "models":
        models = [_model(name, site) for name in sorted(site.served.names)]
        return _json({"object": "list", "data": models})
    if what.name not in site.served.names:
        message = f"model {what.name[:80]!r} is not served here; /v1/models lists what is"
        return error(404, MODEL_NOT_FOUND, message)
    return _json(_model(what.name, site))


def missing(found: NoSuch) -> Answer:
    """There is nothing at the address, or nothing for that method."""
    if not found.allowed:
        return error(404, "not_found", "there is nothing at this address")
    allowed = ", ".join((*found.allowed, "OPTIONS"))
    message = f"this address takes {allowed}"
    return error(405, "method_not_allowed", message, more=(("Allow", allowed),))


def wrong_host() -> Answer:
    """The name in `Host` may be somebody's trick."""
    message = "this port goes by localhost and by addresses; see --cors-origin for other names"
    return error(403, "wrong_host", message)


def wrong_origin() -> Answer:
    """A page from elsewhere wants to send audio."""
    message = "pages from elsewhere may not send audio here; see --cors-origin"
    return error(403, "wrong_origin", message)


def options(path: str, headers: Mapping[bytes, str], site: Site, welcome: bool) -> Answer:
    """The methods of an address; to a page that is `welcome` also what it may send."""
    places = (route(method, path, site) for method in ("GET", "POST"))
    methods = next((allowed_methods(found) for found in places if not _is_none(found)), ())
    allowed = ", ".join((*methods, "OPTIONS"))
    answer: Headers = (("Allow", allowed),)
    if welcome:
        answer += (
            ("Access-Control-Allow-Methods", allowed),
            ("Access-Control-Max-Age", str(_PREFLIGHT_SECONDS)),
        )
        # Whichever it wants to send: its origin was let in by name.
        if wanted := headers.get(b"access-control-request-headers"):
            answer += (("Access-Control-Allow-Headers", wanted),)
        if headers.get(b"access-control-request-private-network") == "true":
            answer += (("Access-Control-Allow-Private-Network", "true"),)
    return Answer(204, answer)


def _is_none(found: object) -> bool:
    return isinstance(found, NoSuch)


def _json(value: object) -> Answer:
    return Answer(200, (("Content-Type", JSON), *UNCACHED), encoded(value))


def _model(name: str, site: Site) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": site.created,
        "owned_by": "node-whisper",
        "file": site.served.name,
    }
