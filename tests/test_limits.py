"""Load: bytes and places, and the behaviour when none are left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from fakes import (
    HANG,
    RATE,
    RAW,
    Client,
    Clock,
    Node,
    eventually,
    frame,
    message,
    pcm,
    text_or_code,
)

from app.network.connection import Connection
from app.requests.outcomes import MAX_STDOUT_BACKLOG
from app.requests.slow_uploads import WINDOW_SECONDS

MakeNode = Callable[..., Node]

MIB = 1 << 20


def waiting(node: Node) -> int:
    return node.server.load.waiting


def begin(client: Client, length: int, **fields: Any) -> None:
    """Send the header of a message without its body."""
    client.send(frame({**RAW, "content-length": length, **fields}))


# Bytes.


def test_bodies_beyond_the_byte_limit_wait_unread(make_node: MakeNode) -> None:
    node = make_node(max_body=3 * MIB, max_buffered_bytes=4 * MIB)
    body = pcm(MIB)  # 2 MiB
    node.engine.hold()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(node.connect()) for _ in range(4)]
        clients[0].request(body, id="0")
        node.engine.wait_for_calls(1)
        for number, client in enumerate(clients[1:], 1):
            begin(client, len(body), id=str(number))
        eventually(lambda: waiting(node) == 3)
        assert node.server.load.buffered_bytes <= 4 * MIB
        node.engine.release()
        for client in clients[1:]:
            client.send(body)
        for client in clients:
            assert text_or_code(client.reply()) is not None
    for number in range(4):
        assert node.lines.wait_for(str(number))["audio_seconds"] == MIB / RATE
    eventually(lambda: node.server.load.buffered_bytes == 0)


def test_half_received_bodies_do_not_block_each_other(make_node: MakeNode) -> None:
    """Each has sent half of a body that needs all bytes. They must be completed one by one."""
    node = make_node(max_body=2 * MIB, max_buffered_bytes=2 * MIB)
    body = pcm(MIB)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(node.connect()) for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(message(body, id=str(number))[:2000])
        eventually(lambda: waiting(node) == 2)
        # The rest is sent in reverse order, as far as the sockets accept it.
        rest = {
            client: memoryview(message(body, id=str(n)))[2000:] for n, client in enumerate(clients)
        }
        for client in clients:
            client.socket.setblocking(False)

        def push() -> bool:
            for client in reversed(clients):
                with contextlib.suppress(BlockingIOError):
                    while rest[client]:
                        rest[client] = rest[client][client.socket.send(rest[client]) :]
            return not any(rest.values())

        eventually(push)
        for client in clients:
            client.socket.settimeout(HANG)
            assert [reply["status"] for reply in client.replies()] == ["ok"]


def test_abandoned_upload_frees_its_bytes(make_node: MakeNode) -> None:
    node = make_node(max_body=2 * MIB, max_buffered_bytes=2 * MIB)
    with node.connect() as leaving, node.connect() as other:
        begin(leaving, 2 * MIB)
        eventually(lambda: node.server.load.buffered_bytes == 2 * MIB)
        other.request(pcm(300))
        eventually(lambda: waiting(node) == 1)
        leaving.half_close()
        assert text_or_code(other.reply()) == "300"


def test_body_that_outgrows_the_free_bytes_receives_busy(make_node: MakeNode) -> None:
    from test_ports import Talk, Toy, data

    node = make_node(new_protocol=Toy, max_buffered_bytes=4 * MIB)
    with Talk(node) as growing, Talk(node) as other:
        other.send("begin o - -")
        assert other.receive() == "go on"
        growing.send("begin g - -", *[data(10_000)] * 170, "end", "tell next")
        assert [growing.receive() for _ in range(3)] == ["go on", "g busy", "next"]
        other.send(data(500), "end")
        assert other.receive() == "o 500"
    assert node.lines.wait_for("g")["error"]["retry_after_seconds"] >= 1


# A full node.


def test_reject_sends_busy_with_a_retry_time(make_node: MakeNode) -> None:
    node = make_node(queue_size=2, reject_when_full=True)
    node.engine.hold()
    with contextlib.ExitStack() as stack:
        one, two, three = (stack.enter_context(node.connect()) for _ in range(3))
        for client in (one, two):
            client.request(pcm(30 * RATE), connection="keep-alive")
        eventually(lambda: node.server.load.queued_seconds == 60)
        three.request(pcm(300), id="three", connection="keep-alive")
        reply = three.reply()
        assert reply is not None
        assert (reply["id"], text_or_code(reply)) == ("three", "busy")
        # The node has measured nothing yet, so it assumes real time.
        assert reply["error"]["retry_after_seconds"] == 60.0
        assert node.lines.wait_for("three")["error"]["code"] == "busy"
        node.engine.release()
        for client in (one, two):
            assert text_or_code(client.reply()) not in (None, "busy")
        # The connection is kept, and the body is skipped.
        eventually(lambda: node.server.load.admitted == 0)
        three.request(pcm(400))
        assert [text_or_code(reply) for reply in three.replies()] == ["400"]


def test_reject_applies_to_bytes_too(make_node: MakeNode) -> None:
    node = make_node(max_body=2 * MIB, max_buffered_bytes=2 * MIB, reject_when_full=True)
    with node.connect() as holding:
        begin(holding, 2 * MIB)
        eventually(lambda: node.server.load.buffered_bytes == 2 * MIB)
        assert [text_or_code(reply) for reply in node.ask(pcm(300))] == ["busy"]


def test_silent_requests_are_rejected_without_a_reply(make_node: MakeNode) -> None:
    node = make_node(queue_size=1, reject_when_full=True)
    node.engine.hold()
    with node.connect() as one:
        one.request(pcm(300))
        node.engine.wait_for_calls(1)
        assert node.ask(pcm(300), id="quiet", reply="none") == []
        assert node.lines.wait_for("quiet")["error"]["code"] == "busy"


def test_rejections_do_not_pile_up_behind_an_unread_stdout(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.requests.outcomes.MAX_STDOUT_BACKLOG", 5)
    assert MAX_STDOUT_BACKLOG > 5
    node = make_node()
    node.lines.flowing.clear()
    with node.connect() as client:
        for _ in range(40):
            client.request(pcm(10), task="sing", connection="keep-alive")
            client.request(pcm(10), language="fr", connection="keep-alive")
            assert [text_or_code(client.reply()) for _ in range(2)] == ["bad_field"] * 2
    assert node.sink.backlog <= 6
    node.lines.flowing.set()
    node.disk.nudge()


# Fairness.


def as_client(connection: Connection, address: str) -> None:
    """Make a loopback connection count as that of another client."""
    object.__setattr__(connection.peer, "address", address)


def connect_as(node: Node, address: str) -> Client:
    client = node.connect()

    def found() -> list[Connection]:
        connections = node.connections
        return [connection for connection in connections if connection.peer.name == client.peer]

    eventually(found)
    as_client(found()[0], address)
    return client


def test_hundreds_of_files_of_one_client_do_not_starve_another(make_node: MakeNode) -> None:
    """500 files wait on 500 connections of one client; then one file comes from another client."""
    node = make_node(queue_size=8)
    node.engine.hold()
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connect_as(node, "192.0.2.1")) for _ in range(500)]
        for client in busy:
            client.request(pcm(1000))
        node.engine.wait_for_calls(1)
        eventually(lambda: waiting(node) >= 490)
        single = stack.enter_context(connect_as(node, "192.0.2.2"))
        # It is longer than the others, so that only its client can favour it.
        single.request(pcm(1500))
        node.engine.release()
        assert text_or_code(single.reply()) == "1500"
        for client in busy:
            assert text_or_code(client.reply()) == "1000"
    sizes = [len(samples) for samples, _ in node.engine.calls]
    assert sizes.count(1000) == 500
    assert sizes.index(1500) < 20


def test_stalled_uploads_leave_places_for_other_clients(make_node: MakeNode) -> None:
    node = make_node(queue_size=8)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            begin(stack.enter_context(connect_as(node, "192.0.2.1")), 1000)
        eventually(lambda: waiting(node) == 14)
        single = stack.enter_context(connect_as(node, "192.0.2.2"))
        single.request(pcm(700))
        assert text_or_code(single.reply()) == "700"


# Slow uploads.


def test_slow_uploads_give_way_when_others_wait(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All clients have one address, so that no share protects the honest one."""
    monkeypatch.setattr("app.requests.slow_uploads.WINDOW_SECONDS", 0.5)
    node = make_node(queue_size=4)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(node.connect()) for _ in range(6)]
        for number, client in enumerate(slow):
            begin(client, 1000, id=f"slow-{number}")
        eventually(lambda: waiting(node) == 3)
        honest = stack.enter_context(node.connect())
        honest.request(pcm(800), id="honest")
        assert text_or_code(honest.reply()) == "800"
        assert text_or_code(slow[0].reply()) == "timeout"
        assert slow[0].reply() is None
    assert "slower than speech" in node.lines.wait_for("slow-0")["error"]["message"]


