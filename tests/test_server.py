"""The node over real sockets, with a fake engine: replies and their order, places, cancelling,
timeouts, limits and the end. The fixture asserts for each test that no callback failed."""

from __future__ import annotations

import contextlib
import errno
import json
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import (
    HANG,
    MULTILINGUAL,
    RATE,
    RAW,
    UNHURRIED,
    Client,
    Clock,
    FakeEngine,
    Node,
    encoded,
    eventually,
    frame,
    message,
    pcm,
    text_or_code,
    tone,
)

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions, EngineError
from app.messages import Segment
from app.network.connection_state import LINGER_BYTES
from app.network.outbox import MAX_UNSENT_BYTES
from app.network.ports import Port
from app.network.timeouts import Timeouts
from app.protocols.native.protocol import NativeProtocol
from app.storage.body import Body
from app.storage.disk import Disk
from app.storage.spool import Spool

MakeNode = Callable[..., Node]


def rejected(body: bytes, **fields: Any) -> bytes:
    """A request that is rejected at its header, with a body of known length."""
    return message(body, **{"task": "sing", **fields})


# The original client.


def test_original_client_gets_its_reply_and_the_end_of_stream(node: Node) -> None:
    flac = encoded(tone(RATE), format="FLAC")
    header = json.dumps(
        {
            "byteorder": sys.byteorder,
            "content-type": "binary/flac",
            "content-encoding": "flac",
            "content-length": len(flac),
        }
    ).encode("utf-8")
    received = b""
    with socket.create_connection(("127.0.0.1", node.port), timeout=HANG) as sock:
        sock.sendall(struct.pack("!H", len(header)) + header + flac)
        while data := sock.recv(4096):
            received += data
    (length,) = struct.unpack("!H", received[:2])
    reply_header = json.loads(received[2 : 2 + length])
    assert reply_header.keys() == {
        "byteorder",
        "content-type",
        "content-encoding",
        "content-length",
    }
    reply = json.loads(received[2 + length :])
    assert len(received) == 2 + length + reply_header["content-length"]
    assert reply["status"] == "ok"
    assert reply["text"] == str(RATE)
    assert reply["language"] == "en"
    assert reply["model"] == "fake.en"
    assert reply["truncated"] is False
    assert reply["audio_seconds"] == 1.0
    assert reply["queue_seconds"] >= 0
    assert reply["processing_seconds"] > 0
    assert [segment.keys() for segment in reply["segments"]] == [
        {"start", "end", "text", "confidence"}
    ]
    line = node.lines.wait_for(reply["id"])
    assert {name: line[name] for name in reply} == reply
    assert line["peer"].startswith("127.0.0.1:")
    assert line["received_at"].endswith("Z")


# Reply modes.


def three_windows() -> bytes:
    """Raw samples that make three windows, with a gap after each 20 s."""
    gap = np.zeros(RATE, dtype=np.float32)
    samples = np.concatenate([tone(20 * RATE), gap, tone(20 * RATE), gap, tone(12 * RATE)])
    return bytes((samples * 32767).astype("<i2").tobytes())


def test_segments_are_sent_during_the_job_and_repeated_in_the_final_reply(node: Node) -> None:
    node.engine.hold()
    with node.connect() as client:
        client.request(three_windows(), id="s", reply="segments")
        early = []
        for _ in range(2):
            node.engine.step()
            early.append(client.reply())
        assert not node.lines.of("s")
        node.engine.release()
        rest = client.replies()
    assert [reply["status"] for reply in early + rest] == ["segment"] * 3 + ["ok"]
    assert [reply["segment"] for reply in early + rest[:1]] == rest[-1]["segments"]
    starts = [segment["start"] for segment in rest[-1]["segments"]]
    assert starts == sorted(set(starts))
    assert {reply["id"] for reply in early + rest} == {"s"}
    assert set(rest[0]["segment"]) == {"start", "end", "text", "confidence"}


def test_accepted_reply_is_sent_before_the_work_is_done(node: Node) -> None:
    node.engine.hold()
    assert node.ask(pcm(2000), id="a", reply="accepted") == [{"id": "a", "status": "accepted"}]
    assert not node.lines.of("a")
    node.engine.release()
    assert node.lines.wait_for("a")["text"] == "2000"


def test_accepted_reply_on_a_kept_connection(node: Node) -> None:
    with node.connect() as client:
        client.request(pcm(2000), id="a", reply="accepted", connection="keep-alive")
        assert client.reply() == {"id": "a", "status": "accepted"}
        client.request(pcm(3000), id="b", connection="keep-alive")
        assert text_or_code(client.reply()) == "3000"


def test_reply_none_gets_no_reply_and_no_error(node: Node) -> None:
    assert node.ask(pcm(2000), id="n", reply="none") == []
    assert node.lines.wait_for("n")["text"] == "2000"
    assert node.ask(b"", id="empty", reply="none") == []
    assert node.lines.wait_for("empty")["error"]["code"] == "bad_audio"
    assert node.ask(pcm(100), id="sing", reply="none", task="sing") == []
    assert node.lines.wait_for("sing")["error"]["code"] == "bad_field"
    assert node.ask(pcm(100), id="de", reply="none", language="de") == []
    assert node.lines.wait_for("de")["error"]["code"] == "bad_field"


