"""WebSockets on a node's HTTP port, on the loop's side: a fake worker takes their audio.

The clients are the unchanged `websockets` and `openai` packages.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakes import ENGLISH, HANG, UNHURRIED, Clock, Node, eventually
from live_worker import LiveWorker, streamed, utterance
from openai import OpenAI
from sockets import CLOSE, TEXT, append, frame, messages, opening, text
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from app.live import Clear, Commit, Committed, LiveReport, Partial, SpeechBegan, SpeechEnded
from app.messages import INTERNAL, Failure
from app.network.outbox import MAX_UNSENT_BYTES
from app.network.timeouts import Timeouts
from app.protocols.http.protocol import HttpProtocol
from app.protocols.http.site import Site
from app.protocols.model_names import ModelNames
from app.protocols.websocket.frames import MAX_MESSAGE_BYTES
from app.settings import settings
from app.startup.sockets import socket_routes
from app.worker.completions import Progress

MakeNode = Callable[..., Node]

NAMES = ModelNames("fake.en", frozenset({"fake.en"}))
SECOND = bytes(2 * 24_000)
ITEM = "conversation.item"
TRANSCRIPTION = f"{ITEM}.input_audio_transcription"
BUFFER = "input_audio_buffer"


@pytest.fixture
def make_live(make_node: MakeNode) -> Callable[..., LiveWorker]:
    """Start nodes whose only port is that of HTTP, and whose live work a fake worker takes."""
    routes = socket_routes(settings.read([], {}), ENGLISH, NAMES)
    site = Site(NAMES, 0, 1 << 20, sockets=routes)

    def make(**options: Any) -> LiveWorker:
        def new_protocol() -> HttpProtocol:
            return HttpProtocol(site, lambda: "made")

        live = LiveWorker(make_node(new_protocol=new_protocol, **options))
        live.finishes = True
        return live

    return make


@pytest.fixture
def live(make_live: Callable[..., LiveWorker]) -> LiveWorker:
    return make_live()


def place(live: LiveWorker, path: str = "/v1/realtime") -> str:
    return f"ws://127.0.0.1:{live.node.port}{path}"


@contextmanager
def dialled(
    live: LiveWorker, path: str = "/v1/realtime", **options: Any
) -> Iterator[ClientConnection]:
    with connect(place(live, path), open_timeout=HANG, close_timeout=HANG, **options) as client:
        yield client


def heard(client: ClientConnection) -> dict[str, Any]:
    event = json.loads(client.recv(HANG))
    assert isinstance(event, dict)
    return event


def report(live: LiveWorker, number: int, *reports: LiveReport) -> None:
    live.complete(*(Progress(number, one) for one in reports))


def closed_with(client: ClientConnection) -> int:
    """Read to the end; return the node's close code."""
    return end_of(client)[1]


def end_of(client: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Read to the end; return the events and the node's close code."""
    events = []
    try:
        while True:
            events.append(heard(client))
    except ConnectionClosed:
        assert client.close_code is not None
        return events, client.close_code


def empty(live: LiveWorker) -> bool:
    pipeline = live.node.server.pipeline
    return not (pipeline.quota.streams or pipeline.quota.claimed_bytes or pipeline.dispatch.jobs)


# The unchanged clients.


def test_openai_client_gets_an_utterance(live: LiveWorker) -> None:
    client = OpenAI(base_url=f"http://127.0.0.1:{live.node.port}/v1", api_key="none")
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24_000},
                        "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
                    }
                },
            }
        )
        assert connection.recv().type == "session.updated"
        connection.input_audio_buffer.append(audio=base64.b64encode(SECOND).decode())
        number = live.wait_for_job()
        live.wait_for_audio(number, SECOND)
        options = live.jobs[number].request.live
        assert options is not None
        assert options.end_pause == 0.3
        report(live, number, SpeechBegan(0.1), Partial("one", " two"), SpeechEnded(0.9))
        live.say(number, utterance("one two three"))
        events = [connection.recv() for _ in range(8)]
        assert [event.type for event in events] == [
            f"{BUFFER}.speech_started",
            f"{TRANSCRIPTION}.delta",
            f"{BUFFER}.speech_stopped",
            f"{BUFFER}.committed",
            f"{ITEM}.added",
            f"{ITEM}.done",
            f"{TRANSCRIPTION}.delta",
            f"{TRANSCRIPTION}.completed",
        ]
        assert events[-1].transcript == "one two three"  # type: ignore[union-attr]
        connection.input_audio_buffer.commit()
        eventually(lambda: live.events == [(number, Commit())])
        report(live, number, Committed(1.0))
        refused = connection.recv()
        assert refused.type == "error"
        assert refused.error.code == "input_audio_buffer_commit_empty"
    eventually(lambda: live.ended == [number])
    assert live.events[-1] == (number, Clear())
    eventually(lambda: empty(live))
    assert live.node.lines.wait_for(live.jobs[number].request.id)["status"] == "segment"


