"""Announces the Wyoming port on the local network by mDNS, so that Home Assistant finds it.

It uses the zeroconf package, an extra that is imported only for `--announce`. An `Announcement` has
a thread of its own, and zeroconf makes another for its sockets; neither touches the loop or the
requests. A failure is only logged: clients that know the address are served all the same.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
import threading

import structlog

SERVICE = "_wyoming._tcp.local."
"""The service type that Home Assistant's Wyoming integration browses."""

_MAX_LABEL_BYTES = 63
"""The limit of one label of a DNS name (RFC 1035)."""

_log = structlog.get_logger("announce")


class AnnounceError(Exception):
    """The port cannot be announced; the message tells the user why."""


def reachable_addresses(host: str) -> list[str]:
    """Return the addresses at which other machines reach a node that listens on `host`.

    For a host that stands for all addresses, these are the machine's addresses now. Raises
    `AnnounceError` if zeroconf is missing or no other machine can reach the node.
    """
    if importlib.util.find_spec("zeroconf") is None:
        raise AnnounceError(
            "--announce needs the zeroconf package: pip install -r requirements-announce.txt"
        )
    import ifaddr

    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise AnnounceError(f"--announce: {host} is not an address of this machine") from None
    wanted = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if any(address.is_unspecified for address in wanted):
        # ifaddr gives an IPv4 address as a string, an IPv6 address as the first item of a tuple.
        listed = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
        addresses = [
            ipaddress.ip_address(ip if isinstance(ip, str) else ip[0].partition("%")[0])
            for ip in listed
        ]
        families = {6, 4} if any(address.version == 6 for address in wanted) else {4}
        wanted = [address for address in addresses if address.version in families]
    # A link-local address needs its interface, which mDNS cannot name.
    reachable = [
        str(address)
        for address in dict.fromkeys(wanted)
        if not (address.is_loopback or (address.version == 6 and address.is_link_local))
    ]
    if not reachable:
        raise AnnounceError(f"--announce: no other machine can reach {host}; use --host 0.0.0.0")
    return reachable


def host_name() -> str:
    """Return the name of this machine without its domain."""
    return socket.gethostname().partition(".")[0]


def instance_name(name: str = "") -> str:
    """Return this node's name on the network, `name` if it has one; zeroconf adds a number if it is
    taken."""
    name = name or f"node-whisper-{host_name()}"
    return name.encode()[:_MAX_LABEL_BYTES].decode(errors="ignore")


class Announcement:
    """Announces `port` on `addresses` from `start` to `stop`."""

    def __init__(self, name: str, port: int, addresses: list[str]) -> None:
        self._name = name
        self._port = port
        self._addresses = addresses
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="announce", daemon=True)

    def start(self) -> None:
        """Begin and return at once. It takes about a second to check that the name is free."""
        self._thread.start()

    def stop(self) -> None:
        """Begin to withdraw the announcement and return at once."""
        self._over.set()

    def join(self, seconds: float) -> bool:
        """Wait until it is withdrawn; return False if that takes longer than `seconds`."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        from zeroconf import Error, ServiceInfo, Zeroconf

        try:
            network = Zeroconf(interfaces=self._addresses)
        except (Error, OSError) as error:
            _log.warning("mDNS announcement failed", error=str(error))
            return
        try:
            service = ServiceInfo(
                SERVICE,
                f"{self._name}.{SERVICE}",
                port=self._port,
                parsed_addresses=self._addresses,
            )
            network.register_service(service, allow_name_change=True)
            _log.info("announced", name=service.name, port=self._port, addresses=self._addresses)
            self._over.wait()
        except (Error, OSError) as error:
            _log.warning("mDNS announcement failed", error=str(error) or type(error).__name__)
        finally:
            # Also sends mDNS's goodbye.
            network.close()
