"""Requests behind reverse proxies: whose `X-Forwarded-*` headers count, and for what."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from fakes import ENGLISH, HANG, FakeEngine, Node, encoded, eventually, tone
from forms import TRANSCRIPTIONS, answers, post, request
from http_peer import SITE, Peer
from hypothesis import given
from hypothesis import strategies as st
from live_worker import LiveWorker
from sockets import opening
from structlog.testing import capture_logs

from app.messages import Upgrade
from app.network.ports import Port, Proxies, peer_of
from app.protocols.base import FromClient
from app.protocols.http.forwarded import Forwarded, read_forwarded
from app.protocols.http.protocol import HttpProtocol
from app.protocols.http.routes import ROUTES, Upload
from app.protocols.http.site import Site
from app.protocols.model_names import ModelNames
from app.settings import settings as config
from app.startup.ports import warn_of_strangers
from app.startup.sockets import socket_routes, vosk_port

MakeNode = Callable[..., Node]

PROXIES = (ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
SITES = replace(SITE, proxies=PROXIES, origins=frozenset({"https://asr.example"}))
WAV = encoded(tone(1600))


def stated(**headers: str) -> Forwarded:
    """What headers with these names state to a node that trusts `PROXIES`."""
    lines = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return read_forwarded(lines, PROXIES)


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        # The client wrote the first address; the proxy appended the second.
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("203.0.113.7,10.1.2.3,10.1.2.4", "203.0.113.7"),
        # All are trusted: the first is the furthest that is known.
        ("10.0.0.9, 10.1.2.3", "10.0.0.9"),
        ("203.0.113.7:51000", "203.0.113.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        # Nothing before a value that is no address counts.
        ("203.0.113.7, unknown, 10.1.2.3", "10.1.2.3"),
        ("203.0.113.7, unknown", None),
        ("203.0.113.7, 999.1.1.1", None),
        ("_hidden", None),
        ("", None),
        (" , ", None),
        ("203.0.113.7 , ", "203.0.113.7"),
    ],
)
def test_client_is_the_last_address_that_is_no_trusted_proxy(
    chain: str, client: str | None
) -> None:
    assert stated(x_forwarded_for=chain).client == client


def test_repeated_header_is_one_list() -> None:
    lines = [(b"x-forwarded-for", text) for text in (b"198.51.100.1", b"203.0.113.7", b"10.0.0.1")]
    assert read_forwarded(lines, PROXIES).client == "203.0.113.7"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("asr.example", "asr.example"),
        ("asr.example:8443", "asr.example:8443"),
        ("[fd00::1]:8443", "[fd00::1]:8443"),
        ("first.example, asr.example", "asr.example"),
        ("asr.example/path", None),
        ("a b", None),
        ("user@asr.example", None),
        ("", None),
    ],
)
def test_host_is_that_of_the_nearest_proxy(text: str, host: str | None) -> None:
    assert stated(x_forwarded_host=text).host == host


@pytest.mark.parametrize(
    ("text", "scheme"),
    [("https", "https"), ("HTTP", "http"), ("wss", "https"), ("ws", "http"), ("ftp", None)],
)
def test_scheme_of_a_web_socket_is_that_of_its_page(text: str, scheme: str | None) -> None:
    assert stated(x_forwarded_proto=text).scheme == scheme


def test_forwarded_of_rfc_7239_is_not_read() -> None:
    assert stated(forwarded="for=203.0.113.7;host=asr.example;proto=https") == Forwarded()


# The guards.


def status(proxied: bool, site: Site = SITES, **headers: str) -> int:
    """The status of an upload with these headers."""
    peer = Peer(site, proxied=proxied).feed(post(TRANSCRIPTIONS, ("file", WAV), **headers))
    return peer.answer.status


def test_page_is_of_the_same_origin_by_the_forwarded_host() -> None:
    page = {"Origin": "https://asr.example:8443", "X_Forwarded_Proto": "https"}
    behind = page | {"X_Forwarded_Host": "asr.example:8443"}
    assert status(True, **behind) == 200
    # The same headers from elsewhere change nothing.
    assert status(False, **behind) == 403
    assert status(True, **page) == 403
    assert status(True, **behind | {"X_Forwarded_Proto": "http"}) == 403
    assert status(True, **behind | {"X_Forwarded_Host": "asr.example:9443"}) == 403


def test_default_port_of_a_forwarded_host_is_that_of_the_origin() -> None:
    site = replace(SITES, local=False)
    origin = {"Origin": "https://node.example", "X_Forwarded_Proto": "https"}
    assert status(True, site, **origin, X_Forwarded_Host="node.example:443") == 200
    assert status(True, site, **origin, X_Forwarded_Host="node.example:80") == 403


def test_page_of_the_proxys_upstream_address_is_another_origin() -> None:
    # The proxy sends its own idea of the host, which a page of that address shares.
    headers = {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"}
    assert status(True, **headers, X_Forwarded_Host="asr.example") == 403
    assert status(True, **headers) == 200


def test_rebound_name_is_rejected_behind_a_proxy() -> None:
    assert status(True, X_Forwarded_Host="rebound.example") == 403
    assert status(True, X_Forwarded_Host="asr.example") == 200
    # A page can send any X-Forwarded-Host to its own origin, also to a rebound one.
    assert status(True, Host="rebound.example", X_Forwarded_Host="localhost") == 403
    assert status(False, X_Forwarded_Host="rebound.example") == 200


def test_web_socket_has_the_same_guards_behind_a_proxy() -> None:
    routes = socket_routes(config.read([], {}), ENGLISH, ModelNames("fake.en", frozenset()))
    site = replace(SITES, sockets=routes)

    def refused(proxied: bool, **headers: str) -> bool:
        protocol = HttpProtocol(site, lambda: "made", proxied)
        protocol.feed(opening("/v1/realtime", **headers))
        events = [protocol.next_event() for _ in range(3)]
        return any(b" 403 " in getattr(event, "data", b"") for event in events)

    headers = {"Origin": "https://asr.example", "X-Forwarded-Host": "asr.example"}
    plain = replace(SITES, origins=frozenset())
    assert not refused(True, **headers)
    site = replace(plain, sockets=routes, local=False)
    assert not refused(True, **headers, **{"X-Forwarded-Proto": "wss"})
    assert refused(True, **headers, **{"X-Forwarded-Proto": "ws"})
    assert refused(False, **headers)
    site = replace(site, local=True)
    assert refused(True, **{"X-Forwarded-Host": "rebound.example"})
    assert not refused(False, **{"X-Forwarded-Host": "rebound.example"})


@pytest.mark.parametrize(
    "path", [path for path, found in ROUTES.items() if isinstance(found, Upload)]
)
def test_every_route_that_takes_audio_is_guarded_behind_a_proxy(path: str) -> None:
    dialect = getattr(ROUTES[path], "dialect")  # noqa: B009

    def answer(**headers: str) -> int:
        peer = Peer(SITES, proxied=True).feed(post(path, (dialect.file_field, WAV), **headers))
        return peer.answer.status

    here = {"X_Forwarded_Host": "asr.example", "X_Forwarded_Proto": "https"}
    assert answer(**here, Origin="https://asr.example") == 200
    assert answer(**here, Origin="https://other.example") == 403
    assert answer(X_Forwarded_Host="rebound.example") == 403
    assert answer(X_Forwarded_Host="asr.example", Host="rebound.example") == 403


@pytest.mark.parametrize("path", ["/v1/realtime", "/vosk", "/", "//v1//realtime/", "/vosk/"])
def test_every_web_socket_is_guarded_behind_a_proxy(path: str) -> None:
    routes = socket_routes(config.read([], {}), ENGLISH, ModelNames("fake.en", frozenset()))
    site = replace(SITES, sockets=routes)

    def answer(**headers: str) -> str:
        protocol = HttpProtocol(site, lambda: "made", proxied=True)
        protocol.feed(opening(path, **headers))
        assert isinstance(protocol.next_event(), FromClient)
        event = protocol.next_event()
        return "opens" if isinstance(event, Upgrade) else str(getattr(event, "data", b"")[9:12])

    here = {"X-Forwarded-Host": "asr.example", "X-Forwarded-Proto": "wss"}
    assert answer(**here, Origin="https://asr.example") == "opens"
    assert answer(**here, Origin="https://other.example") == "b'403'"
    assert answer(**{"X-Forwarded-Host": "rebound.example"}) == "b'403'"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"]),
            st.binary(max_size=60) | st.sampled_from([b"1.2.3.4", b"[::1]:1", b"10.0.0.1, ", b"%"]),
        )
    )
)
def test_any_headers_are_read(headers: list[tuple[bytes, bytes]]) -> None:
    found = read_forwarded(headers, PROXIES)
    assert found.client is None or ip_address(found.client)
    assert found.scheme in (None, "http", "https")


# The client's address.


def test_peer_is_a_proxy_only_in_its_network() -> None:
    port = Port("http", "::", 0, lambda: HttpProtocol(SITE, lambda: "made"))
    assert not peer_of(("10.1.2.3", 1), port)[0].is_proxy
    port = replace(port, proxies=Proxies(PROXIES, port.new_protocol))
    assert peer_of(("10.1.2.3", 1), port)[0].is_proxy
    assert peer_of(("::ffff:10.1.2.3", 1), port)[0].is_proxy
    assert not peer_of(("11.1.2.3", 1), port)[0].is_proxy


@pytest.fixture
def serve(make_node: MakeNode) -> Callable[..., Node]:
    """Start nodes whose only port is that of HTTP and trusts some proxies."""

    def make(trusted: str | None, engine: FakeEngine | None = None, **options: Any) -> Node:
        networks = () if trusted is None else (ip_network(trusted),)
        site = replace(SITES, proxies=networks, max_body=1 << 20)
        numbers = iter(range(1000))

        def new_protocol(proxied: bool = False) -> HttpProtocol:
            return HttpProtocol(site, lambda: f"made-{next(numbers)}", proxied)

        proxies = Proxies(networks, lambda: new_protocol(proxied=True))
        port = {"name": "http", "proxies": proxies, **options.pop("port", {})}
        return make_node(engine, new_protocol=new_protocol, port=port, **options)

    return make


def send(node: Node, chain: str, count: int = 1) -> Iterator[str]:
    """Send uploads over one connection; yield the ids of their answers."""
    with node.connect() as client:
        for _ in range(count):
            client.send(post(TRANSCRIPTIONS, ("file", WAV), X_Forwarded_For=chain))
            data = client.socket.recv(65_536)
            yield answers(data)[0].headers["x-request-id"]


def test_output_names_the_client_of_each_message_of_a_proxy(serve: Callable[..., Node]) -> None:
    node = serve("127.0.0.1")
    with node.connect() as client:
        for chain in ("203.0.113.7", "2001:db8::1, 127.0.0.1", ""):
            client.send(post(TRANSCRIPTIONS, ("file", WAV), X_Forwarded_For=chain))
            eventually(lambda: b"200 OK" in client.socket.recv(65_536), "an answer")
        names = [node.lines.wait_for(f"made-{number}")["peer"] for number in range(3)]
        assert names == ["203.0.113.7", "2001:db8::1", client.peer]


@pytest.mark.parametrize("trusted", [None, "10.0.0.0/8"])
def test_header_of_another_client_changes_nothing(
    serve: Callable[..., Node], trusted: str | None
) -> None:
    node = serve(trusted)
    with node.connect() as client:
        client.send(post(TRANSCRIPTIONS, ("file", WAV), X_Forwarded_For="203.0.113.7"))
        assert node.lines.wait_for("made-0")["peer"] == client.peer


def test_log_of_a_failure_names_the_client(serve: Callable[..., Node]) -> None:
    node = serve("127.0.0.1", authorize=lambda _token: False, port={"needs_token": True})
    with capture_logs() as log, node.connect() as client:
        client.send(post(TRANSCRIPTIONS, ("file", WAV), X_Forwarded_For="203.0.113.7"))
        eventually(lambda: [line for line in log if line.get("event") == "failed"], "a log line")
    (line,) = [line for line in log if line.get("event") == "failed"]
    assert line["peer"] == "203.0.113.7"


def test_invalid_request_is_not_ascribed_to_the_client_before(serve: Callable[..., Node]) -> None:
    node = serve("127.0.0.1")
    with node.connect() as client:
        client.send(post(TRANSCRIPTIONS, ("file", WAV), X_Forwarded_For="203.0.113.7"))
        node.lines.wait_for("made-0")
        client.send(b"\x00\r\n\r\n")
        assert node.lines.wait_for(None)["peer"] == client.peer


@pytest.mark.parametrize("trusted", ["127.0.0.1", None])
def test_clients_behind_one_proxy_share_fairly(
    serve: Callable[..., Node], trusted: str | None
) -> None:
    engine = FakeEngine()
    node = serve(trusted, engine, queue_size=4)
    engine.hold()
    greedy = [node.connect() for _ in range(8)]
    try:
        for client in greedy:
            client.send(post(TRANSCRIPTIONS, ("file", WAV), X_Forwarded_For="203.0.113.7"))
        quota = node.server.pipeline.quota
        # One address gets at most three quarters of the places.
        eventually(lambda: quota.admitted + quota.waiting == 8, "all requests")
        assert quota.admitted == 3
        with node.connect() as other:
            other.send(post(TRANSCRIPTIONS, ("file", WAV), X_Forwarded_For="203.0.113.8"))
            eventually(lambda: quota.admitted + quota.waiting == 9, "the other's request")
            assert quota.admitted == (3 if trusted is None else 4)
            engine.release()
            eventually(lambda: b"200 OK" in other.socket.recv(65_536), "its answer")
    finally:
        engine.release()
        for client in greedy:
            client.close()


def test_session_belongs_to_its_client(make_node: MakeNode) -> None:
    routes = socket_routes(config.read([], {}), ENGLISH, ModelNames("fake.en", frozenset()))
    site = replace(SITES, sockets=routes)

    def new_protocol() -> HttpProtocol:
        return HttpProtocol(site, lambda: "made", proxied=True)

    port = {"name": "http", "proxies": Proxies(PROXIES, new_protocol)}
    live = LiveWorker(make_node(new_protocol=new_protocol, port=port))
    with socket.create_connection(("127.0.0.1", live.node.port), HANG) as client:
        client.sendall(opening("/vosk", **{"X-Forwarded-For": "203.0.113.7"}))
        assert client.recv(65_536).startswith(b"HTTP/1.1 101 ")
        (connection,) = live.node.server.connections.values()
        assert connection.peer.address == "203.0.113.7"
        assert connection.peer.name == "203.0.113.7"


# Settings.


def test_vosk_port_trusts_the_same_proxies() -> None:
    port = vosk_port(config.read(["--trusted-proxy", "10.0.0.0/8,::1"], {}), 2700)
    assert port.proxies is not None
    assert port.proxies.networks == (ip_network("10.0.0.0/8"), ip_network("::1"))
    peer, _ = peer_of(("10.0.0.1", 1), port)
    protocol = peer.new_protocol()
    protocol.feed(request("GET", "/", X_Forwarded_For="203.0.113.7"))
    assert getattr(protocol.next_event(), "address", None) == "203.0.113.7"


@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "::/0"])
def test_trust_in_everybody_is_warned_of(everybody: str) -> None:
    with capture_logs() as log:
        warn_of_strangers(config.read(["--trusted-proxy", everybody], {}), no_token=False)
        warn_of_strangers(config.read(["--trusted-proxy", "10.0.0.0/8"], {}), no_token=False)
    (line,) = log
    assert "--trusted-proxy" in line["event"]