def test_websocket_client_gets_its_pings_answered_and_sees_no_extension(live: LiveWorker) -> None:
    with dialled(live) as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        assert client.subprotocol is None
        assert client.ping(b"hello").wait(HANG)
        client.close(1000)
        assert client.close_code == 1000


def test_openai_key_in_a_subprotocol_selects_realtime(make_live: Callable[..., LiveWorker]) -> None:
    live = make_live(authorize=lambda token: token == "geheim", port={"needs_token": True})
    offered: Any = ["realtime", "openai-insecure-api-key.geheim", "openai-beta.realtime-v1"]
    with dialled(live, subprotocols=offered) as client:
        assert client.subprotocol == "realtime"
        assert heard(client)["type"] == "transcription_session.created"


@pytest.mark.parametrize(
    "path", ["/realtime", "//v1/realtime/", "/v1/audio/transcriptions", "/audio/transcriptions"]
)
def test_realtime_is_found_below_the_base_addresses_of_clients(live: LiveWorker, path: str) -> None:
    """Obsidian's Whisper plugin has one address, of transcriptions, and replaces http by ws."""
    with dialled(live, f"{path}?intent=transcription", subprotocols=["realtime"]) as client:
        assert heard(client)["type"] == "session.created"


def test_message_in_fragments_is_one_event(live: LiveWorker) -> None:
    with dialled(live) as client:
        heard(client)
        whole = json.dumps({"type": f"{BUFFER}.clear"})
        client.send([whole[:5], whole[5:20], whole[20:]])
        assert heard(client)["type"] == f"{BUFFER}.cleared"


def test_client_that_compresses_gets_a_plain_connection(live: LiveWorker) -> None:
    with dialled(live, compression="deflate") as client:
        assert heard(client)["type"] == "session.created"
        assert client.protocol.extensions == []


# Access.


@pytest.mark.parametrize(
    ("path", "headers", "offered"),
    [
        ("/v1/realtime", {"Authorization": "Bearer geheim"}, None),
        ("/v1/realtime?token=geheim", {}, None),
        ("/v1/realtime", {}, ["openai-insecure-api-key.geheim", "realtime"]),
        ("/v1/realtime", {}, ["realtime", "node-whisper-token.Z2VoZWlt"]),
        ("/vosk?token=geheim", {}, None),
        ("/?token=geheim", {}, None),
    ],
)
def test_token_opens_the_socket(
    make_live: Callable[..., LiveWorker], path: str, headers: dict[str, str], offered: Any
) -> None:
    live = make_live(authorize=lambda token: token == "geheim", port={"needs_token": True})
    with dialled(live, path, additional_headers=headers, subprotocols=offered) as client:
        client.send(json.dumps(append(SECOND)) if "realtime" in path else SECOND)
        # The stream has the token, too.
        number = live.wait_for_job()
        live.wait_for_audio(number, SECOND)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/realtime", {}),
        ("/v1/realtime", {"Authorization": "Bearer wrong"}),
        ("/v1/realtime", {"Authorization": "Basic geheim"}),
        ("/v1/realtime?token=wrong", {}),
        ("/vosk", {}),
        ("/", {}),
    ],
)
def test_missing_or_wrong_token_gets_401_before_the_upgrade(
    make_live: Callable[..., LiveWorker], path: str, headers: dict[str, str]
) -> None:
    live = make_live(authorize=lambda token: token == "geheim", port={"needs_token": True})
    with pytest.raises(InvalidStatus) as refused, dialled(live, path, additional_headers=headers):
        pass
    assert refused.value.response.status_code == 401
    assert b"unauthorized" in (refused.value.response.body or b"")
    eventually(lambda: live.node.lines.of(None))
    assert live.node.lines.of(None)[0]["error"]["code"] == "unauthorized"


