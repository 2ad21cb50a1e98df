"""The hint in the log at which address other devices reach a node that listens at all addresses.

Main thread, once the ports are open.
"""

from __future__ import annotations

from collections.abc import Callable

from app.network.addresses import addresses_for_others
from app.network.interfaces import in_container, interfaces

MOST = 3
"""Addresses in the hint; a machine may have many."""

CONTAINER = "the address of the container's host, and the port that it publishes"
NO_NETWORK = "none: this machine is in no network"


def hint(host: str, at: Callable[[str], str]) -> str:
    """Return the addresses to type on another device, the best one first, or why there is none.
    `at` writes one down, with the port."""
    inside = in_container()
    if found := addresses_for_others(interfaces(), host, inside):
        return " ".join(map(at, found[:MOST]))
    return CONTAINER if inside else NO_NETWORK
