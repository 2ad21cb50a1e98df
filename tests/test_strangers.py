"""Access control: tokens and TLS through the node's own loop, server and worker."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from fakes import RATE, RAW, Client, Node, eventually, frame, message, pcm, text_or_code
from node import run
from structlog.testing import capture_logs

from app.network.access_token import AccessToken
from app.network.timeouts import Timeouts
from app.network.tls import server_context
from app.settings import settings as config
from app.startup.ports import warn_of_strangers
from app.storage.body import Body
from app.storage.disk import Disk
from app.storage.spool import Spool

MakeNode = Callable[..., Node]
TOKEN = "a-token-for-the-tests"
MIB = 1024 * 1024


class TlsClient(Client):
    """A TLS connection after its handshake. Raises the errors of the handshake."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port)
        plain = self.socket
        try:
            self.socket = context.wrap_socket(plain, server_hostname="localhost")
        except OSError:
            plain.close()
            raise

    def half_close(self) -> None:
        # SSLSocket.shutdown would end TLS in both directions.
        socket.socket.shutdown(self.socket, socket.SHUT_WR)


@pytest.fixture
def tls_node(make_node: MakeNode, certificates: Certificates) -> MakeNode:
    """Start nodes that speak TLS."""

    def make(*, client_ca: Path | None = None, **more: Any) -> Node:
        context = server_context(*certificates.node, client_ca)
        return make_node(port={"tls": context}, **more)

    return make


def closed_without_reply(client: Client) -> bool:
    try:
        return client.socket.recv(100) in (b"", b"\x15\x03\x01\x00\x02\x02\x46")
    except ConnectionResetError:
        return True


def serves(node: Node, context: ssl.SSLContext) -> bool:
    """Whether it still serves an honest client."""
    with TlsClient(node.port, context) as client:
        client.request(pcm(RATE))
        return text_or_code(client.reply()) == str(RATE)


# TLS.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_request_over_tls(
    tls_node: MakeNode, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    node = tls_node()
    context = certificates.trusting()
    context.maximum_version = version
    with TlsClient(node.port, context) as client:
        client.request(pcm(RATE), id="over-tls")
        assert [text_or_code(reply) for reply in client.replies()] == [str(RATE)]
        assert node.lines.wait_for("over-tls")["peer"] == client.peer


def test_body_of_20_mib_over_tls(tls_node: MakeNode, certificates: Certificates) -> None:
    node = tls_node(max_body=32 * MIB)
    body = bytes(20 * MIB)
    with TlsClient(node.port, certificates.trusting()) as client:
        client.request(body)
        (reply,) = client.replies()
    assert reply["status"] == "ok"
    assert reply["audio_seconds"] == pytest.approx(len(body) / 2 / RATE, abs=0.01)


def test_pipelined_messages_in_tiny_records(tls_node: MakeNode, certificates: Certificates) -> None:
    node = tls_node()
    with TlsClient(node.port, certificates.trusting()) as client:
        counts = [RATE + number for number in range(5)]
        messages = [message(pcm(count), connection="keep-alive") for count in counts]
        # One packet holds many records. A selector reports only the first of them.
        client.send(messages[0])
        assert text_or_code(client.reply()) == str(counts[0])
        data = b"".join(messages[1:])
        for start in range(0, len(data), 700):
            client.send(data[start : start + 700])
        for count in counts[1:]:
            assert text_or_code(client.reply()) == str(count)


def test_message_in_the_last_packet_of_the_handshake(
    tls_node: MakeNode, certificates: Certificates
) -> None:
    node = tls_node()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = certificates.trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with node.connect() as client:
        while True:
            try:
                peer.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.send(outgoing.read())
                incoming.write(client.socket.recv(65_536))
        peer.write(message(pcm(100)))
        client.send(outgoing.read())
        # Everything to the end of the stream: the reply, and the close_notify alert of TLS.
        while data := client.socket.recv(65_536):
            incoming.write(data)
        assert b'"text": "100"' in peer.read(65_536)


OLD_CLIENTS = {
    "cbc": ("ECDHE+AES:!AESGCM:!AESCCM", ssl.TLSVersion.TLSv1_2, "NO_SHARED_CIPHER"),
    "no ephemeral key": ("RSA+AESGCM:@SECLEVEL=0", ssl.TLSVersion.TLSv1_2, "NO_SHARED_CIPHER"),
    "tls 1.1": ("ALL:@SECLEVEL=0", ssl.TLSVersion.TLSv1_1, "UNSUPPORTED_PROTOCOL"),
}


