"""A node with the HTTP port and a fake engine, for tests of its routes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes import ENGLISH, Node
from forms import Answer, answers, request

from app.decoding.transcriber import ModelInfo
from app.model_files.catalog import ModelFile
from app.protocols.model_names import ModelNames
from app.server import Reports
from app.settings import settings as config
from app.startup.sockets import socket_routes
from app.startup.web import Web, web

TOKEN = "a-token-for-the-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NAMES = ModelNames(ENGLISH.name, frozenset({ENGLISH.name, "whisper-1"}))
SOCKETS = socket_routes(config.read([], {}), ENGLISH, NAMES)


def http_node(
    make_node: Callable[..., Node],
    *,
    model: ModelInfo = ENGLISH,
    metrics_auth: bool = False,
    token: bool = True,
    **options: Any,
) -> Node:
    """Start a node whose only port speaks HTTP; with `token` it requires `TOKEN`."""
    parts: Web = web(
        model=model,
        names=NAMES,
        file=ModelFile(Path(__file__), model.name),
        version="1.2.3",
        load=lambda: node.server.load,
        max_body=1 << 24,
        origins=(),
        local=True,
        sockets=SOCKETS,
        metrics_auth=metrics_auth,
        token=token,
    )
    node = make_node(
        model=model,
        new_protocol=parts.new_protocol,
        port={"name": "http", "needs_token": token},
        reports=Reports(parts.reports, parts.guarded),
        observers=parts.observers,
        authorize=lambda given: given == TOKEN,
        **options,
    )
    return node


def ask(node: Node, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """Send one request on a new connection, which ends with the answer."""
    with node.connect() as client:
        client.send(request(method, path, body, Connection="close", **headers))
        data = b"".join(iter(lambda: client.socket.recv(65536), b""))
    return answers(data, method, closed=True)[0]
