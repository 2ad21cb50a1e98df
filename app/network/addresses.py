"""Which addresses other machines can reach."""

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
