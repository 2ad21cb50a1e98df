"""Which addresses other machines can reach. Any thread."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence

from app.network.interfaces import Address, Interface, is_internal


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


def stands_for_all(host: str) -> bool:
    """Return whether a port on `host` listens at every address of the machine."""
    return host in ("", "0.0.0.0", "::")


def addresses_for_others(found: Sequence[Interface], host: str, in_container: bool) -> list[str]:
    """Return the addresses at which other devices reach a port on `host`, which stands for all, on
    a machine with the interfaces `found`. The one that a person should try first comes first: that
    of the default route, IPv4 before IPv6, and those of tunnels last."""
    preferred = _by_default_route()
    ranked = [
        (str(address) not in preferred, _last_resort(interface, address), address.version, address)
        for interface in found
        for address in interface.addresses
        if not address.is_loopback
        # A bridge with the default route has a port to the network, even if sysfs does not show it.
        and (
            not is_internal(interface, in_container)
            or (interface.driver == "bridge" and str(address) in preferred)
        )
        # A link-local IPv6 address needs the name of the other device's interface.
        and not (address.version == 6 and (host == "0.0.0.0" or address.is_link_local))
    ]
    # Equal ones stay in the kernel's order.
    ranked.sort(key=lambda entry: entry[:3])
    return list(dict.fromkeys(str(address) for *_, address in ranked))


def _last_resort(interface: Interface, address: Address) -> bool:
    return interface.driver == "tun" or address.is_link_local


def _by_default_route() -> set[str]:
    found = set()
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Nothing is sent: the kernel only chooses the source address of a datagram.
            probe.connect((elsewhere, 9))
            found.add(str(probe.getsockname()[0]))
    return found
