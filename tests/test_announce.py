"""The mDNS announcement of the node, seen by the zeroconf package, which Home Assistant uses."""

from __future__ import annotations

import errno
import importlib.util
import socket
import threading
from collections.abc import Iterator
from typing import Any

import ifaddr
import pytest
import structlog
import zeroconf
from node import Node, run
from zeroconf import ServiceListener, Zeroconf

from app.network import mdns as announce
from app.network.mdns import SERVICE, AnnounceError, Announcement, reachable_addresses

HANG = 60.0
"""Seconds until a test gives up; no test measures time with it."""


class Browser(ServiceListener):
    """The services found on the network of `address`: ports and addresses by name."""

    def __init__(self, address: str) -> None:
        self.network = Zeroconf(interfaces=[address])
        self.found: dict[str, tuple[int, list[str]]] = {}
        self._changed = threading.Condition()
        self.network.add_service_listener(SERVICE, self)

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        info = zc.get_service_info(type_, name, timeout=HANG * 1000)
        with self._changed:
            if info is not None and info.port is not None:
                self.found[name] = (info.port, info.parsed_addresses())
            self._changed.notify_all()

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        with self._changed:
            self.found.pop(name, None)
            self._changed.notify_all()

    def wait(self, name: str, port: int | None) -> bool:
        """Wait until `name` is found with `port`, or, if that is None, has disappeared."""

        def holds() -> bool:
            return (self.found[name][0] if name in self.found else None) == port

        with self._changed:
            return self._changed.wait_for(holds, HANG)


@pytest.fixture
def browser() -> Iterator[Browser]:
    browser = Browser("127.0.0.1")
    yield browser
    browser.network.close()


def end(announcement: Announcement) -> None:
    announcement.stop()
    assert announcement.join(HANG)


def test_announcement_is_found_until_it_ends(browser: Browser) -> None:
    first = Announcement("one", 10_300, ["127.0.0.1"])
    first.start()
    assert browser.wait(f"one.{SERVICE}", 10_300)
    assert browser.found[f"one.{SERVICE}"] == (10_300, ["127.0.0.1"])

    # A second node with the same name gets a number.
    second = Announcement("one", 10_301, ["127.0.0.1"])
    second.start()
    assert browser.wait(f"one-2.{SERVICE}", 10_301)
    end(second)
    assert browser.wait(f"one-2.{SERVICE}", None)
    assert browser.wait(f"one.{SERVICE}", 10_300)

    end(first)
    assert browser.wait(f"one.{SERVICE}", None)


def test_announcement_can_end_before_it_has_begun() -> None:
    announcement = Announcement("early", 10_300, ["127.0.0.1"])
    announcement.start()
    end(announcement)


def test_announcement_logs_an_error_and_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(zeroconf, "Zeroconf", fail)
    announcement = Announcement("nowhere", 10_300, ["203.0.113.1"])
    with structlog.testing.capture_logs() as entries:
        announcement.start()
        end(announcement)
    assert [(entry["event"], entry["log_level"]) for entry in entries] == [
        ("mDNS announcement failed", "warning")
    ]


def test_instance_name_fits_into_a_dns_label(monkeypatch: pytest.MonkeyPatch) -> None:
    assert announce.instance_name().startswith("node-whisper-")
    monkeypatch.setattr(socket, "gethostname", lambda: "kitchen.example")
    assert announce.instance_name() == "node-whisper-kitchen"
    assert announce.instance_name("kitchen") == "kitchen"
    monkeypatch.setattr(socket, "gethostname", lambda: "ü" * 63)
    assert len(announce.instance_name().encode()) in (62, 63)


class _Adapter:
    def __init__(self, *addresses: Any) -> None:
        self.ips = [ifaddr.IP(address, 24, "eth0") for address in addresses]


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("0.0.0.0", ["192.0.2.7", "198.51.100.7"]),
        ("::", ["192.0.2.7", "2001:db8::7", "198.51.100.7"]),
        ("192.0.2.9", ["192.0.2.9"]),
        ("2001:db8::9", ["2001:db8::9"]),
    ],
)
def test_reachable_addresses_are_those_of_the_network(
    monkeypatch: pytest.MonkeyPatch, host: str, addresses: list[str]
) -> None:
    adapters = [
        _Adapter("127.0.0.1", ("::1", 0, 0)),
        _Adapter("192.0.2.7", ("2001:db8::7", 0, 0), ("fe80::7", 0, 2)),
        _Adapter("198.51.100.7", "192.0.2.7"),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    assert reachable_addresses(host) == addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "no such host"])
def test_reachable_addresses_rejects_an_unreachable_host(host: str) -> None:
    with pytest.raises(AnnounceError, match="--announce"):
        reachable_addresses(host)


def test_reachable_addresses_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AnnounceError, match=r"requirements-announce\.txt"):
        reachable_addresses("0.0.0.0")


# In a real node.


def own_address() -> str | None:
    """An address of this machine that other machines could reach, or None."""
    try:
        return reachable_addresses("0.0.0.0")[0]
    except AnnounceError:
        return None


def test_node_announces_its_port_until_it_ends() -> None:
    address = own_address()
    if address is None or ":" in address:
        pytest.skip("this machine has no network")
    browser = Browser(address)
    try:
        with Node("--wyoming-port", "0", "--host", address, "--announce") as node:
            name = node.wait_for_log("announced")["name"]
            assert browser.wait(name, node.listening["wyoming_port"])
            assert browser.found[name][1] == [address]
            assert node.stop() == 0
        assert browser.wait(name, None)
    finally:
        browser.network.close()


@pytest.mark.parametrize("more", [["--wyoming-port", "0"], ["--host", "0.0.0.0"]])
def test_node_with_nothing_to_announce_does_not_start(more: list[str]) -> None:
    status, out, error = run("--port", "0", "--announce", *more)
    assert (status, out) == (2, "")
    assert "--announce" in error