@pytest.mark.parametrize("client", OLD_CLIENTS)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_client_without_aead_suites_is_rejected_and_logged(
    tls_node: MakeNode, certificates: Certificates, client: str
) -> None:
    suites, newest, reason = OLD_CLIENTS[client]
    node = tls_node()
    context = certificates.trusting()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    context.set_ciphers(suites)
    with capture_logs() as log:
        with pytest.raises(ssl.SSLError):
            TlsClient(node.port, context)
        eventually(lambda: log, "a line of the log")
    (line,) = log
    assert (line["log_level"], line["reason"]) == ("warning", reason)
    assert "AEAD" in line["event"]
    assert serves(node, certificates.trusting())


@pytest.mark.parametrize("suites", ["ECDHE+AESGCM", "ECDHE+CHACHA20"])
def test_client_with_one_aead_suite_of_tls_1_2_is_served(
    tls_node: MakeNode, certificates: Certificates, suites: str
) -> None:
    context = certificates.trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suites)
    assert serves(tls_node(), context)


def test_half_closed_connection_still_gets_the_reply(
    tls_node: MakeNode, certificates: Certificates
) -> None:
    node = tls_node()
    with TlsClient(node.port, certificates.trusting()) as client:
        client.request(pcm(RATE))
        client.half_close()
        assert [text_or_code(reply) for reply in client.replies()] == [str(RATE)]


def test_truncated_body_over_tls_is_incomplete(
    tls_node: MakeNode, certificates: Certificates
) -> None:
    """An attacker on the network would cut the stream like this, without close_notify. The node
    detects it by the length."""
    node = tls_node()
    with TlsClient(node.port, certificates.trusting()) as client:
        client.send(message(pcm(RATE))[:-1])
        client.half_close()
        assert text_or_code(client.reply()) == "incomplete"


def test_reset_over_tls_cancels_the_request(tls_node: MakeNode, certificates: Certificates) -> None:
    node = tls_node()
    node.engine.hold()
    with TlsClient(node.port, certificates.trusting()) as client:
        client.request(pcm(RATE), id="first")
        node.engine.wait_for_calls(1)
        other = TlsClient(node.port, certificates.trusting())
        other.request(pcm(RATE), id="second")
        # The whole request must have arrived, or the outcome would be `incomplete`.
        eventually(lambda: len(node.jobs) == 2)
        other.reset()
        eventually(lambda: node.server.load.connections == 1)
        node.engine.release()
        assert text_or_code(client.reply()) == str(RATE)
        assert node.lines.wait_for("second")["error"]["code"] == "cancelled"


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half"])
def test_unfinished_handshake_is_closed_at_its_deadline(
    tls_node: MakeNode, certificates: Certificates, sent: bytes
) -> None:
    node = tls_node(timeouts=Timeouts(header=0.2))
    with node.connect() as client:
        client.send(sent)
        assert closed_without_reply(client)
    assert node.lines.written == []


def test_slow_handshake_does_not_extend_its_deadline(tls_node: MakeNode) -> None:
    node = tls_node(timeouts=Timeouts(header=0.3))
    hello = b"\x16\x03\x01\x3f\xff" + bytes(16_000)
    with node.connect() as client:
        ended = threading.Event()

        def trickle() -> None:
            for byte in hello:
                try:
                    client.send(bytes([byte]))
                except OSError:
                    return
                if ended.wait(0.01):
                    return

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        assert closed_without_reply(client)
        ended.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_versions_are_rejected(tls_node: MakeNode, certificates: Certificates) -> None:
    node = tls_node()
    old = certificates.trusting()
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        TlsClient(node.port, old)
    assert serves(node, certificates.trusting())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_certificate_is_required_with_client_ca(
    tls_node: MakeNode,
    certificates: Certificates,
    strangers: Certificates,
    version: ssl.TLSVersion,
) -> None:
    node = tls_node(client_ca=certificates.ca)
    assert serves(node, certificates.trusting(showing=certificates.client))
    for showing in (None, strangers.client):
        context = certificates.trusting(showing=showing)
        context.maximum_version = version
        # With TLS 1.3 the client's side of the handshake ends before the node rejects it. The alert
        # still arrives, because the node drains the data that the client sent meanwhile.
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            refused_by(node, context)
    eventually(lambda: len(node.lines.written) == 1)
    assert len(node.engine.calls) == 1


