"""Tells the local network where the Wyoming port is (mDNS), so that Home Assistant finds it.

The zeroconf package does it; it is an extra (requirements-announce.txt), loaded only where
`--announce` asks for it. An `Announcement` has a thread of its own, and zeroconf makes another for
its sockets; neither touches the node's loop or its requests. What goes wrong there is a line in the
log: a node that nobody found by itself still serves whoever knows its address.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
import threading

import structlog

SERVICE = "_wyoming._tcp.local."
"""What Home Assistant's Wyoming integration looks for."""

_MAX_LABEL_BYTES = 63
"""Of one part of a DNS name (RFC 1035)."""

_log = structlog.get_logger("announce")


class AnnounceError(Exception):
    """There is nothing that could be announced; the message is a sentence for the user."""


def reachable_addresses(host: str) -> list[str]:
    """The addresses under which others reach a node that listens on `host`.

    Where that is every address of the machine, they are those that it has now. Raises
    `AnnounceError` if zeroconf is missing or nobody else can reach the node.
    """
    if importlib.util.find_spec("zeroconf") is None:
        raise AnnounceError(
            "--announce needs the zeroconf package: pip install -r requirements-announce.txt"
        )
    import ifaddr

    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise AnnounceError(f"--announce: {host} is no address of this machine") from None
    wanted = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if any(address.is_unspecified for address in wanted):
        # An IPv4 address is a string there, an IPv6 address the first item of a tuple.
        listed = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
        addresses = [
            ipaddress.ip_address(ip if isinstance(ip, str) else ip[0].partition("%")[0])
            for ip in listed
        ]
        families = {6, 4} if any(address.version == 6 for address in wanted) else {4}
        wanted = [address for address in addresses if address.version in families]
    # A link-local address means nothing without the interface, which mDNS cannot name.
    reachable = [
        str(address)
        for address in dict.fromkeys(wanted)
        if not (address.is_loopback or (address.version == 6 and address.is_link_local))
    ]
    if not reachable:
        raise AnnounceError(
            f"--announce: nobody else can reach {host}; --host 0.0.0.0 opens it to the network"
        )
    return reachable


def instance_name() -> str:
    """What this node is called in the network; a second one on the machine gets a number."""
    name = f"node-whisper-{socket.gethostname().partition('.')[0]}"
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
        """Begin; returns at once. Asking whether the name is free takes a second or so."""
        self._thread.start()

    def stop(self) -> None:
        """Begin to take the announcement back; returns at once."""
        self._over.set()

    def join(self, seconds: float) -> bool:
        """Wait until it is taken back; False if that takes longer than `seconds`."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        from zeroconf import Error, ServiceInfo, Zeroconf

        try:
            network = Zeroconf(interfaces=self._addresses)
        except (Error, OSError) as error:
            _log.warning("not announced", error=str(error))
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
            _log.warning("not announced", error=str(error) or type(error).__name__)
        finally:
            # Says goodbye as well.
            network.close()
