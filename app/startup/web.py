"""Builds the handlers of the HTTP port: routes, page, metrics and status.

Main thread, at start. Imported by `app/startup/http_port.py` only if the port is on.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial

from app.decoding.transcriber import ModelInfo
from app.messages import QueryKind, Report
from app.model_files import catalog
from app.monitoring.ignored_fields import IgnoredFields
from app.monitoring.metrics import Metrics
from app.monitoring.status import Status
from app.network.ports import Network, Proxies
from app.page import files as pages
from app.protocols.http.answer import encoded
from app.protocols.http.openapi import document
from app.protocols.http.protocol import PERMITTED, HttpProtocol
from app.protocols.http.site import Site, SocketRoute
from app.protocols.model_names import ModelNames
from app.requests.load import Load
from app.requests.outcomes import Observer


@dataclass(frozen=True, slots=True)
class Web:
    """The parts for the port (`new_protocol`, `proxies`) and for the server (`observers`,
    `reports`). `guarded` names the reports that require the token."""

    new_protocol: Callable[[], HttpProtocol]
    proxies: Proxies
    observers: tuple[Observer, ...]
    reports: Mapping[QueryKind, Callable[[], Report]]
    guarded: frozenset[QueryKind]


def web(
    *,
    model: ModelInfo,
    names: ModelNames,
    file: catalog.ModelFile,
    version: str,
    load: Callable[[], Load],
    max_body: int,
    origins: tuple[str, ...],
    local: bool,
    secure: bool = False,
    metrics_auth: bool,
    token: bool = False,
    sockets: Mapping[str, SocketRoute],
    trusted_proxies: tuple[Network, ...] = (),
) -> Web:
    """Build the handlers. Raises `OSError` if the page cannot be read.

    `load` returns the node's load. `local` is true if only this machine can reach the port,
    `secure` if it has TLS, and `token` if it requires one. `sockets` are its addresses for
    WebSockets. The rest is as in the settings."""
    probes: frozenset[QueryKind] = frozenset({"ready", "metrics"})
    private: frozenset[QueryKind] = frozenset({"status", "own"})
    guarded = private | probes if metrics_auth else private
    files = {path: (page.content_type, page.body) for path, page in pages.load().items()}
    described = document.Port(version, files, sockets, token, frozenset(guarded))
    site = Site(
        served=names,
        created=int(file.path.stat().st_mtime),
        max_body=max_body,
        pages=files,
        origins=frozenset(origins),
        local=local,
        sockets=sockets,
        secure=secure,
        date=partial(formatdate, usegmt=True),
        proxies=trusted_proxies,
        openapi=encoded(document.document(described)),
    )
    metrics = Metrics(load, model.name, version)
    status = Status(load, model, version)

    def new_id() -> str:
        return uuid.uuid4().hex

    return Web(
        new_protocol=partial(HttpProtocol, site, new_id),
        proxies=Proxies(trusted_proxies, partial(HttpProtocol, site, new_id, proxied=True)),
        observers=(metrics, status, IgnoredFields()),
        reports={
            "ready": status.ready,
            "metrics": metrics.report,
            "status": status.report,
            "own": lambda: PERMITTED,
        },
        guarded=guarded,
    )