def refused_by(node: Node, context: ssl.SSLContext) -> None:
    with TlsClient(node.port, context) as client:
        client.request(pcm(RATE))
        client.reply()


def test_plain_bytes_on_the_tls_port_are_rejected(
    tls_node: MakeNode, certificates: Certificates
) -> None:
    node = tls_node()
    for data in (message(pcm(RATE)), b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", os.urandom(100_000)):
        with node.connect() as client:
            client.send(data)
            assert b'{"' not in client.socket.recv(100)
    assert serves(node, certificates.trusting())
    eventually(lambda: len(node.lines.written) == 1)


def test_tls_on_the_plain_port_gets_bad_header(node: Node, certificates: Certificates) -> None:
    outgoing = ssl.MemoryBIO()
    peer = certificates.trusting().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        peer.do_handshake()
    with node.connect() as client:
        client.send(outgoing.read())
        assert text_or_code(client.reply()) == "bad_header"


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00"], ids=["before", "within"])
def test_reset_during_the_handshake_frees_the_connection(
    tls_node: MakeNode, certificates: Certificates, sent: bytes
) -> None:
    node = tls_node()
    for _ in range(20):
        client = node.connect()
        client.send(sent)
        client.reset()
    assert serves(node, certificates.trusting())
    eventually(lambda: node.server.load.connections == 0)


def test_excess_connection_gets_busy_over_tls(
    tls_node: MakeNode, certificates: Certificates
) -> None:
    node = tls_node(max_connections=1)
    with TlsClient(node.port, certificates.trusting()) as first:
        second = TlsClient(node.port, certificates.trusting())
        assert [text_or_code(reply) for reply in second.replies()] == ["busy"]
        second.close()
        first.request(pcm(RATE))
        assert text_or_code(first.reply()) == str(RATE)


def test_drain_does_not_wait_for_handshakes(tls_node: MakeNode) -> None:
    node = tls_node()
    with node.connect() as client:
        eventually(lambda: node.server.load.connections == 1)
        node.drain()
        assert closed_without_reply(client)
    node.wait_until_stopped()


# The token.


class CountingSpool(Spool):
    """A spool that counts the bodies it creates."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(Path("/var/tmp"), disk)
        self.created = 0

    def create(self, length: int | None) -> Body:
        self.created += 1
        return super().create(length)


@pytest.fixture
def spools() -> list[CountingSpool]:
    return []


@pytest.fixture
def guarded(make_node: MakeNode, spools: list[CountingSpool]) -> Node:
    """A node with a token."""

    def make_spool(disk: Disk) -> Spool:
        spools.append(CountingSpool(disk))
        return spools[-1]

    access_token = AccessToken(TOKEN)
    return make_node(
        port={"needs_token": True}, authorize=access_token.admits, make_spool=make_spool
    )


WRONG = [None, "", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), 17, ["a"], {"token": TOKEN}, True]


@pytest.mark.parametrize("token", WRONG, ids=repr)
def test_body_without_a_valid_token_is_not_read(
    guarded: Node, spools: list[CountingSpool], token: object
) -> None:
    fields = {} if token is None else {"token": token}
    with guarded.connect() as client:
        # Only the header is sent. The reply does not wait for the body.
        client.send(frame({**RAW, "content-length": MIB, "id": "stranger", **fields}))
        assert [text_or_code(reply) for reply in client.replies()] == ["unauthorized"]
    assert spools[0].created == 0
    assert guarded.engine.calls == []


def test_message_after_a_wrong_token_is_not_read(
    guarded: Node, spools: list[CountingSpool]
) -> None:
    with guarded.connect() as client:
        client.request(pcm(8 * RATE), connection="keep-alive", token="guess-number-one")
        # A second attempt on the same connection is not read.
        client.request(pcm(RATE), connection="keep-alive", token=TOKEN)
        assert [text_or_code(reply) for reply in client.replies()] == ["unauthorized"]
    assert spools[0].created == 0


def test_unauthenticated_client_learns_nothing_else(guarded: Node) -> None:
    """The reply reveals neither errors in the header nor the abilities of the model."""
    for fields in ({"language": "de"}, {"content-type": "text/html"}, {"sample-rate": 1}):
        with guarded.connect() as client:
            client.send(frame({**RAW, "content-length": 10, **fields}, bytes(10)))
            assert [text_or_code(reply) for reply in client.replies()] == ["unauthorized"]


def test_unauthenticated_client_without_reply_gets_none(guarded: Node) -> None:
    assert guarded.ask(pcm(RATE), reply="none") == []
    assert guarded.engine.calls == []


def test_every_message_needs_the_token(guarded: Node) -> None:
    (reply,) = guarded.ask(pcm(RATE), token=TOKEN, id="guest")
    assert text_or_code(reply) == str(RATE)
    assert TOKEN not in str(guarded.lines.wait_for("guest"))
    with guarded.connect() as client:
        for _ in range(2):
            # Every message carries the token.
            client.request(pcm(RATE), token=TOKEN, connection="keep-alive")
            assert text_or_code(client.reply()) == str(RATE)
        client.request(pcm(RATE), connection="keep-alive")
        assert text_or_code(client.reply()) == "unauthorized"
        assert client.reply() is None


def test_token_is_ignored_by_a_node_without_one(node: Node) -> None:
    assert [text_or_code(reply) for reply in node.ask(pcm(RATE))] == [str(RATE)]
    assert [text_or_code(reply) for reply in node.ask(pcm(RATE), token=TOKEN)] == [str(RATE)]


def test_token_is_checked_over_tls(make_node: MakeNode, certificates: Certificates) -> None:
    context = server_context(*certificates.node, None)
    port = {"tls": context, "needs_token": True}
    node = make_node(port=port, authorize=AccessToken(TOKEN).admits)
    for token, expected in ((TOKEN, str(RATE)), ("wrong-but-long", "unauthorized")):
        with TlsClient(node.port, certificates.trusting()) as client:
            client.request(pcm(RATE), token=token)
            assert [text_or_code(reply) for reply in client.replies()] == [expected]


# Warnings and errors at start.


@pytest.mark.parametrize(
    ("arguments", "no_token", "warnings"),
    [
        ([], True, []),
        (["--host", "localhost"], True, []),
        (["--host", "::1"], True, []),
        (["--host", "0.0.0.0"], True, ["can use the node", "set --tls-cert"]),
        (["--host", "0.0.0.0"], False, ["set --tls-cert"]),
        (["--host", "::", "--tls-cert", "c", "--tls-key", "k"], True, ["can use the node"]),
        (["--host", "::", "--tls-cert", "c", "--tls-key", "k"], False, []),
        (["--host", "::", "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a"], True, []),
    ],
)
def test_open_settings_log_warnings(
    arguments: list[str], no_token: bool, warnings: list[str]
) -> None:
    with capture_logs() as log:
        warn_of_strangers(config.read(arguments, {}), no_token)
    assert [entry["log_level"] for entry in log] == ["warning"] * len(warnings)
    for entry, expected in zip(log, warnings, strict=True):
        assert expected in entry["event"]


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--tls-cert", "no-such.pem", "--tls-key", "k"], {}, "no-such.pem cannot be read"),
        (["--tls-cert", "no-such.pem"], {}, "--tls-cert requires its private key"),
        (["--token-file", "no-such"], {}, "no-such cannot be read"),
        ([], {"NODE_WHISPER_TOKEN": "short"}, "8 to 256 characters; this one has 5"),
        ([], {"NODE_WHISPER_TLS_CLIENT_CA": "ca.pem"}, "--tls-client-ca requires"),
    ],
)
def test_wrong_security_settings_end_the_node(
    arguments: list[str], environment: dict[str, str], expected: str
) -> None:
    status, out, errors = run(*arguments, environment=environment)
    assert (status, out) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("node-whisper: ")
    assert expected in line


def test_origin_null_is_warned_of_even_on_the_loopback() -> None:
    with capture_logs() as entries:
        warn_of_strangers(config.read(["--http-port", "0", "--cors-origin", "null"], {}), True)
    (entry,) = entries
    assert "admits any page" in entry["event"]