def test_slow_upload_is_kept_while_no_client_waits(make_node: MakeNode, clock: Clock) -> None:
    node = make_node(queue_size=2)
    data = message(pcm(300), id="slow")
    with node.connect() as client:
        client.send(data[:-30])
        for at in range(len(data) - 30, len(data)):
            eventually(lambda at=at: received(node) == at - len(data) + 600)
            clock.pass_by(WINDOW_SECONDS)
            client.send(data[at : at + 1])
        assert text_or_code(client.reply()) == "300"


def received(node: Node) -> int | None:
    """Return the bytes received of the only upload."""
    [upload] = node.uploads or [None]
    return upload.body.size if upload is not None and upload.body is not None else None


def test_steady_upload_is_kept_while_others_wait(make_node: MakeNode, clock: Clock) -> None:
    node = make_node(queue_size=1)
    slow_uploads = node.server.pipeline.uploads.slow
    data = message(pcm(60_000), id="steady")
    with node.connect() as client, node.connect() as other:
        client.send(data[:400])
        eventually(lambda: node.server.load.admitted == 1)
        other.request(pcm(200))
        eventually(lambda: waiting(node) == 1)
        there = 0
        for at in range(400, len(data) - 6000, 6000):
            client.send(data[at : at + 6000])
            there = at + 6000 - (len(data) - 120_000)
            eventually(lambda there=there: received(node) == there)
            # A measuring window ends, and the next one begins with the present amount.
            clock.pass_by(WINDOW_SECONDS)
            node.server.loop.wake()
            eventually(lambda there=there: list((slow_uploads.sizes or {}).values()) == [there])
        client.send(data[at + 6000 :])
        assert text_or_code(client.reply()) not in (None, "timeout")
        assert text_or_code(other.reply()) == "200"
