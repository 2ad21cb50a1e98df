"""What a listening port is: an address, a protocol, and who may come in.

Data only. `__main__` makes one for each protocol that is on; `Server.listen` opens it.
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
    """One port and what is spoken there.

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
        """Whether a peer at `address` may connect."""
        # An IPv4 network does not contain an IPv6 address; it does not raise either.
        return self.allowed is None or any(address in network for network in self.allowed)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection: `address` without port, by which clients are told apart, and
    `name` with it, for people."""

    address: str
    name: str
    port: Port


def peer_of(address: tuple[str, int], port: Port) -> tuple[Peer, Address]:
    """Who has connected to `port` from `address` (as `accept` gives it, but for its first two
    items), and its parsed address. An IPv4 peer of an IPv6 socket is an IPv4 peer."""
    # A link-local address comes with its interface ("fe80::1%eth0").
    parsed: Address = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    text = str(parsed)
    name = f"[{text}]:{address[1]}" if parsed.version == 6 else f"{text}:{address[1]}"
    return Peer(text, name, port), parsed
