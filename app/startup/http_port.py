"""The HTTP port that the settings ask for, and the address that the log shows.

The code of the port is imported only if the port is on. Main thread, before the loop begins.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from app import __version__
from app.decoding.transcriber import ModelInfo
from app.model_files import catalog
from app.network.addresses import reachable_by_others, stands_for_all
from app.network.ports import Port
from app.protocols.model_names import ModelNames
from app.requests.load import Load
from app.settings.settings import Settings

if TYPE_CHECKING:
    from app.startup.protection import Protection
    from app.startup.web import Web

USUAL_PORT = 8080

_log = structlog.get_logger("http")


def web_of(
    settings: Settings,
    model: ModelInfo,
    names: ModelNames,
    file: catalog.ModelFile,
    load: Callable[[], Load],
    protected: Protection,
) -> Web | None:
    """Build the handlers of the port; None if it is off."""
    if settings.http_port is None:
        return None
    # h11, prometheus_client and the code of the port are 5 MiB, which a node without HTTP spares.
    from app.startup.sockets import socket_routes
    from app.startup.web import web

    return web(
        model=model,
        names=names,
        file=file,
        version=__version__,
        load=load,
        max_body=settings.max_message_bytes,
        origins=settings.cors_origin,
        local=not reachable_by_others(settings.host),
        secure=settings.tls_cert is not None,
        metrics_auth=settings.metrics_auth,
        token=not protected.access_token.open,
        sockets=socket_routes(settings, model, names),
        trusted_proxies=settings.trusted_proxy,
    )


def http_port(settings: Settings, web: Web) -> Port:
    """Return the port to listen on."""
    number = settings.http_port if isinstance(settings.http_port, int) else USUAL_PORT
    return Port("http", settings.host, number, web.new_protocol, proxies=web.proxies)


def listen(settings: Settings, port: Port, listen_on: Callable[[Port], int]) -> int | None:
    """Listen and return the port's number; None, with a warning, if `auto` finds 8080 in use.

    Raises the errors of `listen_on`.
    """
    try:
        return listen_on(port)
    except OSError as error:
        if settings.http_port != "auto" or error.errno != errno.EADDRINUSE:
            raise
    _log.warning("HTTP is off: port in use; choose another with --http-port", port=port.number)
    return None


def address(port: Port, number: int, host: str = "") -> str:
    """Return the URL of the page for a browser on this machine, or of the page at `host`."""
    host = host or ("localhost" if stands_for_all(port.host) else port.host)
    name = f"[{host}]" if ":" in host else host
    return f"{'http' if port.tls is None else 'https'}://{name}:{number}/"
