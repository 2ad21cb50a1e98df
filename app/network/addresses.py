"""Which addresses other machines can reach. Any thread."""

from __future__ import annotations

import ipaddress
import socket


def reachable_by_others(host: str) -> bool:
    """Return whether other machines can connect to a port on `host`: it is not loopback only.

    A name counts as the addresses it resolves to. One that does not resolve cannot be listened on
    either, and counts as unreachable.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    # An interface follows %; Python before 3.12 does not parse it.
    addresses = {str(address[0]).partition("%")[0] for *_, address in found}
    return not all(ipaddress.ip_address(address).is_loopback for address in addresses)


def address_for_others(host: str) -> str | None:
    """Return the address at which other devices reach a port on `host`: that of the interface with
    the default route if `host` stands for all. None if no other device can reach it."""
    if not reachable_by_others(host):
        return None
    if host not in ("", "0.0.0.0", "::"):
        return host
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                # Nothing is sent: the kernel only chooses the source address of a datagram.
                probe.connect((elsewhere, 9))
                address = str(probe.getsockname()[0])
        except OSError:
            continue
        if not ipaddress.ip_address(address).is_loopback:
            return address
    return None
