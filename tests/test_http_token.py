"""The token on every route of the HTTP port: which of them require it, in the node's own server."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial

import pytest
from fakes import Node, encoded, tone
from forms import Answer, answers, form, request
from http_node import BEARER, SOCKETS, TOKEN, ask, http_node

from app.page import files
from app.protocols.http.routes import MODEL, ROUTES, Upload

OPEN = {"/healthz", "/health", *files.load()}
"""The paths that never require the token: the page has to ask for it."""

PROBES = {"/readyz", "/metrics"}
"""The paths that require it with `--metrics-auth`."""

GETS = sorted({path for path, found in ROUTES.items() if not isinstance(found, Upload)} | OPEN)
GETS += [MODEL + "whisper-1", MODEL + "unknown"]
UPLOADS = sorted(path for path, found in ROUTES.items() if isinstance(found, Upload))

WRONG: dict[str, dict[str, str]] = {
    "missing": {},
    "wrong": {"Authorization": f"Bearer {TOKEN}x"},
    "shorter": {"Authorization": f"Bearer {TOKEN[:-1]}"},
    "empty": {"Authorization": "Bearer "},
    "scheme": {"Authorization": "Basic " + base64.b64encode(f":{TOKEN}".encode()).decode()},
    "bare": {"Authorization": TOKEN},
    "cookie": {"Cookie": f"token={TOKEN}"},
}


@pytest.fixture
def serve(make_node: Callable[..., Node]) -> Callable[..., Node]:
    return partial(http_node, make_node)


def refused(answer: Answer, method: str) -> bool:
    if answer.status != 401:
        return False
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/json"
    assert method == "HEAD" or b"missing or invalid token" in answer.body
    assert "x-model" not in answer.headers
    assert method != "HEAD" or answer.body == b""
    return True


@pytest.mark.parametrize("metrics_auth", [False, True])
def test_every_route_is_open_or_requires_the_token(
    serve: Callable[..., Node], metrics_auth: bool
) -> None:
    node = serve(metrics_auth=metrics_auth)
    unlocked = OPEN if metrics_auth else OPEN | PROBES
    seen = {
        (path, method, name)
        for path in GETS
        for method in ("GET", "HEAD")
        for name, headers in WRONG.items()
        if refused(ask(node, method, path, **headers), method)
    }
    locked = [path for path in GETS if path not in unlocked]
    assert {"/v1/models", "/status", MODEL + "unknown"} <= set(locked)
    assert seen == {(path, m, name) for path in locked for m in ("GET", "HEAD") for name in WRONG}


def test_every_upload_requires_the_token(serve: Callable[..., Node]) -> None:
    node = serve()
    body = form(("file", encoded(tone(1600))), ("audio_file", encoded(tone(1600))))
    kind = {"Content_Type": "multipart/form-data; boundary=XyZ0"}
    for path in UPLOADS:
        for name, headers in WRONG.items():
            answer = ask(node, "POST", f"{path}?token={TOKEN}", body, **kind, **headers)
            assert refused(answer, "POST"), (path, name)
    assert node.engine.calls == []


def socket_headers(**more: str) -> dict[str, str]:
    fields = {
        "Upgrade": "websocket",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec_WebSocket_Version": "13",
    }
    return {**fields, **more}


def opening(node: Node, path: str, **headers: str) -> int:
    """The status of the answer to the opening of a WebSocket."""
    data = request("GET", path, **socket_headers(Connection="Upgrade", **headers))
    with node.connect() as client:
        client.send(data)
        return int(client.socket.recv(65536).split(b" ")[1])


def test_every_websocket_requires_the_token(serve: Callable[..., Node]) -> None:
    node = serve()
    assert set(SOCKETS) >= {"/v1/realtime", "/vosk", "/"}
    encoded_token = base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
    places: list[tuple[str, dict[str, str]]] = [
        ("", BEARER),
        ("", {"Sec_WebSocket_Protocol": f"realtime, node-whisper-token.{encoded_token}"}),
        ("", {"Sec_WebSocket_Protocol": f"realtime, openai-insecure-api-key.{TOKEN}"}),
        (f"?token={TOKEN}", {}),
    ]
    for path in SOCKETS:
        for headers in WRONG.values():
            assert opening(node, path, **headers) == 401, path
        assert opening(node, f"{path}?token=wrong") == 401
        for query, headers in places:
            assert opening(node, path + query, **headers) == 101, (path, query, headers)


@pytest.fixture
def answered(serve: Callable[..., Node]) -> dict[str, Answer]:
    node = serve()
    return {path: ask(node, "GET", path, **BEARER) for path in GETS}


def test_each_request_of_a_connection_needs_the_token(serve: Callable[..., Node]) -> None:
    data = request("GET", "/status", **BEARER) + request("GET", "/status")
    with serve().connect() as client:
        client.send(data + request("GET", "/healthz", Connection="close"))
        received = b"".join(iter(lambda: client.socket.recv(65536), b""))
    found = answers(received, "GET", "GET", "GET", closed=True)
    assert [answer.status for answer in found] == [200, 401, 200]


def test_valid_token_opens_every_route(answered: dict[str, Answer]) -> None:
    unknown = answered.pop(MODEL + "unknown")
    assert {answer.status for answer in answered.values()} == {200}
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
    assert unknown.error["type"] == "invalid_request_error"
    one = answered[MODEL + "whisper-1"].json
    assert (one["id"], one["object"]) == ("whisper-1", "model")
    assert one in answered["/v1/models"].json["data"]


def test_node_without_a_token_answers_every_route(serve: Callable[..., Node]) -> None:
    node = serve(token=False)
    found = {path: ask(node, "GET", path).status for path in GETS}
    assert set(found.values()) == {200, 404}
    assert found[MODEL + "unknown"] == 404


def test_head_of_a_private_answer_has_the_fields_of_get(serve: Callable[..., Node]) -> None:
    node = serve()
    for path in ("/v1/models", MODEL + "whisper-1", MODEL + "unknown"):
        get, head = (ask(node, method, path, **BEARER) for method in ("GET", "HEAD"))
        assert (head.status, head.body) == (get.status, b"")
        for answer in (get, head):
            del answer.headers["date"]
        assert head.headers == get.headers