def test_token_in_the_address_is_for_upgrades_only(make_live: Callable[..., LiveWorker]) -> None:
    live = make_live(authorize=lambda token: token == "geheim", port={"needs_token": True})
    with socket.create_connection(("127.0.0.1", live.node.port), HANG) as client:
        client.sendall(b"GET /status?token=geheim HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "path", ["/v1/realtime", "/realtime", "/v1/audio/transcriptions", "/vosk", "/"]
)
@pytest.mark.parametrize(
    "headers", [{"Origin": "https://elsewhere.example"}, {"Host": "rebound.example"}]
)
def test_foreign_page_and_rebound_name_get_403(
    live: LiveWorker, path: str, headers: dict[str, str]
) -> None:
    with socket.create_connection(("127.0.0.1", live.node.port), HANG) as client:
        client.sendall(opening(path, **headers))
        assert client.recv(65_536).startswith(b"HTTP/1.1 403 ")


def test_full_node_answers_503_before_the_upgrade(live: LiveWorker) -> None:
    live.utterances = 16
    with pytest.raises(InvalidStatus) as refused, dialled(live):
        pass
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    live.utterances = 0
    with dialled(live) as client:
        heard(client)


def test_node_at_its_most_connections_answers_503(make_live: Callable[..., LiveWorker]) -> None:
    live = make_live(max_connections=1)
    with dialled(live) as first:
        heard(first)
        with socket.create_connection(("127.0.0.1", live.node.port), HANG) as client:
            client.sendall(opening())
            answer = client.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer.lower()


