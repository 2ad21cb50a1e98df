"""The site that one HTTP port serves, and its guards against other sites' web pages.

A form with a file can be posted anywhere without the browser's permission. A page from elsewhere
could thus send audio, unseen, to a node on its reader's machine. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.protocols.base import Session
from app.protocols.http.forwarded import Network
from app.protocols.http.head import Head
from app.protocols.model_names import ModelNames
from app.protocols.websocket.handshake import Opening


@dataclass(frozen=True, slots=True)
class SocketRoute:
    """An address for WebSockets: the subprotocols that may be selected, and `new`, which makes the
    session of an opening handshake."""

    new: Callable[[Opening], Session]
    subprotocols: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Site:
    """The content of one port.

    `created` is the time of the model file, in seconds since the epoch; `pages` are content type
    and body by path; `max_body` is in bytes. `origins` are the web origins allowed beside the
    node's own (`*` for all). `local` is True if the port listens on loopback only. `sockets` are
    the addresses for WebSockets by path; the path `*` stands for all others. `secure` is True if
    the port has TLS. `date` returns the time as an HTTP-date (RFC 9110, section 5.6.7); without a
    clock, answers have no `Date`. `proxies` are the networks of trusted proxies. `openapi` is
    the port's description as JSON.
    """

    served: ModelNames
    created: int
    max_body: int
    pages: Mapping[str, tuple[str, bytes]] = field(default_factory=dict, repr=False)
    origins: frozenset[str] = frozenset()
    local: bool = True
    sockets: Mapping[str, SocketRoute] = field(default_factory=dict, repr=False)
    secure: bool = False
    date: Callable[[], str] | None = None
    proxies: tuple[Network, ...] = ()
    openapi: bytes = field(default=b"{}", repr=False)

    @property
    def sockets_only(self) -> bool:
        """True if the port has nothing but WebSockets."""
        return "*" in self.sockets

    def socket(self, path: str) -> SocketRoute | None:
        """Return the address for WebSockets at `path`, if there is one."""
        return self.sockets.get(path) or self.sockets.get("*")


_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def right_host(host: str | None, site: Site) -> bool:
    """Return whether the `Host` of a request can be this port's.

    To a browser, a page whose name resolves to 127.0.0.1 has the same origin as a node there (DNS
    rebinding). So a port on loopback accepts addresses, `localhost`, and the names of the allowed
    origins. A port that other machines reach can have any name.
    """
    if host is None or not site.local:
        return True
    name = _name(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pages = (origin for origin in site.origins if origin.startswith(("http://", "https://")))
        return any(name == _name(_authority(origin)) for origin in pages)
    return True


def right_origin(head: Head, site: Site) -> bool:
    """Return whether a request comes from no page, the node's own, or one of an allowed origin."""
    headers, forwarded = head.headers, head.forwarded
    origin, host = headers.get(b"origin"), forwarded.host or headers.get(b"host")
    if origin is None or allowed_origin(origin, site):
        return True
    # Behind a proxy the host may be another than the page's. No script can set this header.
    if headers.get(b"sec-fetch-site") == "same-origin":
        return True
    scheme, _, authority = origin.lower().partition("://")
    if host is None or origin == "null" or forwarded.scheme not in (None, scheme):
        return False
    # Origins have no default port; a proxy may state it.
    return authority == host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, " "))


def allowed_origin(origin: str, site: Site) -> bool:
    """Return whether an origin is allowed by name, so that its pages may read answers."""
    return origin.lower() in site.origins or "*" in site.origins


def _authority(origin: str) -> str:
    return origin.partition("://")[2]


def _name(authority: str) -> str:
    """Return the host in `host:port`, in lower case; an IPv6 address without its brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0].lower()
