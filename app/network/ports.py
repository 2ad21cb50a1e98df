"""Listening ports as data: an address, a protocol, and the clients that may connect.

`app/startup` makes one for each protocol that is on; `Server.listen` opens it.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from app.protocols.base import Protocol

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Port:
    """One port and its protocol.

    `name` is `native`, `wyoming` or `http`; `number` 0 picks a free port. `new_protocol` makes the
    protocol object of one connection. With `tls` every connection is encrypted. With
    `needs_token` every request must carry the node's access token. `allowed` are the networks that
    may connect, None for all.
    """

    name: str
    host: str
    number: int
    new_protocol: Callable[[], Protocol]
    tls: ssl.SSLContext | None = None
    needs_token: bool = False
    allowed: tuple[Network, ...] | None = None

    def admits(self, address: Address) -> bool:
        """Return whether a client at `address` may connect."""
        # An IPv4 network contains no IPv6 address, and testing it raises no error.
        return self.allowed is None or any(address in network for network in self.allowed)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection: `address` without the port, which identifies the client, and
    `name` with the port, for people."""

    address: str
    name: str
    port: Port


def peer_of(address: tuple[str, int], port: Port) -> tuple[Peer, Address]:
    """Return the peer that has connected to `port`, and its parsed address. `address` is as
    `accept` returns it. An IPv4 peer of an IPv6 socket counts as IPv4."""
    # A link-local address has its interface appended ("fe80::1%eth0").
    parsed: Address = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    text = str(parsed)
    name = f"[{text}]:{address[1]}" if parsed.version == 6 else f"{text}:{address[1]}"
    return Peer(text, name, port), parsed
