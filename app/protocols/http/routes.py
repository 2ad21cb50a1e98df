"""Routing: the meaning of an HTTP request's method and target. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from app.messages import QueryKind, Task
from app.protocols.http.asr_webservice import ASR_WEBSERVICE, LANGUAGE_DETECTION
from app.protocols.http.dialect import Dialect
from app.protocols.http.openai import OPENAI
from app.protocols.http.site import Site
from app.protocols.http.whisper_cpp import WHISPER_CPP

READ = ("GET", "HEAD")
WRITE = ("POST",)


@dataclass(frozen=True, slots=True)
class Upload:
    """A form with audio."""

    dialect: Dialect
    task: Task


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A question that the server answers."""

    kind: QueryKind


@dataclass(frozen=True, slots=True)
class Fixed:
    """A resource that the protocol has itself: health, the list of models or one of them, a page
    of the `site`."""

    kind: Literal["health", "models", "model", "page"]
    name: str = ""


@dataclass(frozen=True, slots=True)
class NotFound:
    """No resource; or one, but not for this method, and `allowed` are its methods."""

    allowed: tuple[str, ...] = ()


Route = Upload | NodeReport | Fixed | NotFound

_FIXED: dict[str, Upload | NodeReport | Fixed] = {
    "/v1/audio/transcriptions": Upload(OPENAI, "transcribe"),
    "/v1/audio/translations": Upload(OPENAI, "translate"),
    "/inference": Upload(WHISPER_CPP, "transcribe"),
    "/asr": Upload(ASR_WEBSERVICE, "transcribe"),
    "/detect-language": Upload(LANGUAGE_DETECTION, "transcribe"),
    "/v1/models": Fixed("models"),
    "/healthz": Fixed("health"),
    # The name in whisper.cpp's server.
    "/health": Fixed("health"),
    "/readyz": NodeReport("ready"),
    "/metrics": NodeReport("metrics"),
    "/status": NodeReport("status"),
}
_MODEL = "/v1/models/"
_SLASHES = re.compile("//+")


def split_target(target: str) -> tuple[str, str]:
    """Return the path and the query of a request's target, which may be a whole URL. Doubled
    slashes, and one at the end, are forgiven: clients join addresses carelessly."""
    if target.startswith("/"):
        path, _, query = target.partition("?")
    else:
        try:
            parts = urlsplit(target)
        except ValueError:
            return "", ""
        path, query = parts.path or "/", parts.query
    path = _SLASHES.sub("/", path)
    return path.rstrip("/") or "/", query


def route(method: str, path: str, site: Site) -> Route:
    """Return the meaning of a request for `path`."""
    found = None if site.sockets_only else _FIXED.get(path) or _varying(path, site)
    if found is None:
        return NotFound()
    allowed = allowed_methods(found)
    return found if method in allowed else NotFound(allowed)


def allowed_methods(found: Route) -> tuple[str, ...]:
    """Return the methods of a resource."""
    if isinstance(found, NotFound):
        return found.allowed
    return WRITE if isinstance(found, Upload) else READ


def _varying(path: str, site: Site) -> Fixed | None:
    if path in site.pages:
        return Fixed("page", path)
    if path.startswith(_MODEL):
        return Fixed("model", unquote(path[len(_MODEL) :]))
    return None
