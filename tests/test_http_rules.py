"""The rules of RFC 9110 and 9112 that bind an origin server: bytes in, answers out.

docs/http-rules.md lists the rules. Each request is fed whole, byte by byte, and with a further one
behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import cast

import pytest
from forms import BOUNDARY, TRANSCRIPTIONS, Answer, chunked, form
from http_peer import AUDIO, SITE, Peer

from app.messages import Upgrade
from app.protocols.base import Session
from app.protocols.http.head import MAX_HEAD_BYTES
from app.protocols.http.protocol import HttpProtocol
from app.protocols.http.site import Site, SocketRoute
from app.protocols.websocket.handshake import Opening

NEXT = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
KIND = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
FORM = form(("file", AUDIO))
CLOCKED = replace(SITE, date=lambda: formatdate(0, usegmt=True))


def raw(line: str, *fields: str, body: bytes = b"", host: str | None = "localhost") -> bytes:
    """A request from its lines; `host` is None for a request without the field."""
    lines = [line, *([] if host is None else [f"Host: {host}"]), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def upload(*fields: str, version: str = "1.1", body: bytes = FORM) -> bytes:
    return raw(f"POST {TRANSCRIPTIONS} HTTP/{version}", KIND, *fields, body=body)


def sized(*fields: str, version: str = "1.1") -> bytes:
    return upload(f"Content-Length: {len(FORM)}", *fields, version=version)


def get(*fields: str, target: str = "/healthz", version: str = "1.1") -> bytes:
    return raw(f"GET {target} HTTP/{version}", *fields)


@dataclass(frozen=True)
class Case:
    """A request, the status of its answer, and whether the connection stays open; None if that
    depends on whether the body is there already."""

    data: bytes
    status: int
    open: bool | None = True


def fed(data: bytes, *, site: Site = SITE, pieces: bool = False) -> Peer:
    whole = [data[at : at + 1] for at in range(len(data))] if pieces else [data]
    return Peer(site).feed(*whole)


def responses(peer: Peer, *methods: str) -> list[Answer]:
    """The answers that were sent, to at most these methods."""
    return peer.answers(*methods[: len(re.findall(rb"HTTP/1\.1 [2-5]\d\d ", peer.sent))])


def check(case: Case) -> Answer:
    """Feed a request whole, byte by byte, and with a further one behind it; return its answer."""
    method = case.data.lstrip(b"\r\n").split(b" ")[0].decode("latin-1")
    method = method if method in ("GET", "HEAD", "POST", "OPTIONS") else "GET"
    whole, bytewise = fed(case.data), fed(case.data, pieces=True)
    followed = fed(case.data + NEXT)
    found = [responses(peer, method, "GET") for peer in (whole, bytewise, followed)]
    assert [answers[0].status for answers in found] == [case.status] * 3, found
    assert (len(found[0]), len(found[1])) == (1, 1)
    if case.open is not None:
        assert [peer.closed for peer in (whole, bytewise, followed)] == [not case.open] * 3
        # A request behind one that ends the connection is not processed.
        assert [answer.status for answer in found[2][1:]] == ([200] if case.open else [])
        assert found[0][0] == found[1][0] == found[2][0]
    return found[0][0]


START: dict[str, Case] = {
    "empty lines before it": Case(b"\r\n\r\n\n" + get(), 200),
    "lines that end with LF": Case(get().replace(b"\r\n", b"\n"), 200),
    "a lower-case method": Case(get().replace(b"GET", b"get"), 501),
    "an unknown method": Case(get().replace(b"GET", b"BREW"), 501),
    "a method without a resource": Case(get().replace(b"GET", b"DELETE"), 405),
    "TRACE": Case(get().replace(b"GET", b"TRACE"), 405),
    "CONNECT": Case(raw("CONNECT example.org:443 HTTP/1.1"), 501, False),
    "CONNECT without a port": Case(raw("CONNECT example.org: HTTP/1.1"), 501, False),
    "a newer minor version": Case(get(version="1.2"), 200),
    "a newer minor version without Host": Case(raw("GET / HTTP/1.2", host=None), 400, False),
    "a major version above": Case(get(version="2.0"), 505, False),
    "a major version below": Case(get(version="0.9"), 505, False),
    "no version": Case(b"GET /healthz\r\n\r\n", 400, False),
    "a lower-case version": Case(get().replace(b"HTTP/1.1", b"http/1.1"), 400, False),
    "a version of two digits": Case(get(version="1.10"), 400, False),
    "a version without a point": Case(get(version="1"), 400, False),
    "two spaces": Case(get().replace(b"GET ", b"GET  "), 400, False),
    "a tab": Case(get().replace(b"GET ", b"GET\t"), 400, False),
    "a space in the target": Case(get(target="/a b"), 400, False),
    "a space before the line": Case(b" " + get(), 400, False),
    "a space after the line": Case(get().replace(b"1.1\r\n", b"1.1 \r\n"), 400, False),
    "CR before the line": Case(b"\r" + get(), 400, False),
    "CR in the line": Case(get().replace(b" HTTP", b"\rx HTTP"), 400, False),
    "CR before the end of the line": Case(get().replace(b"1.1\r\n", b"1.1\r\r\n"), 400, False),
    "NUL in the line": Case(get(target="/a\0"), 400, False),
    "DEL in the line": Case(get(target="/a\x7f"), 400, False),
    "bytes above ASCII in the line": Case(get(target="/\xe4"), 400, False),
    "a space before the first field": Case(
        get().replace(b"\r\nHost", b"\r\n X: y\r\nHost"), 400, False
    ),
}


@pytest.mark.parametrize("name", START)
def test_request_line(name: str) -> None:
    check(START[name])


HOSTS: dict[str, int] = {
    "localhost": 200,
    "LOCALHOST:8080": 200,
    "localhost:": 200,
    "127.0.0.1:8080": 200,
    "[::1]": 200,
    "[::1]:8080": 200,
    "[fe80::1%25eth0]:8080": 200,
    "node_whisper:8080": 403,
    "l%6fcalhost": 403,
    "": 403,
    ":80": 403,
    "evil.example": 403,
    "local host": 400,
    "localhost/": 400,
    "user@localhost": 400,
    "http://localhost": 400,
    "localhost:80:80": 400,
    "localhost:http": 400,
    "localhost, localhost": 400,
    "[::1": 400,
    "::1": 400,
    "l%zzcalhost": 400,
    "lo\\calhost": 400,
    "local?host": 400,
    "localh\xf6st": 400,
}


@pytest.mark.parametrize("host", HOSTS)
def test_host_is_valid_or_rejected(host: str) -> None:
    check(Case(raw("GET /healthz HTTP/1.1", host=host), HOSTS[host], HOSTS[host] != 400))


FIELDS: dict[str, Case] = {
    "no Host": Case(raw("GET /healthz HTTP/1.1", host=None), 400, False),
    "two Hosts": Case(get("Host: localhost"), 400, False),
    "no Host with HTTP/1.0": Case(raw("GET /healthz HTTP/1.0", host=None), 200, False),
    "two Hosts with HTTP/1.0": Case(get("Host: localhost", version="1.0"), 400, False),
    "names in any case": Case(get().replace(b"Host", b"hOST"), 200),
    "a space before the colon": Case(get("X : y"), 400, False),
    "a tab before the colon": Case(get("X\t: y"), 400, False),
    "no colon": Case(get("X"), 400, False),
    "no name": Case(get(": y"), 400, False),
    "a name with a control character": Case(get("X\x01: y"), 400, False),
    "a folded value": Case(get("X: y", " z"), 200),
    "NUL in a value": Case(get("X: \0"), 400, False),
    "CR in a value": Case(get("X: a\rb"), 400, False),
    "CR before the end of a line": Case(get("X: a\r"), 400, False),
    "a control character in a value": Case(get("X: a\x01b"), 200),
    "a value above ASCII": Case(get("X: \xe4\xff"), 200),
    "space around a value": Case(get("Connection: \t close \t"), 200, False),
    "empty elements of a list": Case(get("Connection: , ,close,"), 200, False),
    "a list of two lines": Case(get("Connection: x", "Connection: close"), 200, False),
    "an unknown field": Case(get("Unheard-Of: x"), 200),
    "a long target": Case(get(target="/" + "x" * MAX_HEAD_BYTES), 414, False),
    "long fields": Case(get("X: " + "x" * MAX_HEAD_BYTES), 431, False),
    "many fields": Case(get(*["X: y"] * 5_000), 431, False),
    "a target of 8,000 bytes": Case(get(target="/healthz?" + "x" * 8_000), 200),
}


@pytest.mark.parametrize("name", FIELDS)
def test_header_fields(name: str) -> None:
    check(FIELDS[name])


TARGETS: dict[str, Case] = {
    "absolute": Case(get(target="http://localhost:8080/healthz"), 200),
    "absolute without a path": Case(get(target="HTTP://127.0.0.1"), 200),
    "absolute with a query only": Case(get(target="http://127.0.0.1?x=y"), 200),
    "absolute without a host": Case(get(target="http:///healthz"), 400, False),
    "absolute with a port only": Case(get(target="http://:80/healthz"), 400, False),
    "absolute with a user": Case(get(target="http://me@localhost/healthz"), 400, False),
    "absolute with another host": Case(get(target="http://evil.example/healthz"), 403),
    "another scheme": Case(get(target="ftp://localhost/healthz"), 400, False),
    "https without TLS": Case(get(target="https://localhost/healthz"), 421, False),
    "asterisk": Case(get(target="*"), 400, False),
    "authority": Case(get(target="localhost:8080"), 400, False),
    "relative": Case(get(target="healthz"), 400, False),
    "fragment": Case(get(target="/healthz#x"), 400, False),
    "escaped letters": Case(get(target="/%68ealth%7A"), 200),
    "an escaped slash": Case(get(target="/v1%2Fmodels"), 404),
    "a wrong escape": Case(get(target="/health%zz"), 400, False),
    "half an escape": Case(get(target="/healthz%4"), 400, False),
    "characters of JSON in the query": Case(get(target='/healthz?x[]={"a"|^`}'), 200),
}


@pytest.mark.parametrize("name", TARGETS)
def test_request_target(name: str) -> None:
    check(TARGETS[name])


def test_host_of_an_absolute_target_replaces_the_field() -> None:
    evil = "Host: evil.example"
    data = raw("GET http://localhost/healthz HTTP/1.1", evil, host=None)
    check(Case(data, 200))
    # Also where the origin of a page is compared with it.
    own = sized("Origin: http://evil.example").replace(b"POST /", b"POST http://localhost/")
    check(Case(own.replace(b"Host: localhost", evil.encode()), 403, None))


def test_https_target_is_served_over_tls() -> None:
    peer = fed(get(target="https://localhost/healthz"), site=replace(SITE, secure=True))
    assert peer.answers("GET")[0].status == 200


def test_page_with_a_slash_behind_it_is_moved() -> None:
    """The addresses in a page are relative."""
    site = replace(SITE, pages={**SITE.pages, "/docs": ("text/html", b"x")})
    for path, status in (("/docs", 200), ("/docs/", 308), ("/", 200), ("//", 200)):
        (answer,) = fed(get(target=path), site=site).answers("GET")
        assert answer.status == status
        assert answer.headers.get("location") == ("../docs" if status == 308 else None)


def test_options_of_the_whole_server() -> None:
    answer = check(Case(raw("OPTIONS * HTTP/1.1"), 204))
    assert answer.headers["allow"] == "GET, HEAD, POST, OPTIONS"
    assert "content-length" not in answer.headers


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/healthz", "GET, HEAD, OPTIONS"),
        (TRANSCRIPTIONS, "POST, OPTIONS"),
        ("/v1/models/x", "GET, HEAD, OPTIONS"),
    ],
)
def test_allow_lists_the_methods_of_a_resource(path: str, allow: str) -> None:
    assert check(Case(raw(f"OPTIONS {path} HTTP/1.1"), 204)).headers["allow"] == allow
    answer = check(Case(raw(f"DELETE {path} HTTP/1.1"), 405))
    assert answer.headers["allow"] == allow


# Bodies.

CHUNKS = chunked(FORM, 50)
BODIES: dict[str, Case] = {
    "a length": Case(sized(), 200),
    "the same length twice": Case(sized(f"Content-Length: {len(FORM)}"), 200),
    "a list of the same length": Case(upload(f"Content-Length: {len(FORM)}, {len(FORM)}"), 200),
    "two lengths": Case(sized("Content-Length: 1"), 400, False),
    "a list of two lengths": Case(upload(f"Content-Length: {len(FORM)}, 1"), 400, False),
    "a negative length": Case(upload("Content-Length: -1"), 400, False),
    "a length with a sign": Case(upload(f"Content-Length: +{len(FORM)}"), 400, False),
    "a length with a point": Case(upload(f"Content-Length: {len(FORM)}.0"), 400, False),
    "a hexadecimal length": Case(upload("Content-Length: 0x10"), 400, False),
    "an empty length": Case(upload("Content-Length:"), 400, False),
    "a length of other digits": Case(upload("Content-Length: \xb2"), 400, False),
    "a huge length": Case(upload("Content-Length: " + "9" * 40), 400, False),
    "chunks": Case(upload("Transfer-Encoding: chunked", body=CHUNKS), 200),
    "chunks in upper case": Case(upload("Transfer-Encoding: CHUNKED", body=CHUNKS), 200),
    "chunks in a list": Case(upload("Transfer-Encoding: ,chunked ,", body=CHUNKS), 200),
    "chunks in a folded line": Case(upload("Transfer-Encoding:", " chunked", body=CHUNKS), 200),
    "chunks and a length": Case(
        upload("Transfer-Encoding: chunked", f"Content-Length: {len(CHUNKS)}", body=CHUNKS),
        400,
        False,
    ),
    "chunks and an empty line": Case(
        upload("Transfer-Encoding: chunked", "Transfer-Encoding:", body=CHUNKS), 400, False
    ),
    "chunks twice": Case(upload("Transfer-Encoding: chunked, chunked", body=CHUNKS), 400, False),
    "chunks in two lines": Case(
        upload("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=CHUNKS), 400, False
    ),
    "chunks not last": Case(upload("Transfer-Encoding: chunked, gzip", body=CHUNKS), 400, False),
    "no chunks": Case(upload("Transfer-Encoding: gzip", body=CHUNKS), 400, False),
    "identity": Case(upload("Transfer-Encoding: identity", body=CHUNKS), 400, False),
    "an empty coding": Case(upload("Transfer-Encoding:", body=CHUNKS), 400, False),
    "a control character": Case(upload("Transfer-Encoding: \x0bchunked", body=CHUNKS), 400, False),
    "an unknown coding before": Case(
        upload("Transfer-Encoding: gzip, chunked", body=CHUNKS), 501, False
    ),
    "chunks with HTTP/1.0": Case(
        upload("Transfer-Encoding: chunked", "Connection: keep-alive", version="1.0", body=CHUNKS),
        400,
        False,
    ),
    "fields about the content": Case(
        sized("Content-Range: bytes 0-4/9", "Content-Location: /x", "TE: trailers"), 200
    ),
    "a coding of the content": Case(sized("Content-Encoding: gzip"), 415, None),
    "identity of the content": Case(sized("Content-Encoding: identity"), 200),
    "no body": Case(upload(body=b""), 400),
    "a body of GET": Case(get("Content-Length: 3") + b"abc", 200, None),
}


@pytest.mark.parametrize("name", BODIES)
def test_body(name: str) -> None:
    check(BODIES[name])


def chunk_body(framed: bytes) -> bytes:
    return upload("Transfer-Encoding: chunked", body=framed)


SIZE = b"%x" % len(FORM)
FRAMES: dict[str, Case] = {
    "upper-case digits": Case(chunk_body(SIZE.upper() + b"\r\n" + FORM + b"\r\n0\r\n\r\n"), 200),
    "leading zeros": Case(chunk_body(b"000" + SIZE + b"\r\n" + FORM + b"\r\n000\r\n\r\n"), 200),
    "an extension": Case(
        chunk_body(SIZE + b';a=b;c="d;e"\r\n' + FORM + b"\r\n0;last\r\n\r\n"), 200
    ),
    "trailers": Case(
        chunk_body(
            SIZE + b"\r\n" + FORM + b"\r\n0\r\nContent-Length: 5\r\nHost: evil.example\r\n\r\n"
        ),
        200,
    ),
    "white space about an extension": Case(
        chunk_body(SIZE + b" \t; a=b \r\n" + FORM + b"\r\n0 ; c\r\n\r\n"), 200
    ),
    "white space before the size": Case(chunk_body(b" " + SIZE + b"\r\n" + FORM), 400, False),
    "white space in the size": Case(chunk_body(b"0 " + SIZE + b"\r\n" + FORM), 400, False),
    "CR in an extension": Case(chunk_body(SIZE + b";a\rb\r\n" + FORM), 400, False),
    "CR before the end of a size": Case(chunk_body(SIZE + b"\r\r\n" + FORM), 400, False),
    "no size": Case(chunk_body(b"\r\n" + FORM), 400, False),
    "a sign": Case(chunk_body(b"+" + SIZE + b"\r\n" + FORM), 400, False),
    "a prefix": Case(chunk_body(b"0x" + SIZE + b"\r\n" + FORM), 400, False),
    "more digits than fit": Case(chunk_body(b"1" + b"0" * 30 + b"\r\n" + FORM), 400, False),
    "no line end after the data": Case(
        chunk_body(SIZE + b"\r\n" + FORM + b"0\r\n\r\n"), 400, False
    ),
    "LF after the size": Case(chunk_body(SIZE + b"\n" + FORM + b"\r\n0\r\n\r\n"), 400, False),
    "a trailer without a colon": Case(
        chunk_body(SIZE + b"\r\n" + FORM + b"\r\n0\r\nnonsense\r\n\r\n"), 400, False
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_chunk(name: str) -> None:
    check(FRAMES[name])


def test_chunk_longer_than_any_body_is_too_large() -> None:
    peer = fed(chunk_body(b"f" * 15 + b"\r\n" + FORM[:-4] + bytes(200_000)))
    assert peer.answer.status == 413
    assert peer.closed


def test_extensions_and_trailers_are_bounded() -> None:
    long = b";" + b"x" * 20_000
    for framed in (
        SIZE + long + b"\r\n" + FORM,
        SIZE + b"\r\n" + FORM + b"\r\n0\r\n" + b"X: y\r\n" * 5_000,
        # Each extension is short enough, but the body is nothing else.
        (b"1;" + b"x" * 10_000 + b"\r\nx\r\n") * 10,
    ):
        peer = Peer()
        for at in range(0, len(framed), 1_000):
            peer.feed(chunk_body(framed[:1_000]) if at == 0 else framed[at : at + 1_000])
        assert peer.answer.status == 400
        assert peer.names[-1] == "lost"


def test_trailers_are_no_header_fields() -> None:
    framed = SIZE + b"\r\n" + FORM + b"\r\n0\r\nAuthorization: Bearer x\r\nOrigin: http://y\r\n\r\n"
    (_, began), _, (_, ended) = fed(chunk_body(framed)).seen
    assert began.token is ended.token is None


# Expectations.


def test_100_continue_is_not_sent_to_http_1_0() -> None:
    head, _, body = sized("Expect: 100-continue", version="1.0").partition(b"\r\n\r\n")
    peer = fed(head + b"\r\n\r\n")
    assert peer.sent == b""
    assert peer.feed(body).answer.status == 200


def test_100_continue_is_not_sent_after_the_body() -> None:
    assert fed(sized("Expect: 100-continue")).answer.informational in ((), (100,))
    head = sized("Expect: ,100-Continue").partition(b"\r\n\r\n")[0]
    assert fed(head + b"\r\n\r\n").sent.startswith(b"HTTP/1.1 100 ")


def test_100_continue_is_not_sent_before_an_error() -> None:
    for field, status in (("Content-Encoding: gzip", 415), ("Origin: http://evil.example", 403)):
        head = sized("Expect: 100-continue", field).partition(b"\r\n\r\n")[0]
        peer = fed(head + b"\r\n\r\n")
        (answer,) = peer.answers("POST")
        assert (answer.status, answer.informational) == (status, ())
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("value", ["something-else", "100-continue, x", "100-continue=1"])
def test_other_expectations_fail(value: str) -> None:
    check(Case(sized(f"Expect: {value}"), 417, False))
    assert fed(sized(f"Expect: {value}", version="1.0")).answer.status == 200


# Connections.

KEPT: dict[str, tuple[str, str, bool]] = {
    "HTTP/1.1": ("1.1", "", True),
    "HTTP/1.1 keep-alive": ("1.1", "keep-alive", True),
    "HTTP/1.1 close": ("1.1", "close", False),
    "HTTP/1.1 both": ("1.1", "keep-alive, Close", False),
    "HTTP/1.0": ("1.0", "", False),
    "HTTP/1.0 keep-alive": ("1.0", "Keep-Alive", True),
    "HTTP/1.0 close": ("1.0", "close", False),
    "HTTP/1.0 both": ("1.0", "keep-alive, close", False),
}


@pytest.mark.parametrize("name", KEPT)
def test_connection_is_kept_or_closed(name: str) -> None:
    version, field, kept = KEPT[name]
    fields = [f"Connection: {field}"] if field else []
    requests = (sized(*fields, version=version), get(*fields, version=version))
    for data in (*requests, get(*fields, target="/readyz", version=version)):
        (answer,) = fed(data).answers(data.split(b" ")[0].decode())
        peer = fed(data + NEXT)
        assert peer.closed != kept
        assert (peer.sent.count(b"HTTP/1.1 ") == 2) == kept
        said = answer.headers.get("connection")
        assert said == ("close" if not kept else "keep-alive" if version == "1.0" else None)


def test_many_requests_of_http_1_0_on_one_connection() -> None:
    one = sized("Connection: keep-alive", version="1.0")
    for pieces in (False, True):
        peer = fed(one * 3 + get(version="1.0"), pieces=pieces)
        statuses = [answer.status for answer in peer.answers("POST", "POST", "POST", "GET")]
        assert statuses == [200] * 4
        assert peer.closed


def test_stream_to_http_1_0_has_no_chunks_and_ends_the_connection() -> None:
    body = form(("file", AUDIO), ("stream", "true"))
    fields = (f"Content-Length: {len(body)}", "Connection: keep-alive")
    peer = fed(upload(*fields, version="1.0", body=body) + NEXT)
    assert peer.closed
    assert peer.answer.headers["connection"] == "close"
    assert "transfer-encoding" not in peer.answer.headers
    assert peer.answer.events[-1]["type"] == "transcript.text.done"


def test_stream_has_chunks_and_no_length() -> None:
    body = form(("file", AUDIO), ("stream", "true"))
    answer = fed(upload(f"Content-Length: {len(body)}", body=body)).answer
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers


def test_request_after_an_early_answer_is_not_processed() -> None:
    """The rest of the body, which is not there yet, could be taken for a request."""
    head = raw(f"POST {TRANSCRIPTIONS} HTTP/1.1", KIND, "Content-Length: 5000", "Origin: http://x")
    peer = fed(head).feed(NEXT, b"x" * 5_000, NEXT)
    assert peer.answer.status == 403
    assert peer.closed


# Answers.


@pytest.mark.parametrize(
    "data",
    [
        get(),
        get(target="/nothing"),
        get(target="/readyz"),
        sized(),
        get(version="3.0"),
        b"\0",
        raw("OPTIONS /healthz HTTP/1.1"),
        raw("HEAD / HTTP/1.1"),
        get("If-None-Match: *"),
    ],
)
def test_every_answer_has_one_date(data: bytes) -> None:
    sent = fed(data, site=CLOCKED).sent
    assert sent.count(b"\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n") == 1


def test_head_has_the_fields_of_get_and_no_content() -> None:
    for path in ("/healthz", "/", "/metrics", "/nothing", TRANSCRIPTIONS, "/v1/realtime"):
        found, head = (fed(raw(f"{method} {path} HTTP/1.1")) for method in ("GET", "HEAD"))
        expected = found.sent.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        assert head.sent == expected, path
        assert not head.closed


@pytest.mark.parametrize(
    "data",
    [
        raw("OPTIONS / HTTP/1.1"),
        raw("OPTIONS / HTTP/1.0", "Connection: keep-alive"),
        get("If-None-Match: *", target="/"),
        get("If-None-Match: *", "Connection: keep-alive", target="/", version="1.0"),
    ],
)
def test_204_and_304_have_neither_content_nor_length(data: bytes) -> None:
    (answer,) = fed(data).answers(data.split(b" ")[0].decode())
    assert answer.status in (204, 304)
    assert answer.body == b""
    assert not {"content-length", "transfer-encoding"} & answer.headers.keys()


def test_informational_answers_have_no_length() -> None:
    head = sized("Expect: 100-continue").partition(b"\r\n\r\n")[0]
    assert fed(head + b"\r\n\r\n").sent == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_version_of_every_answer_is_1_1() -> None:
    for version in ("1.0", "1.1", "1.9", "2.0"):
        assert fed(get(version=version)).sent.startswith(b"HTTP/1.1 ")


def test_415_names_the_codings_only_if_they_are_the_reason() -> None:
    answer = check(Case(sized("Content-Encoding: gzip"), 415, None))
    assert answer.headers["accept-encoding"] == "identity"
    other = sized().replace(b"multipart/form-data", b"text/plain")
    assert "accept-encoding" not in check(Case(other, 415, None)).headers


def test_upgrade_to_another_protocol_is_ignored() -> None:
    for value in ("h2c", "TLS/1.3", "IRC/6.9, RTA/x11"):
        check(Case(get(f"Upgrade: {value}", "Connection: Upgrade"), 200))
    check(Case(get("Upgrade: websocket", "Connection: Upgrade", version="1.0"), 200, False))


WEBSOCKET = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def socket_site() -> Site:
    def new(_: Opening) -> Session:
        return cast(Session, object())

    return replace(SITE, sockets={"/socket": SocketRoute(new)})


def test_426_names_the_protocol() -> None:
    (answer,) = fed(get(target="/socket"), site=socket_site()).answers("GET")
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
    assert answer.headers["connection"] == "Upgrade"


def test_100_comes_before_101() -> None:
    for field, statuses in (("Expect: 100-continue", [b"100", b"101"]), ("X: y", [b"101"])):
        protocol = HttpProtocol(socket_site(), lambda: "made")
        protocol.feed(get(*WEBSOCKET, field, target="/socket"))
        assert isinstance(protocol.next_event(), Upgrade)
        response = protocol.upgrade().response
        assert re.findall(rb"^HTTP/1.1 (\d+) ", response, re.MULTILINE) == statuses


def test_scheme_of_the_token_is_case_insensitive() -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        (query,) = fed(get(f"Authorization: {scheme}  secret", target="/status")).seen
        assert query == ("query", "status", "secret")


# Conditional requests, ranges.


def tag() -> str:
    (answer,) = fed(get(target="/")).answers("GET")
    found = answer.headers["etag"]
    assert re.fullmatch(r'"[\x21\x23-\x7e]+"', found)
    return found


CONDITIONS: dict[str, tuple[tuple[str, ...], int]] = {
    "the tag": (("If-None-Match: {}",), 304),
    "the tag, weak": (("If-None-Match: W/{}",), 304),
    "the tag in a list": (('If-None-Match: "a,b", , {}',), 304),
    "the tag in a second line": (('If-None-Match: "a"', "If-None-Match: {}"), 304),
    "any tag": (("If-None-Match: *",), 304),
    "another tag": (('If-None-Match: "other"',), 200),
    "an invalid tag": (("If-None-Match: other",), 200),
    "the same": (("If-Match: {}",), 200),
    "the same, weak": (("If-Match: W/{}",), 412),
    "the same in a list": (('If-Match: "other", {}',), 200),
    "any": (("If-Match: *",), 200),
    "another": (('If-Match: "other"',), 412),
    "If-Match comes first": (('If-Match: "other"', "If-None-Match: {}"), 412),
    "both hold": (("If-Match: {}", "If-None-Match: {}"), 304),
    "a date": (("If-Modified-Since: Thu, 01 Jan 2099 00:00:00 GMT",), 200),
    "an old date": (("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",), 200),
    "a date that is none": (("If-Modified-Since: yesterday",), 200),
    "a range": (("Range: bytes=0-3",), 200),
    "an unknown range": (("Range: lines=1-2",), 200),
    "an invalid range": (("Range: bytes=9-1",), 200),
    "a range and a condition": (("Range: bytes=0-3", 'If-Range: "other"'), 200),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_of_a_page_file(name: str) -> None:
    fields, status = CONDITIONS[name]
    answer = check(Case(get(*(field.format(tag()) for field in fields), target="/"), status))
    assert (answer.body == b"") == (status == 304)
    if status == 304:
        assert answer.headers["etag"] == tag()
        assert answer.headers["cache-control"] == "no-cache"


def test_conditions_are_ignored_without_a_selected_representation() -> None:
    none = 'If-Match: "other"'
    check(Case(sized(none), 200))
    check(Case(get(none, target="/nothing"), 404))
    check(Case(raw("OPTIONS / HTTP/1.1", none), 204))


def test_conditions_hold_for_reports() -> None:
    check(Case(get('If-Match: "other"', target="/metrics"), 412))
    check(Case(get("If-None-Match: *", target="/metrics"), 304))


# Pipelining.


def test_pipelined_requests_with_empty_lines_between_them() -> None:
    data = sized() + b"\r\n" + get() + b"\r\n\r\n" + sized()
    for pieces in (False, True):
        peer = fed(data, pieces=pieces)
        assert [answer.status for answer in peer.answers("POST", "GET", "POST")] == [200] * 3


def test_head_is_complete_before_a_request_has_an_effect() -> None:
    data = sized().partition(b"\r\n\r\n")[0] + b"\r\n"
    protocol = HttpProtocol(SITE, lambda: "made")
    protocol.feed(data)
    assert protocol.next_event() is None
    protocol.feed(b"\r\n")
    assert protocol.next_event() is not None