def test_words_reach_the_client(make_node: MakeNode) -> None:
    def answer(samples: Any, options: DecodeOptions) -> Hypothesis:
        assert options.words
        return Hypothesis((Segment(0, 0.1, "x", 0.5, ()),), "en", -0.1, 0.1)

    node = make_node(FakeEngine(answer))
    [reply] = node.ask(pcm(2000), word_timestamps=True)
    assert reply["segments"][0]["words"] == []


# Keep-alive, pipelining, order.


def test_pipelined_requests_are_answered_in_order(node: Node) -> None:
    sizes = [5000, 900, 4000, 700, 3000]
    with node.connect() as client:
        client.send(b"".join(message(pcm(n), connection="keep-alive") for n in sizes[:-1]))
        client.send(message(pcm(sizes[-1])))
        assert [text_or_code(reply) for reply in client.replies()] == [str(n) for n in sizes]


def test_header_error_is_sent_in_order_and_discards_exactly_its_body(
    node: Node,
) -> None:
    node.engine.hold()
    with node.connect() as client:
        client.send(
            message(pcm(1000), id="1", connection="keep-alive")
            # Skipping one byte more or less would turn the rest of this body into a request.
            + rejected(message(pcm(10), id="no"), id="2", connection="keep-alive")
            + message(pcm(1200), id="3", connection="keep-alive", language="fr")
            + message(pcm(1100), id="4")
        )
        # The rejections are already known, but the first reply belongs to the first request.
        node.lines.wait_for("2")
        node.lines.wait_for("3")
        node.engine.release()
        replies = client.replies()
    assert [(reply["id"], text_or_code(reply)) for reply in replies] == [
        ("1", "1000"),
        ("2", "bad_field"),
        ("3", "bad_field"),
        ("4", "1100"),
    ]
    assert "task" in replies[1]["error"]["message"]
    assert "language" in replies[2]["error"]["message"]


def test_audio_errors_leave_a_kept_connection_open(node: Node) -> None:
    with node.connect() as client:
        for body in (b"", b"\x1aE\xdf\xa3webm", b"fLaC and then nonsense"):
            client.send(
                frame(
                    {
                        **RAW,
                        "content-type": "audio/flac",
                        "content-length": len(body),
                        "connection": "keep-alive",
                    },
                    body,
                )
            )
        client.request(pcm(800))
        codes = [text_or_code(reply) for reply in client.replies()]
    assert codes == ["bad_audio", "unsupported_media_type", "bad_audio", "800"]


def test_lost_position_ends_a_kept_connection_after_earlier_replies(
    node: Node,
) -> None:
    with node.connect() as client:
        client.send(
            message(pcm(1000), id="1", connection="keep-alive")
            + frame(b"{}")
            + message(pcm(900), id="never")
        )
        replies = client.replies()
    assert [(reply["id"], text_or_code(reply)) for reply in replies] == [
        ("1", "1000"),
        (None, "missing_field"),
    ]
    node.lines.wait_for("1")
    assert not node.lines.of("never")


def test_segments_of_pipelined_requests_do_not_interleave(node: Node) -> None:
    with node.connect() as client:
        for name in "abc":
            last = name == "c"
            client.request(
                three_windows(),
                id=name,
                reply="segments",
                connection="close" if last else "keep-alive",
            )
        ids = [reply["id"] for reply in client.replies()]
    assert ids == ["a"] * 4 + ["b"] * 4 + ["c"] * 4


def test_request_sent_byte_by_byte_is_served(node: Node) -> None:
    with node.connect() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in message(pcm(300), id="slow"):
            client.send(bytes([byte]))
        assert text_or_code(client.reply()) == "300"
        assert client.reply() is None


def test_header_of_the_greatest_length_is_served(node: Node) -> None:
    header = {**RAW, "content-length": 2000, "x": ""}
    header["x"] = "y" * (65_535 - len(json.dumps(header)))
    with node.connect() as client:
        client.send(frame(header, pcm(1000)))
        assert text_or_code(client.reply()) == "1000"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"language": "de"}, "language"),
        ({"language": "multi"}, "language"),
        ({"task": "translate"}, "task"),
    ],
)
def test_english_model_rejects_other_languages_and_translation(
    node: Node, fields: dict[str, str], named: str
) -> None:
    [reply] = node.ask(pcm(500), id="x", **fields)
    assert (reply["id"], reply["error"]["code"]) == ("x", "bad_field")
    assert reply["error"]["message"].startswith(named)


def test_multilingual_model_serves_languages_and_translation(make_node: MakeNode) -> None:
    node = make_node(model=MULTILINGUAL)
    for fields in ({"language": "de"}, {"language": "auto"}, {"task": "translate"}):
        assert [text_or_code(reply) for reply in node.ask(pcm(500), **fields)] == ["500"]
    assert [text_or_code(reply) for reply in node.ask(pcm(5), language="fr")] == ["bad_field"]
    options = [options for _, options in node.engine.calls]
    assert [call.language for call in options] == ["de", "auto", "en"]
    assert [call.translate for call in options] == [False, False, True]


