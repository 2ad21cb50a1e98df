"""The head of a request: the rules of RFC 9110 and 9112 beyond those that h11 checks.

`checked` looks at the bytes before h11 has them, `read_head` at the request that h11 makes of them.
docs/http-rules.md lists the rules with their tests. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11

from app.protocols.http.forwarded import DIRECT, Forwarded

MAX_HEAD_BYTES = 16_384
"""Most bytes of a request line and its fields. RFC 9112, section 3, recommends at least 8,000 for
the request line alone."""

_AUTHORITY = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+(?:%[\w.~%-]+)?\]|\[v[0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+\]"
    r"|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?",
    re.ASCII,
)
"""`uri-host [ ":" port ]` (RFC 9110, section 7.2, and RFC 3986, section 3.2.2), and zones of IPv6
addresses."""

_ABSOLUTE = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"%(2[DE]|3[0-9]|[46][1-9A-F]|[57][0-9A]|5F|7E)", re.IGNORECASE)
"""Escapes of characters that mean the same unescaped (RFC 3986, section 2.3)."""

_TRANSFER = re.compile(rb"(?<=\n)transfer-encoding:([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.I)


Fields = tuple[tuple[bytes, bytes], ...]


class BadInput(Exception):
    """The input cannot be parsed any further. `status` is the HTTP status of the error."""

    def __init__(self, status: int, message: str = "the input is not valid HTTP/1.1") -> None:
        super().__init__(status)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Head:
    """A valid head. `path` and `query` are those of the target. A target in absolute form gives the
    header `host` as well.

    `headers` have lower-case names; of a repeated field the last one counts. `fields` are all, in
    order. With `keeps` the client wants to send further requests, with `old` it speaks HTTP/1.0,
    and with `expects` it waits for `100 Continue`. `forwarded` is the statement of a trusted proxy.
    """

    method: str
    path: str
    query: str
    headers: dict[bytes, str]
    fields: Fields
    keeps: bool
    old: bool
    expects: bool
    forwarded: Forwarded = DIRECT

    def joined(self, name: bytes) -> str | None:
        """Return the value of a field that is a list, which may be repeated; None without it."""
        return _joined(self.fields, name)


def checked(head: bytes) -> bytes:
    """Return the bytes of a head for h11, with one transfer coding at most. h11 cannot read a list
    of them, and takes one from HTTP/1.0, too. Raises `BadInput`."""
    found = _TRANSFER.findall(head)
    if not found:
        return head
    line = head.partition(b"\n")[0].rstrip(b"\r")
    if line.endswith(b" HTTP/1.0"):
        raise BadInput(400, "HTTP/1.0 has no Transfer-Encoding; send a Content-Length")
    codings = [coding.strip(b" \t\r\n").lower() for value in found for coding in value.split(b",")]
    codings = [coding for coding in codings if coding]
    if not codings or codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        raise BadInput(400, "the last transfer coding must be chunked, once")
    if len(codings) > 1:
        raise BadInput(501, "this node reads no transfer coding but chunked; leave the others out")
    if len(found) > 1:
        raise BadInput(400, "Transfer-Encoding occurs twice; send it once")
    return _TRANSFER.sub(b"Transfer-Encoding: chunked", head)


def read_head(request: h11.Request, secure: bool) -> Head:
    """Return the head of a request that h11 parsed; `secure` if its connection has TLS. Raises
    `BadInput`."""
    fields = tuple((bytes(name), bytes(value)) for name, value in request.headers)
    headers = {name: value.decode("latin-1") for name, value in fields}
    version = request.http_version
    if version[:1] != b"1":
        raise BadInput(505, "this node speaks HTTP/1.1; use that version")
    if b"transfer-encoding" in headers and b"content-length" in headers:
        # Two ends of the body: a proxy before the node may use the other one.
        raise BadInput(400, "Transfer-Encoding and Content-Length exclude each other; send one")
    old = version == b"1.0"
    expectations = _list_of(_joined(fields, b"expect"))
    if not old and set(expectations) - {"100-continue"}:
        raise BadInput(417, "this node meets no expectation but 100-continue; leave Expect out")
    host = headers.get(b"host")
    if host is None and not old:
        raise BadInput(400, "a request needs one Host field")
    if host is not None and not _AUTHORITY.fullmatch(host):
        raise BadInput(400, "Host must be a name or an address, with or without a port")
    target, authority = _target(request.target.decode("latin-1"), request.method, secure)
    path, _, query = target.partition("?")
    if _ESCAPE.search(path):
        raise BadInput(400, "the address has a % without two hexadecimal digits; write %25 for it")
    connection = _list_of(_joined(fields, b"connection"))
    return Head(
        method=request.method.decode("latin-1"),
        path=_UNRESERVED.sub(lambda match: chr(int(match[1], 16)), path),
        query=query,
        headers=headers if authority is None else headers | {b"host": authority},
        fields=fields,
        keeps="close" not in connection and (not old or "keep-alive" in connection),
        old=old,
        expects=not old and bool(expectations),
    )


def _target(target: str, method: bytes, secure: bool) -> tuple[str, str | None]:
    """Return a target in origin form, and the authority of one in absolute form. Raises
    `BadInput`."""
    if method == b"CONNECT":
        raise BadInput(501, "this node is not a proxy; send the request without CONNECT")
    if "#" in target:
        raise BadInput(400, "an address in a request has no fragment; leave out # and the rest")
    if target.startswith("/") or (target == "*" and method == b"OPTIONS"):
        return target, None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadInput(400, "the address of a request must begin with / or with http://")
    scheme, authority, rest = absolute.groups()
    if not authority or authority.startswith(":") or not _AUTHORITY.fullmatch(authority):
        raise BadInput(400, "the address of the request has no valid host")
    if scheme.lower() == "https" and not secure:
        raise BadInput(421, "https needs a connection with TLS; use http")
    return rest if rest.startswith("/") else f"/{rest}", authority


def _list_of(text: str | None) -> list[str]:
    """Return the elements of a list field in lower case, empty ones left out."""
    found = (one.strip(" \t").lower() for one in (text or "").split(","))
    return [one for one in found if one]


def _joined(fields: Fields, name: bytes) -> str | None:
    found = [value.decode("latin-1") for key, value in fields if key == name]
    return ", ".join(found) if found else None
