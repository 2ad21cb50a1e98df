"""Listening ports as data: an address, a protocol, and the clients that may connect.

`app/startup` makes one for each protocol that is on; `Server.listen` opens it.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.protocols.base import Protocol

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Proxies:
    """The reverse proxies that a port trusts: their `networks`, and `new_protocol`, which makes the
    protocol object of a connection of theirs."""

    networks: tuple[Network, ...]
    new_protocol: Callable[[], Protocol]


@dataclass(frozen=True, slots=True)
class Port:
    """One port and its protocol.

    `name` is `native`, `wyoming` or `http`; `number` 0 picks a free port. `new_protocol` makes the
    protocol object of one connection. With `tls` every connection is encrypted. With
    `needs_token` every request must carry the node's access token. `allowed` are the networks that
    may connect, None for all. `proxies` state the addresses of their clients.
    """

    name: str
    host: str
    number: int
    new_protocol: Callable[[], Protocol]
    tls: ssl.SSLContext | None = None
    needs_token: bool = False
    allowed: tuple[Network, ...] | None = None
    proxies: Proxies | None = None

    def admits(self, address: Address) -> bool:
        """Return whether a client at `address` may connect."""
        # An IPv4 network contains no IPv6 address, and testing it raises no error.
        return self.allowed is None or any(address in network for network in self.allowed)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection: `address` without the port, which identifies the client, and
    `name` with the port, for people. `is_proxy` if its headers about its clients are trusted."""

    address: str
    name: str
    port: Port
    is_proxy: bool = False

    def new_protocol(self) -> Protocol:
        """Make the protocol object of a connection."""
        if self.is_proxy and self.port.proxies is not None:
            return self.port.proxies.new_protocol()
        return self.port.new_protocol()

    def client_at(self, address: str | None) -> Peer:
        """Return the client at `address` behind this proxy; the proxy itself without one."""
        return self if address is None else replace(self, address=address, name=address)


def peer_of(address: tuple[str, int], port: Port) -> tuple[Peer, Address]:
    """Return the peer that has connected to `port`, and its parsed address. `address` is as
    `accept` returns it. An IPv4 peer of an IPv6 socket counts as IPv4."""
    # A link-local address has its interface appended ("fe80::1%eth0").
    parsed: Address = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    text = str(parsed)
    name = f"[{text}]:{address[1]}" if parsed.version == 6 else f"{text}:{address[1]}"
    networks = () if port.proxies is None else port.proxies.networks
    return Peer(text, name, port, any(parsed in network for network in networks)), parsed
