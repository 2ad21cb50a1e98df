"""Opens every port that the settings ask for, and warns about ports open to the network.

The native port is open unless it is turned off, HTTP and Wyoming if they are on, all at one
address. Main thread, before the loop begins.
"""

from __future__ import annotations

import errno
import ssl
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from app.decoding.transcriber import ModelInfo
from app.network.access_token import AccessToken
from app.network.addresses import reachable_by_others, stands_for_all
from app.network.mdns import Announcement
from app.network.ports import Port
from app.protocols.model_names import ModelNames
from app.protocols.native.protocol import NativeProtocol
from app.settings.settings import Settings
from app.startup import http_port, other_devices, wyoming_port

if TYPE_CHECKING:
    from app.startup.web import Web

_log = structlog.get_logger("ports")


class CannotListen(Exception):
    """A port cannot be opened; the message says why and what to do, for the user."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The open ports: the native port's `number`, None if it is off, log fields of the `others`,
    and the Wyoming port's `announcement`, not yet started, or None."""

    number: int | None
    others: Mapping[str, int | str] = field(default_factory=dict)
    announcement: Announcement | None = None


def open_ports(
    settings: Settings,
    *,
    access_token: AccessToken,
    tls: ssl.SSLContext | None,
    web: Web | None,
    model: ModelInfo,
    names: ModelNames,
    listen: Callable[[Port], int],
) -> Opened:
    """Open all ports with `listen`, which returns a port's number. Raises `CannotListen`."""

    def guarded(port: Port) -> Port:
        return replace(port, tls=tls, needs_token=not access_token.open)

    number = None
    at_host: Callable[[str], str] = str  # the other ports have fields of their own
    if settings.port is not None:
        native = guarded(_native(settings, settings.port))
        with _explained(native, "--port"):
            number = listen(native)
        at_host = partial(_host_and_port, number=number)
    others: dict[str, int | str] = {}
    announcement = None
    if (wyoming := wyoming_port.wyoming_port(settings, model, names)) is not None:
        # Wyoming supports neither token nor TLS; `wyoming_port.fault` has decided that it may open.
        with _explained(wyoming, "--wyoming-port"):
            found = others["wyoming_port"] = listen(wyoming)
        announcement = wyoming_port.announcement(settings, found)
    if web is not None:
        http = guarded(http_port.http_port(settings, web))
        with _explained(http, "--http-port"):
            at = http_port.listen(settings, http, listen)
        if at is not None:
            others["http"] = http_port.address(http, at)
            at_host = partial(http_port.address, http, at)
    if settings.vosk_port is not None:
        # Imported late, as the HTTP port's code is.
        from app.startup.sockets import vosk_port

        vosk = guarded(vosk_port(settings, settings.vosk_port))
        with _explained(vosk, "--vosk-port"):
            others["vosk_port"] = listen(vosk)
    if (number is not None or others) and stands_for_all(settings.host):
        others["from_other_devices"] = other_devices.hint(settings.host, at_host)
    return Opened(number, others, announcement)


def warn_of_strangers(settings: Settings, no_token: bool) -> None:
    """Log a warning for each protection that a node open to the network lacks."""
    if "null" in settings.cors_origin and settings.http_port is not None:
        _log.warning(
            "--cors-origin null admits any page, because each can give itself this origin;"
            " name the program's own origin if it has one"
        )
    if any(network.prefixlen == 0 for network in settings.trusted_proxy):
        _log.warning(
            "--trusted-proxy names every address, so any client can pretend to be another; name"
            " the proxy's own address"
        )
    closed = settings.port is settings.http_port is settings.wyoming_port is None
    if closed or not reachable_by_others(settings.host):
        return
    if no_token and settings.tls_client_ca is None:
        _log.warning(
            "no access control: anyone on the network can use the node; set --token-file"
            " or --tls-client-ca",
            host=settings.host,
        )
    if settings.tls_cert is None:
        _log.warning(
            "no encryption: audio and text can be read in transit; set --tls-cert",
            host=settings.host,
        )


def _native(settings: Settings, number: int) -> Port:
    def new_protocol() -> NativeProtocol:
        return NativeProtocol(settings.max_message_bytes, lambda: uuid.uuid4().hex)

    return Port("native", settings.host, number, new_protocol)


def _host_and_port(host: str, number: int) -> str:
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


@contextmanager
def _explained(port: Port, option: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise CannotListen(_advice(port, option, error)) from error


def _advice(port: Port, option: str, error: OSError | UnicodeError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    advice = {
        errno.EADDRINUSE: f"is another node running? Choose another port with {option}",
        errno.EACCES: f"ports below 1024 require root; choose another port with {option}",
    }.get(number or 0, "set --host to an address of this machine, or to 0.0.0.0 for all")
    reason = getattr(error, "strerror", None) or "invalid host name"
    return f"cannot listen on {port.host} port {port.number}: {reason}; {advice}"
