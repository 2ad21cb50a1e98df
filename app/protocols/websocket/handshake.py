"""The opening handshake of a WebSocket as an HTTP request (RFC 6455, section 4).

Pure: a request's fields in, an `Opening` out, `HandshakeError` if it is not a valid one. The node
accepts no extension: a compressed message can be a thousand times as large as its frames.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16

OPENAI_KEY = "openai-insecure-api-key."
"""The subprotocol with which browsers send OpenAI's API key."""

NODE_TOKEN = "node-whisper-token."
"""The subprotocol with which the node's page sends the token, in base64url: the name of a
subprotocol must not contain a slash, an equals sign or a comma, which tokens may."""

_BETA = "openai-beta.realtime-v1"

RawHeaders = Iterable[tuple[bytes, bytes]]


class HandshakeError(Exception):
    """The request is not a valid opening handshake. `status` is that of the HTTP answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Opening:
    """A valid opening handshake.

    `accept` is the value of `Sec-WebSocket-Accept`. `query` has the parameters of the address
    except the token, `offered` the names of the subprotocols except those that carry a secret.
    `beta` is true if the client names OpenAI's beta of the Realtime API.
    """

    path: str
    accept: str
    query: Mapping[str, str]
    offered: tuple[str, ...]
    beta: bool
    token: str | None = field(default=None, repr=False)

    def chosen(self, known: frozenset[str]) -> str | None:
        """Return the first offered subprotocol that is `known`; None if there is none."""
        return next((name for name in self.offered if name in known), None)


def is_upgrade(headers: RawHeaders) -> bool:
    """Return whether a request asks for a WebSocket."""
    return "websocket" in _lower(_values(headers, b"upgrade"))


def read_opening(method: str, path: str, search: str, headers: RawHeaders) -> Opening:
    """Return the opening handshake in a request of HTTP/1.1 that `is_upgrade`; `search` is the
    query of its address. Raises `HandshakeError`."""
    headers = list(headers)
    if method != "GET":
        raise HandshakeError(400, "a WebSocket opens with GET")
    if "upgrade" not in _lower(_values(headers, b"connection")):
        raise HandshakeError(400, "the header Connection must contain Upgrade")
    if _values(headers, b"sec-websocket-version") != ["13"]:
        raise HandshakeError(426, "Sec-WebSocket-Version must be 13")
    keys = _values(headers, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise HandshakeError(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    query = dict(parse_qsl(search))
    offered = _values(headers, b"sec-websocket-protocol")
    token = _token(headers, offered, query)
    query.pop("token", None)
    return Opening(
        path=path,
        accept=_accept(keys[0]),
        query=query,
        offered=tuple(name for name in offered if not name.startswith((OPENAI_KEY, NODE_TOKEN))),
        beta=_BETA in offered or bool(_values(headers, b"openai-beta")),
        token=token,
    )


def _token(headers: RawHeaders, offered: list[str], query: Mapping[str, str]) -> str | None:
    """Return the token of the first place that has one: header, subprotocol, address."""
    for value in _values(headers, b"authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
    for name in offered:
        if name.startswith(OPENAI_KEY):
            return name[len(OPENAI_KEY) :]
        if name.startswith(NODE_TOKEN):
            return _from_base64url(name[len(NODE_TOKEN) :])
    return query.get("token")


def _from_base64url(text: str) -> str:
    """Return the decoded token; an empty one, which no node has, if it is not base64url."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except ValueError:
        return ""


def _accept(key: str) -> str:
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _values(headers: RawHeaders, name: bytes) -> list[str]:
    """Return the values of a header that is a list, in order; the header may be repeated."""
    found = ",".join(value.decode("latin-1") for key, value in headers if key == name)
    return [value.strip() for value in found.split(",") if value.strip()]


def _lower(values: list[str]) -> set[str]:
    return {value.lower() for value in values}
