"""Where an HTTP request goes, and whether the page it comes from may ask.

`Site` is what one HTTP port serves. `route` makes of a method and a target what is to be done, and
the guards below keep other people's web pages out: a form with a file needs no permission of the
browser to be posted anywhere, so a page from elsewhere could send audio to a node on its reader's
machine unseen. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from app.messages import QueryKind, Task
from app.protocols.http.fields import Dialect, Served

READ = ("GET", "HEAD")
WRITE = ("POST",)


@dataclass(frozen=True, slots=True)
class Site:
    """What one port serves.

    `created` is when the model file was made, in seconds since the epoch; `pages` are content type
    and body by path; `max_body` is in bytes. `origins` are the web origins besides the node's own
    that may ask (`*` is any). `local` is True where the port listens on loopback only.
    """

    served: Served
    created: int
    max_body: int
    pages: Mapping[str, tuple[str, bytes]] = field(default_factory=dict, repr=False)
    origins: frozenset[str] = frozenset()
    local: bool = True


@dataclass(frozen=True, slots=True)
class Upload:
    """Audio is to come."""

    dialect: Dialect
    task: Task


@dataclass(frozen=True, slots=True)
class Ask:
    """The server knows the answer."""

    kind: QueryKind


@dataclass(frozen=True, slots=True)
class Tell:
    """The protocol answers by itself: `healthy`, one of the `models`, a page of the `site`."""

    what: Literal["healthy", "models", "model", "page"]
    name: str = ""


@dataclass(frozen=True, slots=True)
class NoSuch:
    """There is nothing there; or there is, but not for this method, and `allowed` says which."""

    allowed: tuple[str, ...] = ()


Route = Upload | Ask | Tell | NoSuch

_FIXED: dict[str, Upload | Ask | Tell] = {
    "/v1/audio/transcriptions": Upload("openai", "transcribe"),
    "/v1/audio/translations": Upload("openai", "translate"),
    "/inference": Upload("whisper.cpp", "transcribe"),
    "/v1/models": Tell("models"),
    "/healthz": Tell("healthy"),
    # whisper.cpp's server calls it so.
    "/health": Tell("healthy"),
    "/readyz": Ask("ready"),
    "/metrics": Ask("metrics"),
    "/status": Ask("status"),
}
_MODEL = "/v1/models/"


def path_of(target: str) -> str:
    """The path of a request's target, which may be a whole address; the query is left out."""
    if target.startswith("/"):
        return target.partition("?")[0]
    try:
        return urlsplit(target).path or "/"
    except ValueError:
        return ""


def route(method: str, path: str, site: Site) -> Route:
    """What a request for `path` means."""
    found = _FIXED.get(path) or _varying(path, site)
    if found is None:
        return NoSuch()
    allowed = allowed_methods(found)
    return found if method in allowed else NoSuch(allowed)


def allowed_methods(found: Route) -> tuple[str, ...]:
    """The methods that what was found at a path takes."""
    if isinstance(found, NoSuch):
        return found.allowed
    return WRITE if isinstance(found, Upload) else READ


def _varying(path: str, site: Site) -> Tell | None:
    if path in site.pages:
        return Tell("page", path)
    if path.startswith(_MODEL):
        return Tell("model", unquote(path[len(_MODEL) :]))
    return None


def right_host(host: str | None, site: Site) -> bool:
    """Whether a request may be for us, by its `Host`.

    A name that somebody points at 127.0.0.1 makes his page one of our own in the browser's eyes. So
    a port that only this machine reaches goes by addresses, by `localhost`, and by the names of
    the origins that were let in; one that others reach has names we cannot know.
    """
    if host is None or not site.local:
        return True
    name = _name(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return any(name == _name(_authority(origin)) for origin in site.origins)
    return True


def right_origin(origin: str | None, host: str | None, site: Site) -> bool:
    """Whether the page that sends a request, if it is one, is our own or was let in."""
    if origin is None or welcome(origin, site):
        return True
    return host is not None and origin != "null" and _authority(origin).lower() == host.lower()


def welcome(origin: str, site: Site) -> bool:
    """Whether pages of that origin were let in by name, and so may read what we answer."""
    return origin in site.origins or "*" in site.origins


def _authority(origin: str) -> str:
    return origin.partition("://")[2]


def _name(authority: str) -> str:
    """The host in `host:port`, in lower case; an IPv6 address without its brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0].lower()
