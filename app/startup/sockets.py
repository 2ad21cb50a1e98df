"""The addresses for WebSockets: OpenAI's Realtime API and Vosk.

Their code, and wsproto with it, is imported at the first upgrade: 3 MiB that a node without live
clients does not need. Main thread at start; the sessions are made on the loop thread.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from email.utils import formatdate
from functools import partial

from app.decoding.transcriber import ModelInfo
from app.network.addresses import reachable_by_others
from app.network.ports import Port, Proxies
from app.protocols.base import Session
from app.protocols.http.protocol import HttpProtocol
from app.protocols.http.site import Site, SocketRoute
from app.protocols.model_names import ModelNames
from app.protocols.websocket.handshake import Opening
from app.settings.settings import Settings
from app.startup.model import language_of


def socket_routes(
    settings: Settings, model: ModelInfo, names: ModelNames
) -> Mapping[str, SocketRoute]:
    """Return the addresses on the HTTP port, by path."""

    def realtime(opening: Opening) -> Session:
        from app.protocols.realtime.config import Node
        from app.protocols.realtime.dialogue import RealtimeDialogue
        from app.protocols.websocket.session import WebSocketSession

        node = Node(
            names=names,
            languages=model.languages,
            language=language_of(settings, model),
            threshold=settings.vad_threshold,
            multilingual=model.multilingual,
        )
        dialogue = RealtimeDialogue(node, uuid.uuid4().hex[:16], opening.beta)
        return WebSocketSession(dialogue, lambda: uuid.uuid4().hex, opening.token)

    vosk = _vosk_route()
    return {
        "/v1/realtime": SocketRoute(realtime, frozenset({"realtime"})),
        "/vosk": vosk,
        # Clients of vosk-server connect to the root.
        "/": vosk,
    }


def vosk_port(settings: Settings, number: int) -> Port:
    """Return the port for Vosk's clients, to be guarded like the HTTP port."""
    site = Site(
        served=ModelNames("", frozenset()),
        created=0,
        max_body=0,
        origins=frozenset(settings.cors_origin),
        local=not reachable_by_others(settings.host),
        sockets={"*": _vosk_route()},
        secure=settings.tls_cert is not None,
        date=partial(formatdate, usegmt=True),
        proxies=settings.trusted_proxy,
    )

    def new_protocol(proxied: bool = False) -> HttpProtocol:
        return HttpProtocol(site, lambda: uuid.uuid4().hex, proxied)

    proxies = Proxies(settings.trusted_proxy, partial(new_protocol, proxied=True))
    return Port("vosk", settings.host, number, new_protocol, proxies=proxies)


def _vosk_route() -> SocketRoute:
    def vosk(opening: Opening) -> Session:
        from app.protocols.vosk.dialogue import VoskDialogue
        from app.protocols.websocket.session import WebSocketSession

        return WebSocketSession(VoskDialogue(), lambda: uuid.uuid4().hex, opening.token)

    return SocketRoute(vosk, frozenset({"vosk"}))
