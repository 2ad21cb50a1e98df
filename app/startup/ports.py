"""Opens every port that the settings ask for, and says what that means to strangers.

The native port always, HTTP and Wyoming where they are on, one address for all of them. Main
thread, before the loop begins.
"""

from __future__ import annotations

import errno
import ssl
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from app.decoding.transcriber import ModelInfo
from app.network.access_token import AccessToken
from app.network.addresses import reachable_by_others
from app.network.mdns import Announcement
from app.network.ports import Port
from app.protocols.native.protocol import NativeProtocol
from app.settings.settings import Settings
from app.startup import http_port, wyoming_port

if TYPE_CHECKING:
    from app.startup.web import Web

_log = structlog.get_logger("ports")


class CannotListen(Exception):
    """A port cannot be opened; the message says why and what to do, for the user."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The ports the node listens on: the native one's `number`, what the log says of the `others`,
    and the Wyoming port's `announcement`, not begun, if it is to be announced."""

    number: int
    others: Mapping[str, int | str] = field(default_factory=dict)
    announcement: Announcement | None = None


def open_ports(
    settings: Settings,
    *,
    access_token: AccessToken,
    tls: ssl.SSLContext | None,
    web: Web | None,
    model: ModelInfo,
    listen: Callable[[Port], int],
) -> Opened:
    """Open them all by `listen`, which returns a port's number. Raises `CannotListen`."""

    def guarded(port: Port) -> Port:
        return replace(port, tls=tls, needs_token=not access_token.open)

    native = guarded(_native(settings))
    with _explained(native, "--port"):
        number = listen(native)
    others: dict[str, int | str] = {}
    announcement = None
    if (wyoming := wyoming_port.wyoming_port(settings, model)) is not None:
        # Knows neither token nor TLS: whether it may be open is settled (`wyoming_port.fault`).
        with _explained(wyoming, "--wyoming-port"):
            found = others["wyoming_port"] = listen(wyoming)
        announcement = wyoming_port.announcement(settings, found)
    if web is not None:
        http = guarded(http_port.http_port(settings, web))
        with _explained(http, "--http-port"):
            at = http_port.listen(settings, http, listen)
        if at is not None:
            others["http"] = http_port.address(http, at)
    return Opened(number, others, announcement)


def warn_of_strangers(settings: Settings, no_token: bool) -> None:
    """Say in the log what whoever reaches the node can do."""
    if not reachable_by_others(settings.host):
        return
    if no_token and settings.tls_client_ca is None:
        _log.warning(
            "whoever reaches this address can use the node: see --token-file and --tls-client-ca",
            host=settings.host,
        )
    if settings.tls_cert is None:
        _log.warning(
            "audio and text can be read and changed on their way: --tls-cert encrypts them",
            host=settings.host,
        )


def _native(settings: Settings) -> Port:
    def new_protocol() -> NativeProtocol:
        return NativeProtocol(settings.max_message_bytes, lambda: uuid.uuid4().hex)

    return Port("native", settings.host, settings.port, new_protocol)


@contextmanager
def _explained(port: Port, option: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise CannotListen(_advice(port, option, error)) from error


def _advice(port: Port, option: str, error: OSError | UnicodeError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    advice = {
        errno.EADDRINUSE: f"is another node running? {option} takes another, 0 a free one",
        errno.EACCES: f"ports under 1024 are for root; {option} takes another",
    }.get(number or 0, "--host takes an address of this machine, or 0.0.0.0 for all")
    reason = getattr(error, "strerror", None) or "that is no host name"
    return f"cannot listen on {port.host} port {port.number}: {reason}; {advice}"
