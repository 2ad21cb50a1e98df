"""The OpenAPI document of a node's HTTP port, made from its routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from app import messages
from app.protocols.http.answer import JSON
from app.protocols.http.openapi.schemas import SCHEMAS, Schema, one_of, ref
from app.protocols.http.openapi.uploads import SHAPES, operation
from app.protocols.http.replies import STATUS
from app.protocols.http.routes import (
    MODEL,
    READ,
    ROUTES,
    WRITE,
    Fixed,
    NodeReport,
    Upload,
    allowed_methods,
)

_GUARDS = {
    "wrong_origin": 403,
    "wrong_host": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "precondition_failed": 412,
    "upgrade_required": 426,
    "method_unknown": 501,
}
"""Status by code, of the errors that come before a request has a dialect."""

_UNSENT = {messages.CANCELLED, messages.QUARANTINED, messages.JOURNAL_DAMAGED}
"""The codes that only stdout has."""

CODES = {code: status for code, status in (STATUS | _GUARDS).items() if code not in _UNSENT}
_UPLOAD_ERRORS = (400, 401, 403, 404, 408, 413, 415, 500, 503, 507)
_RETRIED = (408, 503, 507)
_TOKEN = "token"

_REPORTS: dict[str, tuple[str, str, Schema]] = {
    "ready": ("Whether a further request would be accepted at once", JSON, ref("Readiness")),
    "metrics": ("Metrics for Prometheus", "text/plain", {"type": "string"}),
    "status": ("Model, queue and the latest requests", JSON, ref("Status")),
    "health": ("Whether the node runs", JSON, ref("Health")),
    "models": ("The names of the loaded model", JSON, ref("Models")),
    "model": ("One name of the loaded model", JSON, ref("Model")),
    "openapi": ("This document", JSON, {"type": "object"}),
}


@dataclass(frozen=True, slots=True)
class Port:
    """The facts about a port that its document depends on: the files of its `pages` and the
    addresses of its `sockets` by path, whether it requires a `token`, and the guarded `reports`."""

    version: str
    pages: Iterable[str]
    sockets: Iterable[str]
    token: bool
    reports: frozenset[str]


def document(port: Port) -> dict[str, Any]:
    """Return the document."""
    paths = {path: _operations(found, port) for path, found in ROUTES.items()}
    paths[f"{MODEL}{{model}}"] = _operations(Fixed("model"), port)
    paths |= _pages(port)
    for path in port.sockets:
        paths.setdefault(path, {})["get"] = _socket(paths.get(path, {}).get("get"), port)
    for path, operations in paths.items():
        for method, found in operations.items():
            found["operationId"] = _identifier(method, path)
    components: dict[str, Any] = {
        "schemas": {**SCHEMAS, "Code": one_of(*sorted(CODES))},
        "headers": {
            "X-Request-Id": _header("The `id` of the request's line on stdout."),
            "X-Model": _header("The name of the loaded model."),
            "X-Truncated": _header("`true` if the file broke off."),
            "X-Ignored-Fields": _header("The fields that were not read (docs/fields.md)."),
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
        },
    }
    if port.token:
        components["securitySchemes"] = {
            _TOKEN: {
                "type": "http",
                "scheme": "bearer",
                "description": "The node's token, or the API key of OpenAI's clients.",
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "node-whisper",
            "version": port.version,
            "description": "Transcription of audio with Whisper. Each address also answers OPTIONS "
            "with the methods that it has.",
        },
        # Relative to this document, so that it holds below a path, too.
        "servers": [{"url": "."}],
        "tags": [{"name": name} for name in ("audio", "live", "models", "monitoring", "page")],
        "paths": paths,
        "components": components,
    }


def _operations(found: Upload | NodeReport | Fixed, port: Port) -> dict[str, Any]:
    """Return the operations of a route by method."""
    if isinstance(found, Upload):
        made = operation(found)
        made["responses"] |= {
            str(status): _error(status, SHAPES[found.dialect].error)
            for status in _UPLOAD_ERRORS
            if status != 401 or port.token
        }
        made["responses"]["default"] = _error(None, SHAPES[found.dialect].error)
        return {WRITE[0].lower(): _secured(made, port.token)}
    summary, kind, schema = _REPORTS[found.kind]
    guarded = port.token and not (
        found.is_open if isinstance(found, Fixed) else found.kind not in port.reports
    )
    responses = {"200": _content(f"{summary}.", kind, schema)}
    if found.kind == "ready":
        responses["503"] = _content("The node is not ready.", kind, schema)
    if found.kind == "model":
        responses["404"] = _error(404)
    statuses = (401, 403) if guarded else (403,)
    responses |= {str(status): _error(status) for status in statuses}
    responses["default"] = _error(None)
    models = found.kind in ("models", "model")
    made = {
        "tags": ["models" if models else "page" if found.kind == "openapi" else "monitoring"],
        "summary": summary,
        "responses": responses,
    }
    if found.kind == "model":
        made["parameters"] = [_in_path("model", {"type": "string"})]
    methods = allowed_methods(found)
    return {method.lower(): _secured(_for(method, made), guarded) for method in methods}


def _pages(port: Port) -> dict[str, Any]:
    """Return the paths of the page's files."""
    files = sorted(path[1:] for path in port.pages if "." in path)
    paths: dict[str, Any] = {}
    for path in port.pages:
        if "." not in path:
            summary = "A web page for trying the node" if path == "/" else "This document, to read"
            paths[path] = _page(summary, "text/html", [])
    if files:
        names = [_in_path("file", one_of(*files))]
        paths["/{file}"] = _page("A file of the web page", "*/*", names)
    return paths


