"""The Wyoming port that the settings ask for, its description of the node, and its announcement.

Main thread, before the loop begins.
"""

from __future__ import annotations

import uuid

from app import __version__
from app.decoding.transcriber import ModelInfo
from app.network.addresses import reachable_by_others
from app.network.mdns import (
    AnnounceError,
    Announcement,
    host_name,
    instance_name,
    reachable_addresses,
)
from app.network.ports import Port
from app.protocols.model_names import ModelNames
from app.protocols.wyoming.events import Program
from app.protocols.wyoming.protocol import WyomingProtocol
from app.settings.settings import Settings


def fault(settings: Settings, protected: bool) -> str | None:
    """Return why the settings conflict, as a sentence for the user, or None.

    `protected` is true if the other ports require a token or TLS.
    """
    if settings.announce and settings.wyoming_port is None:
        return "--announce needs the Wyoming port: add --wyoming-port 10300"
    if settings.wyoming_port is None:
        return None
    if protected and not settings.wyoming_open and reachable_by_others(settings.host):
        return (
            f"Wyoming supports neither token nor TLS; its port on {settings.host} would bypass the"
            " protection of the other ports: add --wyoming-open to accept that (and"
            " --wyoming-allow to limit the clients), or remove --wyoming-port"
        )
    if settings.announce:
        try:
            reachable_addresses(settings.host)
        except AnnounceError as error:
            return str(error)
    return None


def wyoming_port(settings: Settings, model: ModelInfo, names: ModelNames) -> Port | None:
    """Return the port to listen on; None if it is off."""
    if settings.wyoming_port is None:
        return None
    program = Program(
        version=__version__,
        names=names,
        languages=tuple(sorted(model.languages)),
        streaming=settings.wyoming_streaming,
        name=settings.name or f"node-whisper {model.name} on {host_name()}",
        task=settings.task,
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
    """Return the mDNS announcement of Wyoming port `number`, not yet started, or None."""
    if not settings.announce:
        return None
    return Announcement(instance_name(settings.name), number, reachable_addresses(settings.host))