def test_short_request_goes_before_a_long_one_of_another_connection(node: Node) -> None:
    node.engine.hold()
    with node.connect() as first, node.connect() as long, node.connect() as short:
        first.request(pcm(1000))
        node.engine.wait_for_calls(1)
        long.request(three_windows())
        short.request(pcm(1500))
        eventually(lambda: len(node.jobs) == 3)
        # A reply shows that the worker has both; this request follows them.
        assert node.ask(pcm(40 * RATE), reply="accepted")[0]["status"] == "accepted"
        node.engine.step()
        node.engine.wait_for_calls(2)
        assert len(node.engine.calls[1][0]) == 1500
        node.engine.release()
        assert [text_or_code(reply) for reply in short.replies()] == ["1500"]
        assert len(long.replies()[0]["segments"]) == 3


# The queue.


def test_full_queue_stops_reading_and_loses_nothing(make_node: MakeNode) -> None:
    node = make_node(queue_size=2)
    node.engine.hold()
    # Megabytes, because the sockets' buffers could hold smaller bodies.
    big = pcm(3_000_000)
    waiting = node.connect()
    with node.connect() as first, node.connect() as second:
        for client in (first, second):
            client.request(pcm(1000), connection="keep-alive")
        node.engine.wait_for_calls(1)
        waiting.socket.settimeout(0.3)
        data = message(big, id="big")
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(data):
                sent += waiting.socket.send(data[sent : sent + 65536])
        assert sent < len(data), "the node read a body although it was full"
        waiting.socket.settimeout(HANG)
        node.engine.release()
        waiting.send(data[sent:])
        [reply] = waiting.replies()
        assert reply["id"] == "big"
        assert reply["audio_seconds"] == pytest.approx(3_000_000 / RATE, abs=0.01)
        assert text_or_code(first.reply()) == "1000"
        assert text_or_code(second.reply()) == "1000"


def test_waiting_clients_are_admitted_in_order_of_arrival(make_node: MakeNode) -> None:
    node = make_node(queue_size=1)
    node.engine.hold()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(node.connect()) for _ in range(8)]
        for number, client in enumerate(clients):
            # Longer ones first, because the scheduler's own order would be the reverse.
            client.request(pcm(2000 - 100 * number))
            if number == 0:
                node.engine.wait_for_calls(1)
            else:
                # The next one sends only after this one waits.
                eventually(lambda peer=client.peer: peer in waiting_peers(node))
        node.engine.release()
        for number, client in enumerate(clients):
            assert text_or_code(client.reply()) == str(2000 - 100 * number)
    assert [len(samples) for samples, _ in node.engine.calls] == [
        2000 - 100 * number for number in range(8)
    ]


def test_client_that_leaves_the_line_does_not_block_others(make_node: MakeNode) -> None:
    node = make_node(queue_size=1)
    node.engine.hold()
    with node.connect() as first, node.connect() as patient:
        first.request(pcm(1000))
        node.engine.wait_for_calls(1)
        for leave in (Client.reset, Client.close, Client.half_close):
            gone = node.connect()
            gone.send(frame({**RAW, "content-length": 4000, "id": "gone"}))
            eventually(lambda peer=gone.peer: peer in waiting_peers(node))
            leave(gone)
        patient.request(pcm(1200))
        eventually(lambda: patient.peer in waiting_peers(node))
        node.engine.release()
        assert text_or_code(first.reply()) == "1000"
        assert text_or_code(patient.reply()) == "1200"
    eventually(lambda: len(node.lines.of("gone")) == 3)
    assert {line["error"]["code"] for line in node.lines.of("gone")} == {"incomplete"}


def waiting_peers(node: Node) -> list[str]:
    return [upload.in_flight.origin.peer for upload in node.waiting]


def test_broken_upload_frees_its_place(make_node: MakeNode) -> None:
    node = make_node(queue_size=1)
    with node.connect() as broken, node.connect() as next_one:
        broken.send(frame({**RAW, "content-length": 4000, "id": "broken"}, b"x" * 100))
        eventually(lambda: node.uploads)
        next_one.request(pcm(700))
        eventually(lambda: next_one.peer in waiting_peers(node))
        broken.half_close()
        assert [text_or_code(reply) for reply in broken.replies()] == ["incomplete"]
        assert text_or_code(next_one.reply()) == "700"