def _page(summary: str, kind: str, parameters: list[Schema]) -> dict[str, Any]:
    responses = {
        "200": _content("The file.", kind, {"type": "string"}),
        "304": {"description": "The client has the same file: `If-None-Match` names its `ETag`."},
        "403": _error(403),
        "default": _error(None),
    }
    made: dict[str, Any] = {"tags": ["page"], "summary": summary, "responses": responses}
    if parameters:
        made["parameters"] = parameters
    return {method.lower(): _for(method, made) for method in READ}


def _socket(page: dict[str, Any] | None, port: Port) -> dict[str, Any]:
    """Return the operation of an address for WebSockets, which `page` may share."""
    switched = {"101": {"description": "The WebSocket is open."}}
    if page is not None:
        about = "With an upgrade to a WebSocket: the protocol of vosk-server."
        responses = {**page["responses"], **switched}
        return {**page, "description": about, "responses": responses}
    responses = switched | {str(status): _error(status) for status in (400, 403, 426, 503)}
    if port.token:
        responses["401"] = _error(401)
    made = {
        "tags": ["live"],
        "summary": "Live audio over a WebSocket",
        "responses": {**responses, "default": _error(None)},
    }
    return _secured(made, port.token)


def _for(method: str, made: dict[str, Any]) -> dict[str, Any]:
    """Return an operation; that of HEAD has the answers without their content."""
    if method != "HEAD":
        return dict(made)
    responses = {
        status: {key: value for key, value in answer.items() if key != "content"}
        for status, answer in made["responses"].items()
    }
    return {**made, "summary": f"{made['summary']}: header fields", "responses": responses}


def _secured(made: dict[str, Any], guarded: bool) -> dict[str, Any]:
    return {**made, "security": [{_TOKEN: []}]} if guarded else made


def _error(status: int | None, schema: str = "OpenAiError") -> dict[str, Any]:
    """Return the answer to a failure with `status`, or with one that no other answer has."""
    codes = sorted(f"`{code}`" for code, other in CODES.items() if other == status)
    about = ", ".join(codes) if codes else "A request that the node cannot read."
    # Failures that come before the fields are read have OpenAI's form.
    kinds = [ref(name) for name in dict.fromkeys((schema, "OpenAiError"))]
    content: Schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    answer = _content(about, JSON, content)
    if status in _RETRIED:
        answer["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    if status == 401:
        answer["headers"] = {"WWW-Authenticate": _header("`Bearer`")}
    return answer


def _content(about: str, kind: str, schema: Schema) -> dict[str, Any]:
    return {"description": about, "content": {kind: {"schema": schema}}}


def _header(about: str) -> dict[str, Any]:
    return {"description": about, "schema": {"type": "string"}}


def _in_path(name: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _identifier(method: str, path: str) -> str:
    words = "".join(mark if mark.isalnum() else " " for mark in path).split()
    return "_".join([method, *words] if words else [method, "root"])
