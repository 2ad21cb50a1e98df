"""Routing: the meaning of an HTTP request's method and target. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from app.messages import QueryKind, Task
from app.protocols.http.asr_webservice import ASR_WEBSERVICE, LANGUAGE_DETECTION
from app.protocols.http.dialect import Dialect
from app.protocols.http.openai import OPENAI
from app.protocols.http.site import Site
from app.protocols.http.whisper_cpp import WHISPER_CPP

READ = ("GET", "HEAD")
WRITE = ("POST",)
METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE"})
"""The methods that the node knows. It has no resource for the last four."""


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
    of the `site`, or the description of all."""

    kind: Literal["health", "models", "model", "page", "openapi"]
    name: str = ""

    @property
    def is_open(self) -> bool:
        """True if it needs no token. The page does not, because it asks for the token."""
        return self.kind in ("health", "page")


@dataclass(frozen=True, slots=True)
class NotFound:
    """No resource; or one, but not for this method, and `allowed` are its methods."""

    allowed: tuple[str, ...] = ()


Route = Upload | NodeReport | Fixed | NotFound

ROUTES: dict[str, Upload | NodeReport | Fixed] = {
    "/v1/audio/transcriptions": Upload(OPENAI, "transcribe"),
    "/v1/audio/translations": Upload(OPENAI, "translate"),
    "/inference": Upload(WHISPER_CPP, "transcribe"),
    "/asr": Upload(ASR_WEBSERVICE, "transcribe"),
    "/detect-language": Upload(LANGUAGE_DETECTION, "transcribe"),
    "/v1/models": Fixed("models"),
    "/openapi.json": Fixed("openapi"),
    "/healthz": Fixed("health"),
    # The name in whisper.cpp's server.
    "/health": Fixed("health"),
    "/readyz": NodeReport("ready"),
    "/metrics": NodeReport("metrics"),
    "/status": NodeReport("status"),
}
MODEL = "/v1/models/"
"""The path of one model is this and its name."""

_SLASHES = re.compile("//+")
_OPENAI = re.compile(
    "(?:/openai|/api|/v1)*(/audio/(?:transcriptions|translations)|/models(?:/.*)?|/realtime)"
)
"""Paths of OpenAI's API below the base addresses that programs and people make of it."""


def normal_path(path: str) -> str:
    """Return a path without doubled slashes and one at its end, and OpenAI's routes below `/v1`:
    clients join addresses carelessly. Some expect a base address without `/v1`, some add
    `/openai/v1` (Groq's), and some people enter one too many."""
    path = _SLASHES.sub("/", path).rstrip("/") or "/"
    found = _OPENAI.fullmatch(path)
    return path if found is None else f"/v1{found[1]}"


def route(method: str, path: str, site: Site) -> Route:
    """Return the meaning of a request for `path`."""
    found = None if site.sockets_only else ROUTES.get(path) or _varying(path, site)
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
    if path.startswith(MODEL):
        return Fixed("model", unquote(path[len(MODEL) :]))
    return None
