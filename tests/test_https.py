"""The HTTP port over TLS, as a process started with `--tls-cert`: the page, and a transcription."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
from certificates import Certificates
from forms import BOUNDARY, TRANSCRIPTIONS, form
from node import HANG, JFK, Node, stopped_cleanly

pytestmark = pytest.mark.slow

TOKEN = "a-token-for-the-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def node(certificates: Certificates) -> Iterator[Node]:
    cert, key = certificates.node
    token = certificates.directory / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    flags = ("--http-port", "0", "--tls-cert", str(cert), "--tls-key", str(key))
    with stopped_cleanly(Node(*flags, "--token-file", str(token))) as node:
        yield node


def connect(node: Node, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    number = urlsplit(node.listening["http"]).port
    return http.client.HTTPSConnection("localhost", number, timeout=HANG, context=context)


def test_https_serves_page_and_transcription_on_one_connection(
    node: Node, certificates: Certificates
) -> None:
    assert node.listening["http"].startswith("https://")
    connection = connect(node, certificates.trusting())
    connection.request("GET", "/")
    page = connection.getresponse()
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    text = page.read().decode()
    for name in re.findall(r'(?:href|src)="([a-z]+\.[a-z]+)"', text):
        connection.request("GET", f"/{name}")
        part = connection.getresponse()
        assert (part.status, len(part.read()) > 0) == (200, True), name
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **BEARER}
    connection.request("POST", TRANSCRIPTIONS, form(("file", JFK.read_bytes())), kind)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    assert answer.status == 200
    assert "ask what you can do for your country" in said["text"]
    assert node.outcome(answer.headers["X-Request-Id"])["text"] == said["text"]
    connection.close()


def test_token_opens_the_models_and_the_description(node: Node, certificates: Certificates) -> None:
    connection = connect(node, certificates.trusting())
    for path in ("/v1/models", "/openapi.json", "/status"):
        for headers, status in (({}, 401), (BEARER, 200)):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == status, path
            assert parsedate_to_datetime(answer.headers["Date"]).tzinfo is not None
        if path == "/openapi.json":
            assert "token" in json.loads(body)["components"]["securitySchemes"]
    connection.request("GET", "/docs")
    answer = connection.getresponse()
    assert (answer.status, b"docs.js" in answer.read()) == (200, True)
    connection.close()


def test_client_of_another_authority_sends_nothing(node: Node, strangers: Certificates) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(node, strangers.trusting()).request("GET", "/")


def test_plain_http_gets_no_answer(node: Node) -> None:
    number = urlsplit(node.listening["http"]).port
    connection = http.client.HTTPConnection("localhost", number, timeout=HANG)
    connection.request("GET", "/")
    with pytest.raises((http.client.HTTPException, ConnectionResetError)):
        connection.getresponse()
    connection.close()
