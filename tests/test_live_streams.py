"""Streams of live audio on the native port, on the loop's side: a fake worker takes their bytes.

The fixture asserts for each test that no callback failed; `empty` asserts that nothing is left of a
stream: no bytes, no connection, no number.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from fakes import HANG, RATE, Client, Clock, FakeEngine, Node, eventually, message, pcm
from live_worker import END, LiveWorker, framed, live_header, streamed, utterance

from app.live import Clear, Commit, Configure, LiveOptions, SpeechBegan
from app.messages import Failure
from app.network.outbox import MAX_UNSENT_BYTES
from app.network.timeouts import Timeouts
from app.network.tls import server_context
from app.requests.quota import STREAM_BYTES
from app.worker.completions import Consumed, Finished, Progress

MakeNode = Callable[..., Node]

SECOND = pcm(RATE)


@pytest.fixture
def live(node: Node) -> LiveWorker:
    """A node whose live work a fake worker takes."""
    return LiveWorker(node)


def empty(node: Node) -> bool:
    """Nothing is held for any stream."""
    pipeline = node.server.pipeline
    return not (
        pipeline.quota.streams
        or pipeline.quota.claimed_bytes
        or pipeline.unfinished
        or pipeline.uploads.receiving
        or pipeline.dispatch.jobs
        or pipeline.uploads.line.uploads
    )


def begin(live: LiveWorker, audio: bytes = SECOND, **fields: Any) -> tuple[Client, int]:
    """Open a stream and send `audio`; return its client and number once the worker has all."""
    count = len(live.jobs) + 1
    client = live.node.connect()
    client.send(live_header(**fields) + framed(audio))
    number = live.wait_for_job(count)
    live.wait_for_audio(number, audio)
    return client, number


# The way of a stream.


def test_segments_are_sent_and_printed_while_the_audio_goes_on(live: LiveWorker) -> None:
    client, number = begin(live, id="s")
    live.say(number, utterance("one", 0.1, 0.9))
    reply = client.reply()
    assert reply is not None
    assert (reply["id"], reply["status"]) == ("s", "segment")
    assert reply["segment"] == {"start": 0.1, "end": 0.9, "text": "one", "confidence": 0.9}
    line = live.node.lines.wait_for("s")
    assert line["status"] == "segment"
    assert line["segment"] == reply["segment"]
    assert line["peer"] == client.peer
    assert line["received_at"]
    client.send(framed(SECOND) + END)
    live.wait_for_audio(number, 2 * SECOND)
    eventually(lambda: live.ended == [number])
    live.finish(number, streamed(utterances=1, segments=1, audio_seconds=2.0))
    last = client.reply()
    assert last == {
        "id": "s",
        "status": "ok",
        "language": "en",
        "utterances": 1,
        "segment_count": 1,
        "audio_seconds": 2.0,
        "processing_seconds": 0.1,
        "model": "fake.en",
        "truncated": False,
    }
    assert client.reply() is None
    eventually(lambda: len(live.node.lines.of("s")) == 2)
    assert live.node.lines.of("s")[1]["status"] == "ok"
    eventually(lambda: empty(live.node))


def test_worker_receives_the_request_of_a_stream(live: LiveWorker) -> None:
    client, number = begin(live, id="s", prompt="Iro", language="en")
    job = live.jobs[number]
    assert job.request.live == LiveOptions()
    assert job.request.content_length is None
    assert (job.request.prompt, job.request.language) == ("Iro", "en")
    assert job.client == "127.0.0.1"
    client.send(END)


def test_utterance_of_several_segments_is_a_reply_for_each(live: LiveWorker) -> None:
    client, number = begin(live)
    one, two = utterance("one"), utterance("two", 1.0, 2.0)
    live.say(number, type(one)(0.0, 2.0, one.segments + two.segments))
    texts = [reply["segment"]["text"] for reply in (client.reply(), client.reply()) if reply]
    assert texts == ["one", "two"]


def test_transcript_stream_sends_only_its_last_reply(live: LiveWorker) -> None:
    client, number = begin(live, id="s", reply="transcript")
    live.say(number, utterance("one"))
    client.send(END)
    eventually(lambda: live.ended == [number])
    live.finish(number)
    assert [reply["status"] for reply in client.replies()] == ["ok"]
    eventually(lambda: live.node.lines.of("s"))
    assert [line["status"] for line in live.node.lines.of("s")] == ["ok"]


def test_reports_that_the_native_form_lacks_are_not_sent(live: LiveWorker) -> None:
    client, number = begin(live)
    live.complete(Progress(number, SpeechBegan(0.5)))
    live.say(number, utterance("one"))
    reply = client.reply()
    assert reply is not None
    assert reply["status"] == "segment"


def test_kept_connection_serves_streams_and_files_in_order(live: LiveWorker) -> None:
    with live.node.connect() as client:
        client.send(
            live_header(id="1", connection="keep-alive")
            + framed(SECOND)
            + END
            + message(SECOND, id="2", connection="keep-alive")
            + live_header(id="3")
            + END
        )
        first, second = live.wait_for_job(1), live.wait_for_job(2)
        eventually(lambda: live.ended == [first, second])
        live.finish(second)
        live.finish(first)
        replies = client.replies()
    assert [(reply["id"], reply["status"]) for reply in replies] == [
        ("1", "ok"),
        ("2", "ok"),
        ("3", "ok"),
    ]
    assert live.audio == {first: SECOND, second: b""}
    eventually(lambda: empty(live.node))


def test_stream_byte_by_byte_is_the_same_audio(live: LiveWorker) -> None:
    audio = SECOND[:301]
    with live.node.connect() as client:
        for byte in live_header() + framed(audio, 7) + END:
            client.send(bytes([byte]))
        number = live.wait_for_job()
        eventually(lambda: live.ended == [number])
    assert live.audio[number] == audio


def test_events_of_a_client_reach_the_worker_in_order(make_node: MakeNode) -> None:
    events = [Commit(), Clear(), Configure(LiveOptions(end_pause=None), prompt="Iro")]
    node = make_node()
    live = LiveWorker(node)
    _, number = begin(live)
    connection = node.connections[0]

    def deliver() -> None:
        for event in events:
            node.server.on_event(connection, event)

    node.server.loop.defer(deliver)
    node.server.loop.wake()
    eventually(lambda: len(live.events) == 3)
    assert live.events == [(number, event) for event in events]


# Faults of the form.


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"content-length": 4}, "content-length"),
        ({"live": "yes"}, "live"),
        ({"live": 1}, "live"),
        ({"live": None}, "live"),
    ],
    ids=str,
)
def test_header_without_one_clear_end_is_bad_field_and_ends_the_connection(
    node: Node, fields: dict[str, Any], word: str
) -> None:
    with node.connect() as client:
        client.send(live_header(id="s", connection="keep-alive", **fields) + END)
        (reply,) = client.replies()
    assert (reply["id"], reply["error"]["code"]) == ("s", "bad_field")
    assert word in reply["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"content-type": "binary/flac", "content-encoding": "flac"}, "content-type"),
        ({"channel-mode": "split"}, "channel-mode"),
        ({"content-encoding": "gsm"}, "content-encoding"),
        ({"reply": "accepted"}, "reply"),
        ({"language": "de"}, "language"),
        ({"task": "translate"}, "task"),
        ({"sample-rate": 10}, "sample-rate"),
    ],
    ids=str,
)
def test_field_that_live_audio_cannot_have_is_bad_field_and_its_audio_is_skipped(
    node: Node, fields: dict[str, Any], word: str
) -> None:
    with node.connect() as client:
        client.send(
            live_header(id="s", connection="keep-alive", **fields)
            + framed(SECOND)
            + END
            + message(SECOND, id="2")
        )
        first, second = client.replies()
    assert (first["id"], first["error"]["code"]) == ("s", "bad_field")
    assert word in first["error"]["message"]
    assert (second["id"], second["status"]) == ("2", "ok")
    eventually(lambda: empty(node))


def test_live_audio_without_any_reply_is_bad_field_on_stdout(node: Node) -> None:
    with node.connect() as client:
        client.send(live_header(id="s", reply="none") + framed(SECOND) + END)
        assert client.replies() == []
    assert node.lines.wait_for("s")["error"]["code"] == "bad_field"


def test_live_false_is_a_message_with_a_length(node: Node) -> None:
    (reply,) = node.ask(SECOND, live=False)
    assert reply["text"] == str(RATE)


def test_reserved_frame_is_bad_header_after_the_segments(live: LiveWorker) -> None:
    client, number = begin(live, id="s", connection="keep-alive")
    live.say(number, utterance("one"))
    assert client.reply() is not None
    client.send(b"\xff\xff" + SECOND)
    (last,) = client.replies()
    assert (last["id"], last["error"]["code"]) == ("s", "bad_header")
    eventually(lambda: live.node.cancelled == [number])
    eventually(lambda: empty(live.node))


def test_reserved_frame_in_skipped_audio_ends_the_connection_without_a_second_reply(
    node: Node,
) -> None:
    with node.connect() as client:
        client.send(live_header(id="s", connection="keep-alive", channel_mode="split"))
        assert client.reply() is not None
        client.send(b"\xff\xff" + message(SECOND))
        assert client.replies() == []
    node.lines.wait_for("s")
    eventually(lambda: not node.connections)
    assert len(node.lines.written) == 1


def test_wrong_token_ends_a_stream_before_any_audio(make_node: MakeNode) -> None:
    node = make_node(authorize=lambda token: token == "secret", port={"needs_token": True})
    live = LiveWorker(node)
    with node.connect() as client:
        client.send(live_header(token="guess") + framed(SECOND))
        (reply,) = client.replies()
    assert reply["error"]["code"] == "unauthorized"
    assert live.jobs == {}
    client, _ = begin(live, token="secret")
    client.send(END)


# The end of the audio by others than the client.


def test_end_of_the_connection_within_the_audio_is_incomplete(live: LiveWorker) -> None:
    client, number = begin(live, id="s")
    live.say(number, utterance("one"))
    assert client.reply() is not None
    client.half_close()
    (last,) = client.replies()
    assert last["error"]["code"] == "incomplete"
    eventually(lambda: live.node.cancelled == [number])
    eventually(lambda: len(live.node.lines.of("s")) == 2)
    assert [line["status"] for line in live.node.lines.of("s")] == ["segment", "error"]
    eventually(lambda: empty(live.node))


@pytest.mark.parametrize("leave", [Client.close, Client.reset], ids=["closes", "resets"])
def test_client_that_vanishes_within_the_audio_cancels_its_stream(
    live: LiveWorker, leave: Callable[[Client], None]
) -> None:
    client, number = begin(live, id="s")
    leave(client)
    assert live.node.lines.wait_for("s")["error"]["code"] == "incomplete"
    eventually(lambda: live.node.cancelled == [number])
    live.finish(number, Failure("cancelled", "late"))
    eventually(lambda: empty(live.node))
    assert len(live.node.lines.of("s")) == 1


def test_client_that_vanishes_in_the_middle_of_a_frame_cancels_its_stream(
    live: LiveWorker,
) -> None:
    client, number = begin(live, id="s")
    client.send(b"\x02")
    client.reset()
    assert live.node.lines.wait_for("s")["error"]["code"] == "incomplete"
    eventually(lambda: live.node.cancelled == [number])
    eventually(lambda: empty(live.node))


def test_client_that_vanishes_while_it_is_not_read_is_noticed_when_it_is_read(
    live: LiveWorker,
) -> None:
    live.consumes = False
    client = live.node.connect()
    client.send(live_header(id="s"))
    number = live.wait_for_job()
    client.send(framed(4 * SECOND))
    eventually(lambda: live.node.connections[0].state.paused)
    client.reset()
    live.consumes = True
    live.complete(Consumed(number, len(live.audio[number])))
    assert live.node.lines.wait_for("s")["error"]["code"] == "incomplete"
    eventually(lambda: live.node.cancelled == [number])
    eventually(lambda: empty(live.node))


def test_stream_over_tls_is_the_same_audio(make_node: MakeNode, certificates: Certificates) -> None:
    node = make_node(port={"tls": server_context(*certificates.node, None)})
    live = LiveWorker(node)
    audio = 2 * SECOND
    with (
        socket.create_connection(("127.0.0.1", node.port), HANG) as plain,
        certificates.trusting().wrap_socket(plain, server_hostname="127.0.0.1") as sock,
    ):
        sock.sendall(live_header() + framed(audio, 5_000) + END)
        number = live.wait_for_job()
        live.wait_for_audio(number, audio)
        live.say(number, utterance("one"))
        eventually(lambda: live.ended == [number])
        live.finish(number)
        received = b""
        while data := sock.recv(65_536):
            received += data
    assert b'"status": "segment"' in received
    assert b'"segment_count"' in received


def test_reset_after_the_end_of_the_audio_is_cancelled(live: LiveWorker) -> None:
    client, number = begin(live, id="s")
    client.send(END)
    eventually(lambda: live.ended == [number])
    client.reset()
    eventually(lambda: live.node.cancelled == [number])
    live.finish(number, Failure("cancelled", "the client reset the connection"))
    assert live.node.lines.wait_for("s")["error"]["code"] == "cancelled"
    eventually(lambda: empty(live.node))


def test_half_close_after_the_end_of_the_audio_still_gets_the_reply(live: LiveWorker) -> None:
    client, number = begin(live)
    client.send(END)
    client.half_close()
    eventually(lambda: live.ended == [number])
    live.finish(number)
    assert [reply["status"] for reply in client.replies()] == ["ok"]


def test_client_that_vanishes_in_line_leaves_nothing(make_node: MakeNode) -> None:
    node = make_node(max_buffered_bytes=STREAM_BYTES)
    live = LiveWorker(node)
    first, _ = begin(live)
    second = node.connect()
    second.send(live_header(id="s"))
    eventually(lambda: node.waiting)
    first.reset()
    second.reset()
    assert node.lines.wait_for("s")["error"]["code"] == "incomplete"
    eventually(lambda: empty(node))


def test_silent_stream_times_out(make_node: MakeNode, clock: Clock) -> None:
    node = make_node(timeouts=Timeouts())
    live = LiveWorker(node)
    client, number = begin(live, id="s", connection="keep-alive")
    for _ in range(4):
        clock.pass_by(20)
        client.send(framed(b"abcd"))
        live.wait_for_audio(number, live.audio[number])
        eventually(lambda: live.feeds[number] > 0)
        time.sleep(0.02)
        node.server.loop.wake()
    assert live.node.lines.of("s") == []
    eventually(lambda: clock.pass_by(31) or node.server.loop.wake() or node.lines.of("s"))
    (reply,) = client.replies()
    assert reply["error"]["code"] == "timeout"
    eventually(lambda: node.cancelled == [number])
    eventually(lambda: empty(node))


@pytest.mark.parametrize("kept", [False, True])
def test_failure_of_the_worker_ends_a_stream_and_skips_its_audio(
    live: LiveWorker, kept: bool
) -> None:
    more = {"connection": "keep-alive"} if kept else {}
    client, number = begin(live, id="s", **more)
    live.complete(Finished(number, Failure("internal", "a fault")))
    reply = client.reply()
    assert reply is not None
    assert reply["error"]["code"] == "internal"
    eventually(lambda: empty(live.node))
    client.send(framed(SECOND) + END + message(SECOND, id="2"))
    assert [reply["id"] for reply in client.replies()] == (["2"] if kept else [])
    assert live.audio[number] == SECOND


def test_failure_of_the_worker_frees_a_paused_connection(live: LiveWorker) -> None:
    live.consumes = False
    client = live.node.connect()
    client.send(live_header(id="s", connection="keep-alive"))
    number = live.wait_for_job()
    client.send(framed(4 * SECOND))
    eventually(lambda: live.node.connections[0].state.paused)
    live.complete(Finished(number, Failure("internal", "a fault")))
    client.send(END + message(SECOND, id="2"))
    assert [reply["id"] for reply in client.replies()] == ["s", "2"]


def test_transcript_stream_is_limited_and_a_segments_stream_is_not(make_node: MakeNode) -> None:
    live = LiveWorker(make_node(max_seconds=3.0))
    client, number = begin(live, 3 * SECOND, id="s", reply="transcript")
    client.send(framed(b"ab"))
    (reply,) = client.replies()
    assert reply["error"]["code"] == "audio_too_long"
    assert "segments" in reply["error"]["message"]
    eventually(lambda: live.node.cancelled == [number])
    client, number = begin(live, 10 * SECOND)
    client.send(END)
    eventually(lambda: live.ended == [number])


# Limits.


def test_stream_takes_bytes_and_no_place(make_node: MakeNode) -> None:
    node = make_node(queue_size=1)
    live = LiveWorker(node)
    clients = [begin(live)[0] for _ in range(3)]
    quota = node.server.pipeline.quota
    assert (quota.admitted, quota.streams) == (0, 3)
    assert quota.claimed_bytes == 3 * STREAM_BYTES
    load = node.server.load
    assert (load.streams, load.admitted, load.ready) == (3, 0, True)
    assert node.ask(SECOND)[0]["status"] == "ok"
    for client in clients:
        client.reset()
    eventually(lambda: empty(node))


def test_stream_passes_a_queue_without_places(make_node: MakeNode) -> None:
    engine = FakeEngine()
    engine.hold()
    node = make_node(engine, queue_size=1)
    live = LiveWorker(node)
    first, second = node.connect(), node.connect()
    first.request(SECOND)
    engine.wait_for_calls(1)
    second.request(SECOND)
    eventually(lambda: len(node.waiting) == 1)
    client, number = begin(live)
    client.send(END)
    eventually(lambda: live.ended == [number])
    engine.release()
    assert first.replies()[0]["status"] == "ok"
    assert second.replies()[0]["status"] == "ok"


def test_stream_without_bytes_waits_unread(make_node: MakeNode) -> None:
    node = make_node(max_buffered_bytes=STREAM_BYTES)
    live = LiveWorker(node)
    first, number = begin(live)
    second = node.connect()
    second.send(live_header() + framed(SECOND) + END)
    eventually(lambda: node.waiting)
    assert len(live.jobs) == 1
    first.send(END)
    eventually(lambda: live.ended)
    live.finish(number)
    other = live.wait_for_job(2)
    live.wait_for_audio(other, SECOND)


def test_stream_waits_while_all_live_places_are_taken(make_node: MakeNode) -> None:
    node = make_node(max_live=2)
    live = LiveWorker(node)
    live.utterances = 2
    client = node.connect()
    client.send(live_header() + framed(SECOND))
    eventually(lambda: node.waiting)
    assert node.ask(SECOND)[0]["status"] == "ok", "files do not need live places"
    assert live.jobs == {}
    live.utterances = 1  # no event reports it
    live.wait_for_audio(live.wait_for_job(), SECOND)


@pytest.mark.parametrize("lacks", ["bytes", "places"])
def test_stream_that_would_wait_receives_busy_if_the_node_rejects(
    make_node: MakeNode, lacks: str
) -> None:
    node = make_node(max_buffered_bytes=STREAM_BYTES, max_live=1, reject_when_full=True)
    live = LiveWorker(node)
    if lacks == "bytes":
        begin(live)
    else:
        live.utterances = 1
    with node.connect() as client:
        client.send(live_header() + framed(SECOND) + END)
        (reply,) = client.replies()
    assert reply["error"]["code"] == "busy"
    assert reply["error"]["retry_after_seconds"] > 0


def test_stream_is_read_only_as_far_as_the_worker_takes_it(live: LiveWorker) -> None:
    live.consumes = False
    audio = pcm(30 * RATE)
    client = live.node.connect()
    client.send(live_header())
    number = live.wait_for_job()
    client.socket.setblocking(False)
    sent, data = 0, framed(audio)
    deadline = time.monotonic() + HANG
    while not live.node.connections[0].state.paused or sent < 200_000:
        assert time.monotonic() < deadline
        try:
            sent += client.socket.send(data[sent : sent + 65_536])
        except BlockingIOError:
            break
    eventually(lambda: live.node.connections[0].state.paused)
    ahead = len(live.audio[number])
    assert 3 * len(SECOND) < ahead <= 3 * len(SECOND) + 640
    live.consumes = True

    live.complete(Consumed(number, ahead))
    client.socket.settimeout(HANG)
    client.send(data[sent:] + END)
    live.wait_for_audio(number, audio)
    eventually(lambda: live.ended == [number])


def test_stream_is_not_read_while_stdout_is_not_read(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.requests.outcomes.MAX_STDOUT_BACKLOG", 3)
    node = make_node()
    live = LiveWorker(node)
    client, number = begin(live, id="s")
    node.lines.flowing.clear()
    live.say(number, *(utterance(str(index)) for index in range(3)))
    for index in range(3):
        reply = client.reply()
        assert reply is not None
        assert reply["segment"]["text"] == str(index)
    client.send(framed(SECOND) * 2)
    eventually(lambda: node.connections[0].state.paused)
    assert len(live.audio[number]) <= len(SECOND) + 640
    waiting = node.connect()
    waiting.send(live_header())
    eventually(lambda: node.waiting)
    node.lines.flowing.set()
    node.disk.nudge()
    live.wait_for_audio(number, 3 * SECOND)
    live.wait_for_job(2)
    assert [line["segment"]["text"] for line in node.lines.of("s")] == ["0", "1", "2"]


def test_stream_slower_than_speech_ends_while_others_wait(
    make_node: MakeNode, clock: Clock
) -> None:
    node = make_node(max_buffered_bytes=3 * STREAM_BYTES)  # a client has two thirds
    live = LiveWorker(node)
    slow, number = begin(live, id="slow")
    fast, other = begin(live, id="fast")
    node.connect().send(live_header() + framed(SECOND) + END)
    eventually(lambda: node.waiting)
    fast.send(framed(SECOND))
    live.wait_for_audio(other, 2 * SECOND)
    slow.send(framed(SECOND[:4_000]))
    live.wait_for_audio(number, SECOND + SECOND[:4_000])
    clock.pass_by(10.1)
    node.server.loop.wake()
    (reply,) = slow.replies()
    assert reply["error"]["code"] == "timeout"
    assert node.cancelled == [number]
    live.wait_for_audio(live.wait_for_job(3), SECOND)


def test_client_that_does_not_take_its_segments_is_not_read_and_then_dropped(
    make_node: MakeNode, clock: Clock
) -> None:
    node = make_node(timeouts=Timeouts())
    live = LiveWorker(node)
    client = node.connect(receive_buffer=4096)
    client.send(live_header(id="s"))
    number = live.wait_for_job()
    outbox = node.connections[0].state.outbox
    text = "x" * 100_000
    while outbox.size < MAX_UNSENT_BYTES:
        live.say(number, utterance(text))
        time.sleep(0.005)
    client.send(framed(SECOND))
    time.sleep(0.1)
    assert live.audio[number] == b"", "the client is not read"
    eventually(lambda: clock.pass_by(31) or node.server.loop.wake() or not node.connections)
    eventually(lambda: node.cancelled == [number])
    eventually(lambda: empty(node))
    # The lines before it are long.
    eventually(lambda: node.lines.of("s")[-1].get("error", {}).get("code") == "incomplete")


def test_thousand_streams_opened_and_dropped_leave_nothing(make_node: MakeNode) -> None:
    node = make_node(max_connections=100)
    live = LiveWorker(node)
    for index in range(1000):
        client = node.connect()
        client.send(live_header(id=f"s{index}") + framed(SECOND[:640])[: index % 643])
        if index % 3 == 0:
            name = f"s{index}"
            eventually(lambda name=name: name in [job.request.id for job in [*live.jobs.values()]])
        (client.reset if index % 2 else client.close)()
        eventually(lambda: len(node.connections) < 90)
    eventually(lambda: not node.connections)
    eventually(lambda: empty(node))
    streams = node.server.pipeline.uploads._streams
    assert not streams._open
    assert not node.server.pipeline.dispatch._heard
    assert sorted(set(node.cancelled)) == sorted(live.jobs)


# The end of the node.


def test_drain_interrupts_a_stream_and_sends_its_last_utterance(live: LiveWorker) -> None:
    client, number = begin(live, id="s", connection="keep-alive")
    live.node.drain()
    eventually(lambda: live.interrupted == [number])
    live.say(number, utterance("last"))
    live.finish(number, streamed(utterances=1, segments=1, truncated=True))
    replies = client.replies()
    assert [reply["status"] for reply in replies] == ["segment", "ok"]
    assert replies[1]["truncated"] is True
    live.node.wait_until_stopped()
    assert [line["status"] for line in live.node.lines.of("s")] == ["segment", "ok"]


def test_drain_rejects_a_stream_in_line(make_node: MakeNode) -> None:
    node = make_node(max_buffered_bytes=STREAM_BYTES)
    live = LiveWorker(node)
    first, number = begin(live)
    second = node.connect()
    second.send(live_header())
    eventually(lambda: node.waiting)
    node.drain()
    assert second.replies()[0]["error"]["code"] == "shutting_down"
    eventually(lambda: live.interrupted == [number])
    live.finish(number, streamed(truncated=True))
    assert first.replies()[-1]["truncated"] is True
    node.wait_until_stopped()


def test_drain_waits_for_a_stream_whose_audio_has_ended(live: LiveWorker) -> None:
    client, number = begin(live)
    client.send(END)
    eventually(lambda: live.ended == [number])
    live.node.drain()
    eventually(lambda: live.node.server.shutdown.draining)
    assert live.node.running
    live.finish(number)
    assert [reply["status"] for reply in client.replies()] == ["ok"]
    live.node.wait_until_stopped()
    assert live.interrupted == []


def test_drain_past_its_time_fails_a_stream(make_node: MakeNode) -> None:
    node = make_node(drain_seconds=0.2)
    live = LiveWorker(node)
    client, number = begin(live, id="s")
    node.drain()
    eventually(lambda: live.interrupted == [number])
    (reply,) = client.replies()
    assert reply["error"]["code"] == "shutting_down"
    node.wait_until_stopped()
    assert node.lines.wait_for("s")["error"]["code"] == "shutting_down"


def test_client_that_vanishes_in_the_drain_does_not_hold_it_up(live: LiveWorker) -> None:
    client, number = begin(live, id="s")
    live.node.drain()
    eventually(lambda: live.interrupted == [number])
    client.reset()
    eventually(lambda: live.node.cancelled == [number])
    live.finish(number, Failure("cancelled", "the client reset the connection"))
    live.node.wait_until_stopped()
    assert live.node.lines.wait_for("s")["error"]["code"] == "cancelled"


def test_journal_has_no_entry_for_a_stream(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node(journal=tmp_path / "journal")
    live = LiveWorker(node)
    client, number = begin(live)
    live.say(number, utterance("one"))
    assert client.reply() is not None
    assert node.server.load.journal_entries == 0
    assert list((tmp_path / "journal" / "new").iterdir()) == []
    client.send(END)
    eventually(lambda: live.ended == [number])
    live.finish(number)
    assert [reply["status"] for reply in client.replies()] == ["ok"]
    assert list((tmp_path / "journal" / "new").iterdir()) == []
