"""The network interfaces of this machine and their addresses, from the kernel of Linux.

The calls work in a sandbox that permits only internet sockets. Any thread.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SIOCGIFCONF, _SIOCGIFFLAGS, _SIOCETHTOOL = 0x8912, 0x8913, 0x8946
_ETHTOOL_GDRVINFO = 3
_UP, _LOOPBACK, _RUNNING = 0x1, 0x8, 0x40
_UNUSABLE = 0x01 | 0x08 | 0x20 | 0x40
"""Flags of an IPv6 address that is temporary, a duplicate, deprecated or tentative
(linux/if_addr.h)."""

_IFREQ_BYTES = 40
_DRVINFO_BYTES = 196
_VIRTUAL = ("veth", "tun")
"""Drivers of the ports by which containers and virtual machines are connected to a bridge."""

_NETWORKS = Path("/sys/class/net")
_IPV6 = Path("/proc/self/net/if_inet6")
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface that is up, with the name of its kernel driver (empty if unknown), the drivers
    of its ports if it is a bridge, and its addresses."""

    name: str
    driver: str
    addresses: tuple[Address, ...]
    ports: tuple[str, ...] = ()


def in_container() -> bool:
    """Return whether this process runs in a container of Docker, Podman or Kubernetes."""
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(
        mark.exists() for mark in _CONTAINER_MARKS
    )


def is_internal(interface: Interface, in_container: bool) -> bool:
    """Return whether only this machine reaches the interface: that of a container, or a bridge
    without a port to a real network, such as `docker0`."""
    if interface.driver == "bridge":
        return all(driver in _VIRTUAL for driver in interface.ports)
    return in_container and interface.driver in _VIRTUAL


def interfaces() -> list[Interface]:
    """Return the interfaces that are up, without the loopback."""
    found: dict[str, list[Address]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name, address in (*_ipv4(sock), *_ipv6()):
            found.setdefault(name, []).append(address)
        return [
            Interface(name, _driver(sock, name), tuple(addresses), _ports(sock, name))
            for name, addresses in found.items()
            if _is_up(sock, name)
        ]


def _ipv4(sock: socket.socket) -> Iterator[tuple[str, Address]]:
    size = 256 * _IFREQ_BYTES
    buffer = array.array("B", bytes(size))
    try:
        filled = fcntl.ioctl(sock, _SIOCGIFCONF, struct.pack("iP", size, buffer.buffer_info()[0]))
    except OSError:
        return
    for start in range(0, struct.unpack_from("i", filled)[0], _IFREQ_BYTES):
        request = bytes(buffer[start : start + _IFREQ_BYTES])
        # An alias is named eth0:1.
        name = request[:16].partition(b"\0")[0].partition(b":")[0].decode(errors="replace")
        yield name, ipaddress.IPv4Address(request[20:24])


def _ipv6() -> Iterator[tuple[str, Address]]:
    try:
        lines = _IPV6.read_text().splitlines()
    except OSError:  # this kernel has no IPv6
        return
    for line in lines:
        digits, _, _, _, flags, name = line.split()
        if not int(flags, 16) & _UNUSABLE:
            yield name, ipaddress.IPv6Address(bytes.fromhex(digits))


def _is_up(sock: socket.socket, name: str) -> bool:
    try:
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
    except OSError:
        return False
    flags = int(struct.unpack_from("H", answer, 16)[0])
    return flags & (_UP | _RUNNING | _LOOPBACK) == _UP | _RUNNING


def _driver(sock: socket.socket, name: str) -> str:
    command = array.array("B", struct.pack("I", _ETHTOOL_GDRVINFO).ljust(_DRVINFO_BYTES, b"\0"))
    request = struct.pack("16sP16x", name.encode(), command.buffer_info()[0])
    try:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
    except OSError:
        return ""
    return bytes(command[4:36]).partition(b"\0")[0].decode(errors="replace")


def _ports(sock: socket.socket, name: str) -> tuple[str, ...]:
    try:
        ports = sorted(path.name for path in (_NETWORKS / name / "brif").iterdir())
    except OSError:  # not a bridge
        return ()
    return tuple(_driver(sock, port) for port in ports)