def test_connection_is_kept_for_http_after_a_refusal(live: LiveWorker) -> None:
    live.utterances = 16
    with socket.create_connection(("127.0.0.1", live.node.port), HANG) as client:
        client.sendall(opening() + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while b'{"status": "ok"}' not in data:
            data += client.recv(65_536)
    assert data.startswith(b"HTTP/1.1 503 ")


# Limits and ends.


def test_message_over_the_limit_closes_with_1009(live: LiveWorker) -> None:
    with dialled(live) as client:
        heard(client)
        client.send("x" * (MAX_MESSAGE_BYTES + 1))
        assert closed_with(client) == 1009
    assert empty(live)


def test_broken_frame_ends_the_stream_and_frees_it(live: LiveWorker) -> None:
    with socket.create_connection(("127.0.0.1", live.node.port), HANG) as client:
        client.sendall(opening() + text(append(SECOND)))
        number = live.wait_for_job()
        live.wait_for_audio(number, SECOND)
        client.sendall(frame(TEXT, b"x", mask=None))
        data = b"".join(iter(lambda: client.recv(65_536), b""))
    _, _, frames = data.partition(b"\r\n\r\n")
    last = list(messages(frames))[-1]
    assert (last.opcode, last.code) == (CLOSE, 1002)
    eventually(lambda: empty(live))
    line = live.node.lines.wait_for(live.jobs[number].request.id)
    assert line["error"]["code"] == "bad_field"


def test_client_that_goes_without_closing_is_cancelled(live: LiveWorker) -> None:
    with socket.create_connection(("127.0.0.1", live.node.port), HANG) as client:
        client.sendall(opening() + text(append(SECOND)))
        number = live.wait_for_job()
        live.wait_for_audio(number, SECOND)
    eventually(lambda: number in live.node.cancelled)
    eventually(lambda: empty(live))
    line = live.node.lines.wait_for(live.jobs[number].request.id)
    assert line["error"]["code"] == "incomplete"


def test_failure_of_the_worker_keeps_the_session_open(live: LiveWorker) -> None:
    with dialled(live) as client:
        heard(client)
        for count in (1, 2):
            client.send(json.dumps(append(SECOND)))
            number = live.wait_for_job(count)
            live.wait_for_audio(number, SECOND)
            live.finish(number, Failure(INTERNAL, "a bug"))
            assert heard(client)["error"]["code"] == "internal"
    eventually(lambda: empty(live))


def test_session_without_audio_ends_with_1001(make_live: Callable[..., LiveWorker]) -> None:
    """Pings and other events do not count."""
    live = make_live(timeouts=Timeouts(600.0, 600.0, 600.0, session=0.5, write=600.0))
    with dialled(live, ping_interval=0.05) as client:
        heard(client)
        client.send(json.dumps({"type": f"{BUFFER}.clear"}))
        heard(client)
        error = heard(client)["error"]
        assert error["code"] == "timeout"
        assert closed_with(client) == 1001


def test_audio_extends_the_time_of_a_session(live: LiveWorker, clock: Clock) -> None:
    with dialled(live, ping_interval=None) as client:
        heard(client)
        for count in range(1, 5):
            client.send(json.dumps(append(SECOND)))
            number = live.wait_for_job()
            live.wait_for_audio(number, SECOND * count)
            clock.pass_by(UNHURRIED.session * 0.7)
            live.node.server.loop.wake()
        clock.pass_by(UNHURRIED.session)
        live.node.server.loop.wake()
        assert heard(client)["error"]["code"] == "timeout"
        assert closed_with(client) == 1001


def test_drain_finishes_the_open_utterance_and_closes_with_1001(live: LiveWorker) -> None:
    with dialled(live) as idle, dialled(live) as client:
        heard(idle)
        heard(client)
        client.send(json.dumps(append(SECOND)))
        number = live.wait_for_job()
        live.wait_for_audio(number, SECOND)
        live.node.drain()
        assert closed_with(idle) == 1001
        eventually(lambda: live.interrupted == [number])
        report(live, number, SpeechBegan(0.0), SpeechEnded(1.0))
        live.say(number, utterance("the end"))
        live.finish(number, streamed(truncated=True))
        events, code = end_of(client)
        assert [event["transcript"] for event in events if "transcript" in event] == ["the end"]
        assert code == 1001
    live.node.wait_until_stopped()


def test_fast_client_is_not_read_beyond_three_seconds(live: LiveWorker) -> None:
    live.consumes = False
    event = json.dumps(append(SECOND))
    with socket.create_connection(("127.0.0.1", live.node.port), HANG) as client:
        client.sendall(opening())
        client.settimeout(1.0)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 2000:
                client.sendall(text(event))
                sent += 1
        number = live.wait_for_job()
        assert 10 < sent < 2000
        # Three seconds, and the rest of the message that went beyond them.
        assert len(live.audio[number]) < 5 * len(SECOND)


def test_slow_reader_loses_partials_but_no_segment(live: LiveWorker) -> None:
    live.finishes = False
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(HANG)
        client.connect(("127.0.0.1", live.node.port))
        client.sendall(opening() + text(append(SECOND)))
        number = live.wait_for_job()
        live.wait_for_audio(number, SECOND)
        (connection,) = live.node.connections
        words = ""
        count = 0
        report(live, number, SpeechBegan(0.0))
        # The kernel takes some megabytes for a client that does not read.
        while not live.node.server.load.dropped_partials:
            assert count < 1000
            more = "x" * 65_536
            words, count = f"{words} {more}".strip(), count + 1
            report(live, number, Partial(words, ""))
        report(live, number, SpeechEnded(1.0))
        live.say(number, utterance("all of it"), utterance("and more", 2.0, 3.0))
        eventually(lambda: connection.state.outbox.unsent)
        assert connection.state.outbox.size < 3 * MAX_UNSENT_BYTES
        client.sendall(frame(CLOSE, b"\x03\xe8"))
        live.finish(number)
        data = b"".join(iter(lambda: client.recv(65_536), b""))
    _, _, frames = data.partition(b"\r\n\r\n")
    events = [message.json for message in messages(frames) if message.opcode == TEXT]
    completed = [event["transcript"] for event in events if "transcript" in event]
    deltas = [event for event in events if event["type"].endswith(".delta")]
    assert completed == ["all of it", "and more"]
    # Each utterance adds a delta, or none.
    assert len(deltas) < count + len(completed)


# Vosk.


@pytest.mark.parametrize("path", ["/", "/vosk", "/vosk?x=1"])
def test_vosk_client_in_lock_step(live: LiveWorker, path: str) -> None:
    live.finishes = False
    with dialled(live, path) as client:
        client.send(json.dumps({"config": {"sample_rate": 16_000.0}}))
        for _ in range(3):
            client.send(bytes(3200))
            assert heard(client) == {"partial": ""}
        number = live.wait_for_job()
        assert live.jobs[number].raw.sample_rate == 16_000
        report(live, number, Partial("one", " two"))
        eventually(lambda: _sent(client) == {"partial": "one two"})
        live.say(number, utterance("one two"))
        eventually(lambda: _sent(client) == {"text": "one two"})
        client.send('{"eof" : 1}')
        eventually(lambda: live.ended == [number])
        live.say(number, utterance("three"))
        live.finish(number)
        assert heard(client) == {"text": "three"}
        assert closed_with(client) == 1000


def _sent(client: ClientConnection) -> dict[str, Any]:
    client.send(bytes(320))
    return heard(client)
