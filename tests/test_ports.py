"""Ports and the contract of protocols: every event, tokens, allowed addresses, listening at every
address of a name.

The protocol is a toy with lines of text, one message at a time like HTTP.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from fakes import (
    HANG,
    RATE,
    Client,
    FakeEngine,
    Node,
    eventually,
    frame,
    hypothesis_of,
    message,
    pcm,
    text_or_code,
)
from structlog.testing import capture_logs

from app.messages import (
    Accepted,
    Begin,
    BodyData,
    Broken,
    End,
    Event,
    Failure,
    Origin,
    Outcome,
    Query,
    RawFormat,
    Reply,
    Report,
    Request,
    Send,
    Transcript,
)
from app.network.listener import Listener, listen
from app.network.loop import Loop
from app.network.outbox import MAX_SLOTS
from app.network.ports import Port, peer_of
from app.network.timeouts import Timeouts
from app.protocols.base import ProtocolError
from app.server import Reports
from app.storage.spool import Spool

MakeNode = Callable[..., Node]

FULL_BYTES = 4096


class Toy:
    """`begin ID LENGTH TOKEN`, `data HEX`, `end`, `end LANGUAGE`, `break`, `tell WORD`, `ask KIND
    TOKEN`, a line each; `-` for none."""

    end_means_gone = True

    def __init__(self) -> None:
        self.unread = bytearray()
        self._request: Request | None = None
        self._accepted: bool | None = None
        self._replying = False
        self._over = False

    def feed(self, data: bytes) -> None:
        self.unread += data

    def next_event(self) -> Event | None:
        if self._over or (self._replying and self._request is None):
            return None
        if self._request is not None and self._accepted is None:
            return None
        line, end, rest = self.unread.partition(b"\n")
        if not end:
            return None
        self.unread = rest
        word, *more = line.decode().split()
        return self._event(word, more)

    def _event(self, word: str, more: list[str]) -> Event | None:
        if word == "tell":
            return Send(more[0].encode() + b"\n", keep_alive=more[0] != "bye")
        if word == "ask":
            self._replying = True
            return Query(more[0], token=None if more[1] == "-" else more[1])  # type: ignore[arg-type]
        if word == "begin":
            name, length, token = more
            self._request = Request(
                name,
                None if length == "-" else int(length),
                RawFormat("s16", RATE, 1, "little"),
                keep_alive=True,
                token=None if token == "-" else token,
            )
            self._replying = True
            return Begin(self._request)
        if word == "data" and self._accepted:
            return BodyData(bytes.fromhex(more[0]))
        request, accepted = self._request, self._accepted
        if word in ("end", "break"):
            self._request = self._accepted = None
        if request is None:
            raise ProtocolError(Failure("bad_header", f"{word} here"))
        if word == "break" and accepted:
            return Broken(Failure("bad_field", "broken"))
        if word == "end" and accepted:
            return End(replace(request, language=more[0]) if more else None)
        return self.next_event()

    def accept(self) -> bytes:
        self._accepted = True
        return b"go on\n"

    def reject(self) -> None:
        self._accepted = False

    def abandon(self) -> None:
        self._over = True

    @property
    def idle(self) -> bool:
        return not self.unread and self._request is None

    @property
    def reading_body(self) -> bool:
        return self._request is not None and self._accepted is not None

    @property
    def full(self) -> bool:
        return self._replying and self._request is None and len(self.unread) >= FULL_BYTES

    def encode(self, request_id: str | None, reply: Reply) -> bytes:
        if isinstance(reply, (Transcript, Failure, Report, Accepted)):
            self._replying = False
        if isinstance(reply, Transcript):
            return f"{request_id} {reply.text}\n".encode()
        if isinstance(reply, Failure):
            return f"{request_id} {reply.code}\n".encode()
        return reply.body + b"\n" if isinstance(reply, Report) else b"segment\n"


class Talk:
    """A connection that speaks lines."""

    def __init__(self, node: Node) -> None:
        self.client = node.connect()
        self._file = self.client.socket.makefile("rb")

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.client.close()

    def send(self, *lines: str) -> None:
        self.client.send("".join(line + "\n" for line in lines).encode())

    def receive(self) -> str:
        return self._file.readline().decode().rstrip("\n")


@pytest.fixture
def toy(make_node: MakeNode) -> Callable[..., Node]:
    def make(**more: Any) -> Node:
        return make_node(new_protocol=Toy, **more)

    return make


def data(count: int) -> str:
    return f"data {pcm(count).hex()}"


def test_message_of_unknown_length_is_followed_by_another(toy: MakeNode) -> None:
    node = toy()
    with Talk(node) as talk:
        talk.send("begin a - -", data(700), data(300), "end", "begin b 1000 -", data(500), "end")
        assert [talk.receive() for _ in range(4)] == ["go on", "a 1000", "go on", "b 500"]
    line = node.lines.wait_for("a")
    assert line["text"] == "1000"


def test_protocols_own_answer_keeps_its_order(toy: MakeNode) -> None:
    node = toy()
    with Talk(node) as talk:
        talk.send("tell one", "begin a - -", data(400), "end", "tell two", "tell bye")
        assert [talk.receive() for _ in range(6)] == ["one", "go on", "a 400", "two", "bye", ""]
    assert len(node.lines.written) <= 1


def test_protocols_own_answer_within_a_message_is_sent_at_once(
    toy: MakeNode,
) -> None:
    with Talk(toy()) as talk:
        talk.send("begin a - -", data(200))
        assert talk.receive() == "go on"
        # More than the maximum number of due replies.
        for number in range(MAX_SLOTS + 1):
            talk.send(f"tell {number}")
            assert talk.receive() == str(number)
        talk.send(data(200), "end", "tell bye")
        assert [talk.receive() for _ in range(3)] == ["a 400", "bye", ""]


def test_fields_behind_the_body_are_applied(toy: MakeNode) -> None:
    node = toy()
    with Talk(node) as talk:
        talk.send("begin a - -", data(400), "end fr", "begin b - -", data(400), "end en")
        assert [talk.receive() for _ in range(4)] == ["go on", "a bad_field", "go on", "b 400"]
    assert node.engine.calls[0][1].language == "en"
    eventually(lambda: node.server.load.buffered_bytes == 0)


def test_broken_message_frees_its_bytes(toy: MakeNode) -> None:
    node = toy(queue_size=1)
    with Talk(node) as talk:
        talk.send("begin a 800 -", data(100), "break", "begin b - -", data(400), "end")
        assert [talk.receive() for _ in range(4)] == ["go on", "a bad_field", "go on", "b 400"]
    eventually(lambda: node.server.load.admitted == 0)
    eventually(lambda: node.server.load.buffered_bytes == 0)


def test_protocol_error_between_messages_is_reported(toy: MakeNode) -> None:
    with Talk(toy()) as talk:
        talk.send("end")
        assert [talk.receive(), talk.receive()] == ["None bad_header", ""]


def test_end_of_stream_cancels_if_the_protocol_says_so(toy: MakeNode) -> None:
    node = toy(queue_size=1)
    node.engine.hold()
    with Talk(node) as talk, Talk(node) as other:
        talk.send("begin a - -", data(400), "end")
        node.engine.wait_for_calls(1)
        other.send("begin b - -", data(300), "end")
        talk.client.half_close()
        eventually(lambda: any(c.state.peer_ended for c in node.connections))
        node.engine.release()
        assert [other.receive(), other.receive()] == ["go on", "b 300"]
    assert node.lines.wait_for("b")["status"] == "ok"


def test_end_of_stream_cancels_requests_that_wait_for_the_worker(toy: MakeNode) -> None:
    node = toy()
    node.engine.hold()
    with Talk(node) as busy, Talk(node) as gone:
        busy.send("begin a - -", data(400), "end")
        node.engine.wait_for_calls(1)
        gone.send("begin b - -", data(300), "end")
        eventually(lambda: len(node.jobs) == 2)
        gone.client.half_close()
        # The worker notices it after the window in progress.
        eventually(lambda: node.cancelled)
        node.engine.release()
        assert node.lines.wait_for("b")["error"]["code"] == "cancelled"
    assert len(node.engine.calls) == 1


def test_full_protocol_is_not_fed(toy: MakeNode) -> None:
    node = toy()
    node.engine.hold()
    count = 20_000
    with Talk(node) as talk:
        talk.send("begin a - -", data(400), "end")
        node.engine.wait_for_calls(1)
        [connection] = node.connections
        talk.send(*["tell " + "x" * 100] * 100)
        eventually(lambda: not connection.state.wants_read())
        talk.client.socket.settimeout(0.2)
        sent = 0
        lines = b"tell y\n" * count * 100
        with contextlib.suppress(TimeoutError):
            while sent < len(lines):
                sent += talk.client.socket.send(lines[sent : sent + 65536])
        assert sent < len(lines), "the node never stopped reading"
        assert len(connection.protocol.unread) < 100_000  # type: ignore[attr-defined]
        node.engine.release()


def test_busy_is_sent_in_the_ports_protocol(toy: MakeNode) -> None:
    node = toy(max_connections=1)
    with Talk(node) as first:
        first.send("tell hello")
        assert first.receive() == "hello"
        with Talk(node) as second:
            assert [second.receive(), second.receive()] == ["None busy", ""]


# Questions about the node.


def test_reports_are_answered_during_the_work(toy: MakeNode) -> None:
    asked: list[str] = []

    def report(kind: str) -> Callable[[], Report]:
        def make() -> Report:
            asked.append(kind)
            return Report(True, "text/plain", kind.encode())

        return make

    reports = {kind: report(kind) for kind in ("ready", "status", "metrics")}
    node = toy(
        reports=Reports(reports),
        port={"needs_token": True},
        authorize=lambda token: token == "sesame",
    )
    node.engine.hold()
    with Talk(node) as talk, Talk(node) as busy:
        busy.send("begin a - sesame", data(400), "end")
        node.engine.wait_for_calls(1)
        talk.send("ask ready -", "ask metrics -", "ask status -", "ask status sesame")
        heard = [talk.receive() for _ in range(4)]
        assert heard == ["ready", "metrics", "None unauthorized", "status"]
        node.engine.release()
        assert [busy.receive(), busy.receive()] == ["go on", "a 400"]
    assert asked == ["ready", "metrics", "status"]


def test_metrics_can_require_the_token(toy: MakeNode) -> None:
    node = toy(
        reports=Reports(
            {"metrics": lambda: Report(True, "text/plain", b"m")}, frozenset({"metrics"})
        ),
        port={"needs_token": True},
        authorize=lambda token: token == "sesame",
    )
    with Talk(node) as talk:
        talk.send("ask metrics -", "ask metrics sesame")
        assert [talk.receive(), talk.receive()] == ["None unauthorized", "m"]


def test_load_counts_requests_and_bytes(toy: MakeNode) -> None:
    node = toy(queue_size=2)
    assert node.server.load.ready
    node.engine.hold()
    with Talk(node) as one, Talk(node) as two, Talk(node) as three:
        one.send("begin a - -", data(16_000), "end")
        node.engine.wait_for_calls(1)
        two.send("begin b 800 -")
        three.send("begin c 800 -")
        eventually(lambda: node.server.load.waiting == 1)
        load = node.server.load
        assert (load.connections, load.admitted, load.places) == (3, 2, 2)
        assert load.queued_seconds == 1.0
        assert load.buffered_bytes == 32_000 + 800
        assert not load.ready
        assert load.worker_alive
        node.engine.release()


def test_observers_are_called_for_every_outcome(make_node: MakeNode) -> None:
    class Counter:
        def __init__(self) -> None:
            self.seen: list[tuple[str, str | None, str]] = []

        def finished(self, origin: Origin, request: Request | None, outcome: Outcome) -> None:
            word = outcome.code if isinstance(outcome, Failure) else "ok"
            self.seen.append((origin.protocol, request and request.id, word))

    counter = Counter()
    node = make_node(observers=[counter])
    node.ask(pcm(300), id="a")
    node.ask(pcm(300), id="b", task="sing")
    node.ask(pcm(300), id="c", language="de")
    eventually(lambda: len(counter.seen) == 3)
    assert counter.seen == [
        ("native", "a", "ok"),
        ("native", None, "bad_field"),
        ("native", "c", "bad_field"),
    ]


# Tokens.


@pytest.fixture
def guarded(make_node: MakeNode) -> Node:
    return make_node(port={"needs_token": True}, authorize=lambda token: token == "sesame")


@pytest.mark.parametrize("fields", [{}, {"token": "Sesame"}, {"token": "x" * 256}])
@pytest.mark.parametrize("kept", ["keep-alive", "close"])
def test_unauthenticated_client_gets_an_error_and_its_body_is_not_kept(
    make_node: MakeNode, fields: dict[str, str], kept: str
) -> None:
    class NoPlace(Spool):
        def create(self, size: int | None) -> NoReturn:
            raise AssertionError("an unauthenticated client's body was given a place")

    guarded = make_node(
        port={"needs_token": True},
        authorize=lambda token: token == "sesame",
        make_spool=lambda disk: NoPlace(Path("/var/tmp"), disk),
    )
    with guarded.connect() as client:
        client.send(
            message(pcm(3000), id="x", connection=kept, **fields)
            + message(pcm(300), id="y", token="sesame")
        )
        assert [text_or_code(reply) for reply in client.replies()] == ["unauthorized"]
    line = guarded.lines.wait_for("x")
    assert line["error"]["code"] == "unauthorized"
    assert "sesame" not in str(line).lower()
    assert not guarded.lines.of("y")


def test_request_with_the_token_is_served(guarded: Node) -> None:
    with guarded.connect() as client:
        client.request(pcm(300), token="sesame", connection="keep-alive")
        client.request(pcm(400), token="sesame")
        assert [text_or_code(reply) for reply in client.replies()] == ["300", "400"]


def test_unauthenticated_client_does_not_see_header_errors(guarded: Node) -> None:
    for fields, code in (({}, "unauthorized"), ({"token": "sesame"}, "bad_field")):
        with guarded.connect() as client:
            client.request(pcm(300), id="x", task="sing", connection="keep-alive", **fields)
            client.half_close()
            assert [text_or_code(reply) for reply in client.replies()] == [code]


@pytest.mark.parametrize(
    ("length", "code"), [(1 << 40, "too_large"), (-1, "bad_header"), (None, "missing_field")]
)
def test_unauthenticated_client_does_not_see_length_errors(
    guarded: Node, length: int | None, code: str
) -> None:
    """The limits of the node are no information for unauthenticated clients."""
    fields = {"content-length": length, "byteorder": "little", "token": "sesame"}
    known = {name: value for name, value in fields.items() if value is not None}
    for header, expected in (
        (known, code),
        ({**known, "token": "Sesame"}, "unauthorized"),
        ({name: value for name, value in known.items() if name != "token"}, "unauthorized"),
    ):
        with guarded.connect() as client:
            client.send(frame(header))
            assert [text_or_code(reply) for reply in client.replies()] == [expected]


def test_token_is_ignored_if_the_port_needs_none(make_node: MakeNode) -> None:
    node = make_node(authorize=lambda _token: False)
    assert [text_or_code(reply) for reply in node.ask(pcm(300), token="any")] == ["300"]


def test_neither_text_nor_token_goes_to_the_log() -> None:
    def answer(samples: Any, options: Any) -> Any:
        return hypothesis_of("the secret words", len(samples) / RATE)

    with capture_logs() as entries:
        node = Node(
            FakeEngine(answer),
            port={"needs_token": True},
            authorize=lambda token: token == "open-sesame",
        )
        node.start()
        try:
            for token in ("open-sesame", "wrong-sesame"):
                for fields in ({}, {"prompt": "the secret prompt"}, {"task": "sing"}):
                    node.ask(pcm(900), token=token, reply="segments", id="known", **fields)
            with node.connect() as client:
                client.send(b"\0\x20{the secret header, and no JSON.}")
                client.replies()
        finally:
            node.stop()
    logged = str(entries)
    assert "known" in logged, "ids are logged"
    assert "secret" not in logged
    assert "sesame" not in logged


# Allowed addresses, and listening.


def test_client_of_another_network_is_closed_at_once(make_node: MakeNode) -> None:
    node = make_node(port={"allowed": (ipaddress.ip_network("10.0.0.0/8"),)})
    with node.connect() as client:
        client.socket.settimeout(HANG)
        with contextlib.suppress(ConnectionResetError):
            assert client.socket.recv(1) == b""
    assert not node.connections


def test_client_of_an_allowed_network_is_served(make_node: MakeNode) -> None:
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("127.0.0.0/8"))
    node = make_node(port={"allowed": networks})
    assert [text_or_code(reply) for reply in node.ask(pcm(300))] == ["300"]


@pytest.mark.parametrize(
    ("address", "text", "name", "allowed"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7:99", True),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7:99", True),
        ("192.0.3.7", "192.0.3.7", "192.0.3.7:99", False),
        ("2001:db8::1", "2001:db8::1", "[2001:db8::1]:99", False),
        ("fe80::1%eth0", "fe80::1", "[fe80::1]:99", False),
    ],
)
def test_peer_of_names_address_and_port(address: str, text: str, name: str, allowed: bool) -> None:
    port = Port("native", "", 0, Toy, allowed=(ipaddress.ip_network("192.0.2.0/24"),))
    peer, parsed = peer_of((address, 99), port)
    assert (peer.address, peer.name) == (text, name)
    assert port.admits(parsed) is allowed


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    original = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *more: Any, **named: Any) -> list[Any]:
        if host != "name":
            return original(host, port, *more, **named)
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in addresses
        ]

    monkeypatch.setattr("app.network.listener.socket.getaddrinfo", getaddrinfo)


def close(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.close()


def test_listen_opens_every_address_of_a_name(monkeypatch: pytest.MonkeyPatch, loop: Loop) -> None:
    # The last address is reserved for documentation, so no machine has it.
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.1", "192.0.2.1")
    greeted: list[Any] = []
    listeners = listen(loop, "name", 0, lambda sock, _address: greeted.append(sock))
    assert len(listeners) == 2
    [port] = {listener.port for listener in listeners}
    for address in ("127.0.0.1", "127.0.0.2"):
        with socket.create_connection((address, port), timeout=HANG):
            pass
    with pytest.raises(OSError, match="in use"):
        listen(loop, "name", port, lambda *_: None)
    close(listeners)


def test_listen_fails_for_an_address_of_another_machine(
    monkeypatch: pytest.MonkeyPatch, loop: Loop
) -> None:
    resolve_to(monkeypatch, "192.0.2.1")
    with pytest.raises(OSError, match="assign"):
        listen(loop, "name", 0, lambda *_: None)


def test_listener_pauses_without_descriptors_and_continues(
    monkeypatch: pytest.MonkeyPatch, loop: Loop
) -> None:
    monkeypatch.setattr("app.network.listener.PAUSE_SECONDS", 0.05)
    greeted: list[socket.socket] = []

    def greet(sock: socket.socket, _address: Any) -> None:
        greeted.append(sock)
        loop.stop()

    [listener] = listen(loop, "127.0.0.1", 0, greet)
    accept, tries = socket.socket.accept, 0

    def exhausted(sock: socket.socket) -> Any:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise OSError(24, "Too many open files")
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", exhausted)
    with (
        capture_logs() as entries,
        socket.create_connection(("127.0.0.1", listener.port), timeout=HANG),
    ):
        loop.run()
    # While paused, it did not retry repeatedly.
    assert tries in (3, 4)
    assert [entry["event"] for entry in entries] == ["cannot accept"] * 2
    assert len(greeted) == 1
    greeted[0].close()
    close([listener])


def test_missing_handshake_times_out(make_node: MakeNode) -> None:
    """With TLS the timeout of the header includes the handshake."""
    ssl = pytest.importorskip("ssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    node = make_node(port={"tls": context}, timeouts=Timeouts(header=0.1))
    with node.connect() as client:
        assert client.socket.recv(1) == b""
    with Client(node.port) as plain:
        plain.send(message(pcm(300)))
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := plain.socket.recv(4096):
                received += piece
        assert b"{" not in received
    eventually(lambda: not node.connections)
