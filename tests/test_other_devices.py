"""The address in the log that a person types on another device."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import urllib.request

import psutil
import pytest
from node import HANG, ROOT, Node

from app.network import addresses
from app.network.addresses import addresses_for_others
from app.network.interfaces import Interface, interfaces, is_internal
from app.startup import other_devices


def interface(name: str, driver: str, *texts: str, ports: tuple[str, ...] = ()) -> Interface:
    return Interface(name, driver, tuple(ipaddress.ip_address(text) for text in texts), ports)


@pytest.mark.parametrize(
    ("found", "in_container", "expected"),
    [
        (interface("eth0", "e1000e"), False, False),
        (interface("wlan0", ""), True, False),
        (interface("eth0", "veth"), True, True),
        (interface("tap0", "tun"), True, True),
        # A system container's veth is often connected to the real network.
        (interface("eth0", "veth"), False, False),
        (interface("wg0", "wireguard"), False, False),
        (interface("docker0", "bridge"), False, True),
        (interface("virbr0", "bridge", ports=("tun",)), False, True),
        (interface("br0", "bridge", ports=("veth", "igb")), False, False),
        (interface("eth0", "macvlan"), True, False),
    ],
)
def test_interface_of_a_container_is_internal(
    found: Interface, in_container: bool, expected: bool
) -> None:
    assert is_internal(found, in_container) is expected


LAN = interface("eth0", "igb", "fe80::1", "192.168.1.20", "2001:db8::20")
WLAN = interface("wlan0", "iwlwifi", "10.0.0.7", "169.254.3.4")
TUNNEL = interface("tailscale0", "tun", "100.64.0.9")
DOCKER = interface("docker0", "bridge", "172.17.0.1")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", ["10.0.0.7", "192.168.1.20", "100.64.0.9", "169.254.3.4"]),
        ("::", ["10.0.0.7", "192.168.1.20", "2001:db8::20", "100.64.0.9", "169.254.3.4"]),
    ],
)
def test_address_of_the_default_route_is_first_and_no_link_local_one_of_ipv6(
    host: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "_by_default_route", lambda: {"10.0.0.7"})
    assert addresses_for_others([TUNNEL, DOCKER, LAN, WLAN], host, in_container=False) == expected


def test_bridge_with_the_default_route_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_by_default_route", lambda: {"172.17.0.1"})
    assert addresses_for_others([DOCKER], "0.0.0.0", in_container=False) == ["172.17.0.1"]


@pytest.mark.parametrize(
    ("in_container", "expected"),
    [(True, other_devices.CONTAINER), (False, other_devices.NO_NETWORK)],
)
def test_hint_says_why_there_is_no_address(
    in_container: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_devices, "interfaces", lambda: [DOCKER])
    monkeypatch.setattr(other_devices, "in_container", lambda: in_container)
    monkeypatch.setattr(addresses, "_by_default_route", set)
    assert other_devices.hint("0.0.0.0", str) == expected


def test_interfaces_have_the_addresses_that_psutil_lists() -> None:
    up = {name for name, about in psutil.net_if_stats().items() if about.isup and name != "lo"}
    listed = {
        (name, entry.address)
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and entry.family == 2
    }
    found = {(one.name, str(address)) for one in interfaces() for address in one.addresses}
    assert {(name, address) for name, address in found if "." in address} == listed


IN_A_NAMESPACE = """
ip link set lo up
ip link add lan0 type veth peer name lan1
ip address add 192.168.77.20/24 dev lan0
ip address add 192.168.77.21/24 dev lan0
ip address add 2001:db8:77::20/64 dev lan0 nodad
ip link set lan0 up
ip link set lan1 up
ip link add off0 type veth peer name off1
ip address add 192.168.78.20/24 dev off0
exec "$0" -c '
from app.network.interfaces import interfaces
for one in interfaces():
    for address in one.addresses:
        if not address.is_link_local:
            print(one.name, one.driver, address)
'
"""


def test_interfaces_of_a_namespace_have_drivers_and_all_addresses() -> None:
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-ec", IN_A_NAMESPACE]
    try:
        done = subprocess.run(
            [*command, sys.executable], cwd=ROOT, capture_output=True, text=True, timeout=HANG
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "Traceback" not in done.stderr and done.returncode != 0:
        pytest.skip(f"no network namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {
        "lan0 veth 192.168.77.20",
        "lan0 veth 192.168.77.21",
        "lan0 veth 2001:db8:77::20",
    }


@pytest.mark.slow
def test_log_has_the_page_for_other_devices() -> None:
    with Node("--host", "0.0.0.0", "--http-port", "0") as node:
        hint = node.listening["from_other_devices"]
        if hint in (other_devices.CONTAINER, other_devices.NO_NETWORK):
            pytest.skip("this machine is in no network")
        for address in hint.split():
            assert "127.0.0.1" not in address
            with urllib.request.urlopen(address, timeout=HANG) as answer:
                assert b"<title>node-whisper</title>" in answer.read()
