"""The Wyoming port, as the settings ask for it.

Whether it may be opened at all, what it says of the node, and its announcement. Main thread, before
the loop begins.
"""

from __future__ import annotations

import uuid

from app import __version__
from app.decoding.transcriber import ModelInfo
from app.model_files import catalog
from app.network.addresses import reachable_by_others
from app.network.mdns import AnnounceError, Announcement, instance_name, reachable_addresses
from app.network.ports import Port
from app.protocols.wyoming.events import Program
from app.protocols.wyoming.protocol import WyomingProtocol
from app.settings.settings import Settings


def fault(settings: Settings, protected: bool) -> str | None:
    """Why the settings do not go together, as a sentence for the user; `protected` if the other
    ports ask for a token or for TLS."""
    if settings.announce and settings.wyoming_port is None:
        return "--announce is about the Wyoming port: give it one by --wyoming-port 10300"
    if settings.wyoming_port is None:
        return None
    if protected and not settings.wyoming_open and reachable_by_others(settings.host):
        return (
            f"Wyoming knows neither token nor TLS, so on {settings.host} its port would let in"
            " everybody whom the others keep out: give --wyoming-open if that is meant (and"
            " --wyoming-allow to say who), or leave --wyoming-port out"
        )
    if settings.announce:
        try:
            reachable_addresses(settings.host)
        except AnnounceError as error:
            return str(error)
    return None


def wyoming_port(settings: Settings, model: ModelInfo) -> Port | None:
    """The port to listen on, None if it is off."""
    if settings.wyoming_port is None:
        return None
    entry = catalog.find(model.name)
    program = Program(
        version=__version__,
        model=model.name,
        names=frozenset({model.name} if entry is None else {model.name, entry.model}),
        languages=tuple(sorted(model.languages)),
        streaming=settings.wyoming_streaming,
    )

    def new_protocol() -> WyomingProtocol:
        return WyomingProtocol(program, settings.max_message_bytes, lambda: uuid.uuid4().hex)

    return Port(
        "wyoming",
        settings.host,
        settings.wyoming_port,
        new_protocol,
        allowed=settings.wyoming_allow or None,
    )


def announcement(settings: Settings, number: int) -> Announcement | None:
    """What tells the network of the Wyoming port `number`, not begun; None if nothing is to."""
    if not settings.announce:
        return None
    return Announcement(instance_name(), number, reachable_addresses(settings.host))
