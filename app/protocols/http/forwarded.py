"""The client and the address of a request behind a reverse proxy: the `X-Forwarded-*` headers.

They count only in requests of a trusted proxy, because every client can send them. RFC 7239's
`Forwarded` is not read: a proxy that writes one kind passes the other on as the client sent it.
Nothing in the request shows which kind the proxy wrote. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
"""Traefik states the scheme of a WebSocket as `ws` or `wss`; the page's origin has the other."""

_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d{1,5})?|([0-9.]+):\d{1,5}")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The statements of a trusted proxy about a request: the client's address, and the host and
    scheme that the client used. None for one that is missing or not valid."""

    client: str | None = None
    host: str | None = None
    scheme: str | None = None


DIRECT = Forwarded()
"""A request that no trusted proxy has passed on."""


def read_forwarded(
    headers: Iterable[tuple[bytes, bytes]], proxies: tuple[Network, ...]
) -> Forwarded:
    """Return the statements in the headers of a request from a trusted proxy.

    The client is the last address of `X-Forwarded-For` that is not in `proxies`. Each proxy appends
    the address of its own client, and only the entries of trusted proxies are true. A value that is
    no address ends the search, so that nothing before it counts. Of several hosts or schemes the
    last counts, which is that of the nearest proxy.
    """
    headers = list(headers)
    client: Address | None = None
    for text in reversed(_values(headers, b"x-forwarded-for")):
        address = _address(text)
        if address is None:
            break
        client = address
        if not any(address in network for network in proxies):
            break
    host = next(reversed(_values(headers, b"x-forwarded-host")), "")
    scheme = next(reversed(_values(headers, b"x-forwarded-proto")), "")
    return Forwarded(
        client=None if client is None else str(client),
        host=host if _HOST.fullmatch(host) else None,
        scheme=_SCHEMES.get(scheme.lower()),
    )


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Return the values of a header that is a list, in order; the header may be repeated."""
    found = ",".join(value.decode("latin-1") for key, value in headers if key == name)
    return [value.strip() for value in found.split(",") if value.strip()]


def _address(text: str) -> Address | None:
    """Return the address in `text`, which may have a port; None if there is none."""
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        # A link-local address has its interface appended.
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