def test_nothing_is_admitted_while_stdout_is_not_read(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.requests.outcomes.MAX_STDOUT_BACKLOG", 5)
    node = make_node()
    node.lines.flowing.clear()
    for _ in range(5):
        node.ask(pcm(500))
    with node.connect() as client:
        client.request(pcm(900))
        eventually(lambda: client.peer in waiting_peers(node))
        node.lines.flowing.set()
        node.disk.nudge()
        # No other event occurs, so the node must notice it by itself.
        assert text_or_code(client.reply()) == "900"


def test_new_client_does_not_overtake_waiting_ones(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.requests.outcomes.MAX_STDOUT_BACKLOG", 5)
    monkeypatch.setattr("app.requests.output_watch.PAUSE_SECONDS", 3600.0)
    node = make_node(queue_size=1)
    node.lines.flowing.clear()
    for _ in range(5):
        node.ask(pcm(500))
    with node.connect() as first, node.connect() as second:
        first.request(pcm(900))
        eventually(lambda: first.peer in waiting_peers(node))
        node.lines.flowing.set()
        node.disk.nudge()
        eventually(lambda: node.sink.backlog == 0)
        # Any event admits them, including this request.
        second.request(pcm(800))
        assert text_or_code(first.reply()) == "900"
        assert text_or_code(second.reply()) == "800"
    assert [len(samples) for samples, _ in node.engine.calls[-2:]] == [900, 800]


# The end of the peer's stream, and resets.


@pytest.mark.parametrize("leave", [Client.close, Client.half_close])
@pytest.mark.parametrize("reply", ["transcript", "segments", "accepted", "none"])
def test_client_that_leaves_after_the_last_byte_is_transcribed_to_stdout(
    node: Node, leave: Callable[[Client], None], reply: str
) -> None:
    node.engine.hold()
    client = node.connect()
    client.request(three_windows(), id="left", reply=reply)
    leave(client)
    node.engine.wait_for_calls(1)
    time.sleep(0.02)
    node.engine.release()
    line = node.lines.wait_for("left")
    assert line["status"] == "ok"
    assert len(line["segments"]) == 3
    client.close()


def test_client_that_half_closes_still_gets_the_reply(node: Node) -> None:
    with node.connect() as client:
        client.request(pcm(1234), connection="keep-alive")
        client.half_close()
        assert [text_or_code(reply) for reply in client.replies()] == ["1234"]


@pytest.mark.parametrize("reply", ["transcript", "segments"])
def test_reset_cancels_waiting_requests_and_further_windows(node: Node, reply: str) -> None:
    node.engine.hold()
    client = node.connect()
    client.request(three_windows(), id="begun", reply=reply, connection="keep-alive")
    client.request(pcm(1000), id="queued", reply=reply, connection="keep-alive")
    eventually(lambda: len(node.jobs) == 2)
    node.engine.wait_for_calls(1)
    client.reset()
    eventually(lambda: not node.connections)
    node.engine.release()
    assert node.lines.wait_for("begun")["error"]["code"] == "cancelled"
    assert node.lines.wait_for("queued")["error"]["code"] == "cancelled"
    assert len(node.engine.calls) == 1
    assert [text_or_code(reply) for reply in node.ask(pcm(700))] == ["700"]


@pytest.mark.parametrize("reply", ["accepted", "none"])
def test_reset_does_not_cancel_requests_without_a_late_reply(node: Node, reply: str) -> None:
    node.engine.hold()
    client = node.connect()
    client.request(three_windows(), id="begun", reply=reply, connection="keep-alive")
    client.request(pcm(1000), id="queued", reply=reply, connection="keep-alive")
    eventually(lambda: len(node.jobs) == 2)
    client.reset()
    eventually(lambda: not node.connections)
    node.engine.release()
    assert node.lines.wait_for("begun")["status"] == "ok"
    assert node.lines.wait_for("queued")["text"] == "1000"


def test_reset_after_the_end_of_the_stream_cancels_nothing(node: Node) -> None:
    node.engine.hold()
    client = node.connect()
    client.request(three_windows(), id="seg", reply="segments", connection="keep-alive")
    client.request(pcm(1000), id="next")
    eventually(lambda: len(node.jobs) == 2)
    client.half_close()
    # The node has noticed the end and no longer reads.
    eventually(lambda: all(not c.state.wants_read() for c in node.connections))
    client.reset()
    # Sending a segment there now fails with the reset.
    node.engine.release()
    assert node.lines.wait_for("seg")["status"] == "ok"
    assert node.lines.wait_for("next")["text"] == "1000"


def test_reset_within_the_next_header_is_incomplete(node: Node) -> None:
    node.engine.hold()
    client = node.connect()
    client.request(pcm(1000), id="first", reply="accepted", connection="keep-alive")
    client.request(pcm(1000), id="second", connection="keep-alive")
    eventually(lambda: len(node.jobs) == 2)
    client.send(struct.pack("!H", 200) + b"{")
    eventually(lambda: began_to_read(node, client, None))
    client.reset()
    node.engine.release()
    assert node.lines.wait_for("first")["status"] == "ok"
    assert node.lines.wait_for(None)["error"]["code"] == "incomplete"
    eventually(lambda: not node.connections)


@pytest.mark.parametrize("leave", [Client.half_close, Client.close, Client.reset])
@pytest.mark.parametrize(
    ("part", "request_id"),
    [
        (b"\x00", None),
        (b"\x00\x40", None),
        (b"\x00\x40{", None),
        (frame({**RAW, "content-length": 9, "id": "part"}), "part"),
        (frame({**RAW, "content-length": 9, "id": "part"}, b"12345678"), "part"),
    ],
)
def test_stream_that_ends_too_early_is_incomplete(
    node: Node, leave: Callable[[Client], None], part: bytes, request_id: str | None
) -> None:
    with node.connect() as client:
        client.send(part)
        eventually(lambda: began_to_read(node, client, request_id))
        leave(client)
        if leave is Client.half_close:
            [reply] = client.replies()
            assert (reply["id"], text_or_code(reply)) == (request_id, "incomplete")
        assert node.lines.wait_for(request_id)["error"]["code"] == "incomplete"
    eventually(lambda: not node.connections)
    assert len(node.lines.of(request_id)) == 1
    assert not node.uploads


def began_to_read(node: Node, client: Client, request_id: str | None) -> bool:
    if request_id is not None:
        return any(upload.in_flight.request.id == request_id for upload in node.uploads)
    connections = node.connections
    return any(c.peer.name == client.peer and not c.protocol.idle for c in connections)


@pytest.mark.parametrize("leave", [Client.half_close, Client.close, Client.reset])
def test_silent_connection_causes_no_line(node: Node, leave: Callable[[Client], None]) -> None:
    client = node.connect()
    eventually(lambda: node.connections)
    leave(client)
    if leave is Client.half_close:
        assert client.replies() == []
    client.close()
    eventually(lambda: not node.connections)
    node.ask(pcm(500), id="after")
    node.lines.wait_for("after")
    eventually(lambda: len(node.lines.written) == 1)


def test_client_that_leaves_within_a_discarded_body_gets_no_line(node: Node) -> None:
    with node.connect() as client:
        client.send(rejected(b"12345678", id="r", connection="keep-alive")[:-4])
        assert text_or_code(client.reply()) == "bad_field"
        client.half_close()
        assert client.replies() == []
    eventually(lambda: not node.connections)
    eventually(lambda: len(node.lines.written) == 1)


def test_client_may_vanish_at_any_moment(node: Node) -> None:
    """Cut a stream of all kinds of messages anywhere and leave in any way."""
    chance = random.Random(20)
    stream = (
        message(pcm(600), reply="segments", connection="keep-alive")
        + rejected(b"x" * 50, connection="keep-alive")
        + message(pcm(500), reply="accepted", connection="keep-alive")
        + message(b"", connection="keep-alive")
        + message(pcm(400), reply="none", connection="keep-alive")
        + message(pcm(300))
    )
    for _ in range(60):
        client = node.connect()
        client.send(stream[: chance.randrange(len(stream) + 1)])
        if chance.random() < 0.5:
            time.sleep(0.003)
        if chance.random() < 0.3:
            client.half_close()
        chance.choice([Client.close, Client.reset])(client)
    # A later client is served.
    assert [text_or_code(reply) for reply in node.ask(pcm(777))] == ["777"]
    eventually(lambda: not node.connections)
    eventually(lambda: not node.jobs)
    assert not node.uploads


# Errors at once.


@pytest.mark.parametrize(
    ("start", "code"),
    [
        (b"\x00\x00", "bad_header"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b" " * 20_000, "bad_header"),
        (frame(b"[]"), "bad_header"),
        (frame({**RAW}), "missing_field"),
        (frame({**RAW, "content-length": 1 << 40}), "too_large"),
        (frame({**RAW, "content-length": "9"}), "bad_header"),
    ],
)
def test_lost_position_gets_its_error_at_once(node: Node, start: bytes, code: str) -> None:
    with node.connect() as client:
        # More input follows than the node discards. The reply must still arrive.
        client.send(start)
        replies = client.replies()
        assert [(reply["id"], text_or_code(reply)) for reply in replies] == [(None, code)]
        assert node.lines.wait_for(None)["error"]["code"] == code


def test_lost_position_error_names_the_request(node: Node) -> None:
    with node.connect() as client:
        client.send(frame({**RAW, "id": "mine"}))
        assert [(r["id"], text_or_code(r)) for r in client.replies()] == [("mine", "missing_field")]
    with node.connect() as client:
        client.send(frame({**RAW, "id": "quiet", "reply": "none"}))
        assert client.replies() == []
    assert node.lines.wait_for("quiet")["error"]["code"] == "missing_field"


def test_reply_to_a_rejected_header_survives_further_input(node: Node) -> None:
    with node.connect() as client:
        body = b"x" * (LINGER_BYTES // 2)
        client.send(rejected(body, id="r"))
        assert [text_or_code(reply) for reply in client.replies()] == ["bad_field"]


def test_client_that_sends_after_the_last_reply_is_cut_off(node: Node) -> None:
    with node.connect() as client:
        client.send(rejected(b"", id="r", content_length=8 * LINGER_BYTES))
        far_too_much = bytes(64 * LINGER_BYTES)
        with pytest.raises(OSError, match=r"reset|Broken pipe|abort"):
            client.send(far_too_much)
    eventually(lambda: not node.connections)


# Timeouts.


def test_missing_header_times_out(make_node: MakeNode) -> None:
    node = make_node(timeouts=Timeouts(header=0.1))
    with node.connect() as silent, node.connect() as halting:
        halting.send(b"\x00\x40{")
        for client in (silent, halting):
            [reply] = client.replies()
            assert (reply["id"], text_or_code(reply)) == (None, "timeout")
            assert "header" in reply["error"]["message"]


def test_header_byte_by_byte_does_not_extend_its_timeout(make_node: MakeNode) -> None:
    node = make_node(timeouts=Timeouts(header=0.3))
    with node.connect() as client:
        client.send(struct.pack("!H", 65_535))
        client.socket.setblocking(False)
        end = time.monotonic() + HANG
        received = b""
        while not received and time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                client.socket.send(b" ")
            with contextlib.suppress(BlockingIOError):
                received = client.socket.recv(4096)
            time.sleep(0.01)
        assert b'"timeout"' in received


def test_missing_body_times_out(make_node: MakeNode) -> None:
    node = make_node(timeouts=Timeouts(body=0.1))
    with node.connect() as client:
        client.send(frame({**RAW, "content-length": 100, "id": "slow"}, b"12345678"))
        [reply] = client.replies()
        assert (reply["id"], text_or_code(reply)) == ("slow", "timeout")
        assert "body" in reply["error"]["message"]
    assert node.lines.wait_for("slow")["error"]["code"] == "timeout"
    eventually(lambda: not node.connections)
    assert not node.uploads


def test_missing_body_behind_a_request_in_progress_times_out(make_node: MakeNode) -> None:
    node = make_node(timeouts=Timeouts(body=0.1))
    node.engine.hold()
    with node.connect() as client:
        client.request(pcm(900), id="good", connection="keep-alive")
        client.send(frame({**RAW, "content-length": 100, "id": "slow"}, b"12345678"))
        node.lines.wait_for("slow")
        node.engine.release()
        replies = client.replies()
    assert [(reply["id"], text_or_code(reply)) for reply in replies] == [
        ("good", "900"),
        ("slow", "timeout"),
    ]


def test_missing_discarded_body_times_out(make_node: MakeNode) -> None:
    """The client already has the rejection; a second reply would seem to answer another request."""
    node = make_node(timeouts=Timeouts(body=0.1))
    with node.connect() as client:
        client.send(rejected(b"12345678", id="r", connection="keep-alive")[:-4])
        assert [text_or_code(reply) for reply in client.replies()] == ["bad_field"]
    eventually(lambda: not node.connections)
    eventually(lambda: len(node.lines.written) == 1)


def test_slow_body_is_waited_for(make_node: MakeNode, clock: Clock) -> None:
    node = make_node(timeouts=UNHURRIED)
    data = message(pcm(300))
    with node.connect() as client:
        client.send(data[:-600])
        for at in range(len(data) - 600, len(data), 20):
            eventually(lambda at=at: node.uploads and size_of(node) == at - len(data) + 600)
            # All pieces together take longer than the timeout; each one takes less.
            clock.pass_by(UNHURRIED.body / 2)
            node.server.loop.wake()
            client.send(data[at : at + 20])
        assert text_or_code(client.reply()) == "300"


def size_of(node: Node) -> int:
    """Return the bytes received of the only upload."""
    [pending] = node.uploads
    return 0 if pending.body is None else pending.body.size


def test_no_timeout_runs_in_the_queue(make_node: MakeNode, clock: Clock) -> None:
    node = make_node(queue_size=1, timeouts=UNHURRIED)
    node.engine.hold()
    with node.connect() as working, node.connect() as waiting:
        working.request(pcm(1000), connection="keep-alive")
        node.engine.wait_for_calls(1)
        waiting.request(pcm(1100))
        eventually(lambda: waiting.peer in waiting_peers(node))
        clock.pass_by(2 * UNHURRIED.idle)
        # When this one is answered, the loop has checked its timers.
        assert [text_or_code(reply) for reply in node.ask(b"", task="sing")] == ["bad_field"]
        node.engine.release()
        assert text_or_code(working.reply()) == "1000"
        assert text_or_code(waiting.reply()) == "1100"


def test_idle_kept_connection_ends_without_a_reply(make_node: MakeNode) -> None:
    node = make_node(timeouts=Timeouts(idle=0.1))
    with node.connect() as client:
        client.request(pcm(600), connection="keep-alive")
        assert [text_or_code(reply) for reply in client.replies()] == ["600"]
    eventually(lambda: not node.connections)
    eventually(lambda: len(node.lines.written) == 1)


def test_client_that_does_not_take_its_replies_is_closed(make_node: MakeNode) -> None:
    long = "word " * 400_000

    def answer(samples: Any, options: DecodeOptions) -> Hypothesis:
        return Hypothesis((Segment(0, 1, long, 0.9),), "en", -0.1, 1.0)

    node = make_node(FakeEngine(answer), timeouts=Timeouts(write=0.2))
    with node.connect(receive_buffer=4096) as client:
        # All at once, because the node may drop the client as soon as the first reply is stuck.
        requests = [message(pcm(500), id=str(n), connection="keep-alive") for n in range(6)]
        begun = frame({**RAW, "content-length": 100, "id": "open"}, b"12")
        client.send(b"".join(requests) + begun)
        eventually(lambda: node.engine.calls and not node.connections)
        assert not node.uploads


def test_slow_reader_gets_everything_and_is_not_read_meanwhile(make_node: MakeNode) -> None:
    long = "word " * 100_000

    def answer(samples: Any, options: DecodeOptions) -> Hypothesis:
        return Hypothesis((Segment(0, 1, long, 0.9),), "en", -0.1, 1.0)

    node = make_node(FakeEngine(answer))
    count = 30
    with node.connect(receive_buffer=4096) as client:
        requests = b"".join(
            message(pcm(500), id=str(number), connection="keep-alive") for number in range(count)
        )
        writer = threading.Thread(target=client.send, args=(requests,))
        writer.start()
        eventually(lambda: any(c.state.outbox.size >= MAX_UNSENT_BYTES for c in node.connections))
        assert not any(c.state.wants_read() for c in node.connections)
        # Other clients are not affected.
        assert node.ask(pcm(300), reply="accepted")[0]["status"] == "accepted"
        assert [client.reply()["id"] for _ in range(count)] == [str(n) for n in range(count)]
        writer.join(HANG)


# Many clients.


def test_connection_over_the_limit_receives_busy(make_node: MakeNode) -> None:
    node = make_node(max_connections=2)
    with node.connect() as one, node.connect() as two:
        eventually(lambda: len(node.connections) == 2)
        with node.connect() as three:
            [reply] = three.replies()
            assert text_or_code(reply) == "busy"
            assert reply["error"]["retry_after_seconds"] > 0
        eventually(lambda: len(node.connections) == 2)
        one.request(pcm(500))
        assert text_or_code(one.reply()) == "500"
        two.request(pcm(600))
        assert text_or_code(two.reply()) == "600"
        assert [one.reply(), two.reply()] == [None, None]
    eventually(lambda: not node.connections)
    assert [text_or_code(reply) for reply in node.ask(pcm(700))] == ["700"]


def test_connections_far_over_the_limit_are_closed_without_a_reply(make_node: MakeNode) -> None:
    node = make_node(max_connections=1)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(node.connect()) for _ in range(90)]
        eventually(lambda: len(node.connections) >= 1)
        answers = [text_or_code(next(iter(client.replies()), None)) for client in clients[1:]]
        assert set(answers) <= {"busy", None}
        assert "busy" in answers
        clients[0].request(pcm(500))
        assert text_or_code(clients[0].reply()) == "500"


def test_two_hundred_clients_at_once_get_their_own_answers(node: Node) -> None:
    answers: dict[int, list[str | None]] = {}

    def ask(number: int) -> None:
        answers[number] = [text_or_code(reply) for reply in node.ask(pcm(1000 + number))]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert answers == {number: [str(1000 + number)] for number in range(200)}


# The engine and the disk fail.


def test_engine_failure_is_internal_and_affects_one_request(
    make_node: MakeNode,
) -> None:
    fake = FakeEngine()
    good = fake.answer

    def answer(samples: Any, options: DecodeOptions) -> Hypothesis:
        if len(samples) == 666:
            raise EngineError("whisper.cpp failed with code -6")
        return good(samples, options)

    fake.answer = answer
    node = make_node(fake)
    with node.connect() as client:
        for size in (500, 666, 700):
            client.request(pcm(size), connection="keep-alive")
        assert [text_or_code(client.reply()) for _ in range(3)] == ["500", "internal", "700"]


class FullDisk(Spool):
    """A spool with `room` bytes for each body; below 0 it cannot create any."""

    room = 0

    def create(self, size: int | None) -> Body:
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        room, body = self.room, super().create(size)
        write = body.write

        def refuse_beyond(data: bytes | memoryview) -> None:
            if body.size + len(data) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(data)

        body.write = refuse_beyond  # type: ignore[method-assign]
        return body


@pytest.mark.parametrize("room", [-1, 0, 1000])
def test_full_disk_receives_no_space(make_node: MakeNode, room: int) -> None:
    spools: list[FullDisk] = []

    def make_spool(disk: Disk) -> Spool:
        spools.append(FullDisk(Path("/var/tmp"), disk))
        spools[0].room = room
        return spools[0]

    node = make_node(make_spool=make_spool)
    [spool] = spools
    with node.connect() as client:
        client.request(pcm(5000), id="full", connection="keep-alive")
        reply = client.reply()
        assert reply is not None
        assert (reply["id"], text_or_code(reply)) == ("full", "no_space")
        assert reply["error"]["retry_after_seconds"] > 0
        spool.room = 1 << 20
        client.request(pcm(400))
        assert [text_or_code(reply) for reply in client.replies()] == ["400"]
    spool.room = room
    assert [text_or_code(reply) for reply in node.ask(pcm(5000))] == ["no_space"]
    eventually(lambda: len(node.lines.written) == 3)


def test_broken_stdout_ends_the_node(make_node: MakeNode) -> None:
    node = make_node()
    node.lines.broken = True
    # It answers the accepted requests and then ends.
    assert [text_or_code(reply) for reply in node.ask(pcm(500))] == ["500"]
    node.wait_until_stopped()
    assert node.server.shutdown.killed_by is None


# The end.


def test_drain_finishes_admitted_requests_and_rejects_others(make_node: MakeNode) -> None:
    node = make_node(queue_size=3)
    node.engine.hold()
    with contextlib.ExitStack() as stack:
        working, uploading, kept, waiting, idle, silent = (
            stack.enter_context(node.connect()) for _ in range(6)
        )
        idle.request(b"", connection="keep-alive")
        assert text_or_code(idle.reply()) == "bad_audio"
        working.request(pcm(1000))
        node.engine.wait_for_calls(1)
        kept.request(pcm(1100), connection="keep-alive")
        data = message(pcm(1200))
        uploading.send(data[:-10])
        eventually(lambda: len(node.jobs) == 2 and node.uploads)
        waiting.request(pcm(1300), id="waits")
        eventually(lambda: waiting.peer in waiting_peers(node))
        eventually(lambda: len(node.connections) == 6)
        node.drain()
        [reply] = waiting.replies()
        assert (reply["id"], text_or_code(reply)) == ("waits", "shutting_down")
        assert reply["error"]["retry_after_seconds"] > 0
        assert idle.replies() == []
        assert silent.replies() == []
        with pytest.raises(ConnectionRefusedError):
            node.connect()
        kept.request(pcm(1400), id="late", connection="keep-alive")
        node.lines.wait_for("late")
        uploading.send(data[-10:])
        node.engine.release()
        assert [text_or_code(reply) for reply in working.replies()] == ["1000"]
        assert [text_or_code(reply) for reply in uploading.replies()] == ["1200"]
        assert [text_or_code(reply) for reply in kept.replies()] == ["1100", "shutting_down"]
    node.wait_until_stopped()
    assert node.server.shutdown.killed_by is None


def test_drain_past_its_timeout_fails_the_rest(make_node: MakeNode) -> None:
    node = make_node(drain_seconds=0.2)
    node.engine.hold()
    with node.connect() as working, node.connect() as queued, node.connect() as uploading:
        working.request(three_windows(), id="working")
        node.engine.wait_for_calls(1)
        queued.request(pcm(1000), id="queued")
        uploading.send(message(pcm(900), id="uploading")[:-5])
        eventually(lambda: len(node.jobs) == 2 and node.uploads)
        node.drain()
        for client, name in ((working, "working"), (queued, "queued"), (uploading, "uploading")):
            [reply] = client.replies()
            assert (reply["id"], text_or_code(reply)) == (name, "shutting_down")
    node.wait_until_stopped()
    assert node.engine.aborted
    for name in ("working", "queued", "uploading"):
        assert node.lines.wait_for(name)["error"]["code"] == "shutting_down"


def test_drain_of_an_idle_node_ends_it(make_node: MakeNode) -> None:
    node = make_node()
    node.drain()
    node.wait_until_stopped()
    assert node.server.shutdown.killed_by is None


def test_second_signal_ends_the_node_at_once(make_node: MakeNode) -> None:
    node = make_node()
    node.engine.hold()
    with node.connect() as client:
        client.request(pcm(1000))
        node.engine.wait_for_calls(1)
        node.drain()
        eventually(lambda: node.server.shutdown.draining)
        assert node.running
        node.drain()
        node.wait_until_stopped()
    assert node.server.shutdown.killed_by == Node.SIGNAL


def test_signal_during_a_requested_drain_is_the_first(make_node: MakeNode) -> None:
    """Ctrl-C in `node | tee log` also ends the reader, and the broken pipe may come first."""
    node = make_node()
    node.engine.hold()
    with node.connect() as client:
        client.request(pcm(1000))
        node.engine.wait_for_calls(1)
        node.server.shutdown.ask()
        eventually(lambda: node.server.shutdown.draining)
        node.drain()
        eventually(lambda: node.server.shutdown.signalled)
        node.engine.release()
        assert [text_or_code(reply) for reply in client.replies()] == ["1000"]
    node.wait_until_stopped()
    assert node.server.shutdown.killed_by is None


def test_end_leaves_no_socket_open(make_node: MakeNode) -> None:
    node = make_node()
    node.engine.hold()
    with node.connect() as client, node.connect() as uploading:
        client.request(pcm(1000))
        node.engine.wait_for_calls(1)
        uploading.send(message(pcm(900))[:-5])
        eventually(lambda: node.uploads)
        sockets = [c.state.transport for c in node.connections]
        node.drain()
        eventually(lambda: node.server.shutdown.draining)
        node.drain()
        node.wait_until_stopped()
        assert [sock.fileno() for sock in sockets] == [-1, -1]


def test_port_in_use_raises_oserror(node: Node) -> None:
    with pytest.raises(OSError, match="in use"):
        node.server.listen(Port("native", "127.0.0.1", node.port, lambda: NativeProtocol(1, str)))
