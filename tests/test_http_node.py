"""HTTP in the node, with the real loop and server around a fake engine."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from fakes import ENGLISH, HANG, Client, FakeEngine, Node, encoded, eventually, tone
from forms import BOUNDARY, TRANSCRIPTIONS, Answer, answers, chunked, form, post, request
from prometheus_client.parser import text_string_to_metric_families

from app.decoding.transcriber import ModelInfo
from app.live import LiveOptions
from app.messages import Failure, Origin, Request, Streamed
from app.model_files.catalog import ModelFile
from app.monitoring.metrics import Metrics
from app.monitoring.status import RECENT, Status
from app.network.timeouts import Timeouts
from app.protocols.model_names import ModelNames
from app.requests.load import Load
from app.server import Reports
from app.startup.web import Web, web
from app.worker.live.counters import LiveCounts

WAV = encoded(tone(1600))
TEXT = "1600"
MakeNode = Callable[..., Node]


@pytest.fixture
def serve(make_node: MakeNode) -> MakeNode:
    """Start nodes whose only port speaks HTTP."""

    def make(
        engine: FakeEngine | None = None,
        metrics_auth: bool = False,
        model: ModelInfo = ENGLISH,
        **options: Any,
    ) -> Node:
        parts: Web = web(
            model=model,
            names=ModelNames(model.name, frozenset({model.name})),
            file=ModelFile(Path(__file__), model.name),
            version="1.2.3",
            load=lambda: node.server.load,
            max_body=options.pop("max_body", 1 << 24),
            origins=(),
            local=True,
            sockets={},
            metrics_auth=metrics_auth,
        )
        port = {"name": "http", **options.pop("port", {})}
        node = make_node(
            engine,
            model=model,
            new_protocol=parts.new_protocol,
            port=port,
            reports=Reports(parts.reports, parts.guarded),
            observers=parts.observers,
            **options,
        )
        return node

    return make


def ask(node: Node, data: bytes) -> Answer:
    """Send one request on a new connection, which the node must keep open."""
    with node.connect() as client:
        client.send(data)
        return receive(client)


def receive(client: Client, method: str = "POST", closed: bool = False) -> Answer:
    """Read the next response, or, if `closed`, the response up to the end of the stream."""
    data = b""
    while True:
        more = client.socket.recv(65536)
        data += more
        if not more:
            assert closed, f"the stream ended after {data!r}"
            return answers(data, method, closed=True)[0]
        if not closed and whole(data, method):
            return answers(data, method)[0]


def whole(data: bytes, method: str) -> bool:
    try:
        return len(answers(data, method)) == 1
    except AssertionError:
        return False


def get(node: Node, path: str, **headers: str) -> Answer:
    with node.connect() as client:
        client.send(request("GET", path, **headers))
        return receive(client, "GET")


def codes_on_stdout(node: Node, count: int) -> list[str]:
    """Wait for this number of failures on stdout; return their codes."""

    def codes() -> list[str]:
        failed = [line for line in list(node.lines.written) if line["status"] == "error"]
        return [line["error"]["code"] for line in failed]

    eventually(lambda: len(codes()) >= count, "a line on stdout")
    return codes()


@contextmanager
def held(engine: FakeEngine) -> Iterator[None]:
    engine.hold()
    try:
        yield
    finally:
        engine.release()


def test_plain_client_uploads_several_files_in_turn(serve: MakeNode) -> None:
    node = serve()
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=HANG)
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    for _ in range(2):
        connection.request("POST", TRANSCRIPTIONS, form(("file", WAV)), kind)
        response = connection.getresponse()
        assert response.status == 200
        assert json.loads(response.read())["text"] == TEXT
        line = node.lines.wait_for(response.headers["X-Request-Id"])
        assert line["text"] == TEXT
    connection.request("POST", TRANSCRIPTIONS, iter([form(("file", WAV))]), kind)
    assert json.loads(connection.getresponse().read())["text"] == TEXT
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b'{"status": "ok"}'
    connection.close()


def test_pipelined_requests_are_answered_in_order(serve: MakeNode) -> None:
    node = serve()
    with node.connect() as client:
        upload = post(TRANSCRIPTIONS, ("file", WAV), ("response_format", "text"))
        client.send(upload + request("GET", "/healthz") + upload)
        data = b""
        while data.count(b"HTTP/1.1 200 OK") < 3 or not data.endswith(b"1600\n"):
            data += client.socket.recv(65536)
    bodies = [answer.body for answer in answers(data, "POST", "GET", "POST")]
    assert bodies == [b"1600\n", b'{"status": "ok"}', b"1600\n"]


def test_100_continue_is_sent_before_the_body_arrives(serve: MakeNode) -> None:
    node = serve()
    head, _, body = post(TRANSCRIPTIONS, ("file", WAV), Expect="100-continue").partition(
        b"\r\n\r\n"
    )
    with node.connect() as client:
        client.send(head + b"\r\n\r\n")
        data = client.socket.recv(65536)
        assert data == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        assert receive(client).json["text"] == TEXT


def test_stream_sends_each_segment_when_it_is_ready(serve: MakeNode) -> None:
    engine = FakeEngine()
    node = serve(engine)
    # Two windows of at most 30 s each.
    long = encoded(tone(40 * 16_000))
    with node.connect() as client, held(engine):
        client.send(post(TRANSCRIPTIONS, ("stream", "true"), ("file", long)))
        engine.step()
        first = client.socket.recv(65536)
        while b"\n\n" not in first:
            first += client.socket.recv(65536)
        assert b"text/event-stream" in first
        assert first.count(b"transcript.text.delta") == 1
        engine.release()
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            rest += client.socket.recv(65536)
    (answer,) = answers(first + rest)
    *deltas, done = answer.events
    assert "".join(event["delta"] for event in deltas) == done["text"]
    assert len(deltas) >= 2


def test_token_is_required(serve: MakeNode) -> None:
    node = serve(authorize=lambda token: token == "secret", port={"needs_token": True})
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        with node.connect() as client:
            client.send(post(TRANSCRIPTIONS, ("file", WAV), **headers))
            answer = receive(client, closed=True)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.error["code"] == "unauthorized"
    bearer = {"Authorization": "Bearer secret"}
    assert ask(node, post(TRANSCRIPTIONS, ("file", WAV), **bearer)).status == 200
    open_to_all = [
        get(node, path).status for path in ("/healthz", "/readyz", "/metrics", "/status")
    ]
    assert open_to_all == [200, 200, 200, 401]
    assert get(node, "/status", **bearer).status == 200


def test_metrics_require_the_token_if_set(serve: MakeNode) -> None:
    node = serve(
        metrics_auth=True, authorize=lambda token: token == "t", port={"needs_token": True}
    )
    assert [get(node, path).status for path in ("/healthz", "/readyz", "/metrics")] == [
        200,
        401,
        401,
    ]
    assert get(node, "/metrics", Authorization="Bearer t").status == 200


def test_busy_reply_has_retry_after_and_health_still_answers(serve: MakeNode) -> None:
    engine = FakeEngine()
    node = serve(engine, queue_size=1, reject_when_full=True)
    with node.connect() as first, held(engine):
        first.send(post(TRANSCRIPTIONS, ("file", WAV)))
        engine.wait_for_calls(1)
        answer = ask(node, post(TRANSCRIPTIONS, ("file", WAV)))
        assert (answer.status, answer.error["code"]) == (503, "busy")
        assert int(answer.headers["retry-after"]) >= 1
        assert get(node, "/healthz").status == 200
        ready = get(node, "/readyz")
        assert (ready.status, ready.json["status"]) == (503, "not ready")
        assert ready.json["reasons"] == ["the queue is full"]
        engine.release()
        assert receive(first).json["text"] == TEXT
    assert get(node, "/readyz").json == {"status": "ready", "reasons": []}


def test_client_that_disconnects_frees_its_place(serve: MakeNode) -> None:
    engine = FakeEngine()
    node = serve(engine, queue_size=2)
    with node.connect() as first, held(engine):
        first.send(post(TRANSCRIPTIONS, ("file", WAV)))
        engine.wait_for_calls(1)
        with node.connect() as second:
            second.send(post(TRANSCRIPTIONS, ("file", WAV)))
            eventually(lambda: len(node.jobs) == 2, "a second job")
        # The client closed without a reset. The node still answers while the worker cancels.
        assert get(node, "/healthz").status == 200
        eventually(lambda: node.cancelled, "its end")
        engine.release()
        assert receive(first).status == 200
    eventually(lambda: node.server.load.admitted == 0, "a free place")
    assert len(engine.calls) == 1
    assert codes_on_stdout(node, 1) == ["cancelled"]


def test_upload_that_breaks_off_is_incomplete(serve: MakeNode) -> None:
    node = serve()
    with node.connect() as client:
        client.send(post(TRANSCRIPTIONS, ("file", WAV))[:-10])
        eventually(lambda: node.server.load.admitted == 1, "a place")
    eventually(lambda: node.server.load.admitted == 0, "a free place")
    assert codes_on_stdout(node, 1) == ["incomplete"]


def test_slow_upload_times_out(serve: MakeNode) -> None:
    node = serve(timeouts=Timeouts(header=0.2, body=0.2))
    whole_upload = post(TRANSCRIPTIONS, ("file", WAV))
    for data in (b"", b"POST / HT", whole_upload[:-5]):
        with node.connect() as client:
            client.send(data)
            answer = receive(client, closed=True)
        assert (answer.status, answer.error["code"]) == (408, "timeout")


def test_excess_connection_gets_too_many_connections(serve: MakeNode) -> None:
    node = serve(max_connections=1)
    with node.connect() as first:
        first.send(request("GET", "/healthz"))
        receive(first, "GET")
        with node.connect() as second:
            answer = receive(second, closed=True)
    assert (answer.status, answer.error["code"]) == (503, "busy")
    assert answer.headers["retry-after"] == "1"


def test_error_in_the_form_is_sent_after_the_rest_is_skipped(serve: MakeNode) -> None:
    node = serve()
    with node.connect() as client:
        client.send(post(TRANSCRIPTIONS, ("prompt", "x" * 20_000), ("file", b"x" * 8_000_000)))
        answer = receive(client, closed=True)
    assert (answer.status, answer.error["param"]) == (400, "prompt")
    assert codes_on_stdout(node, 1) == ["bad_field"]


def test_too_long_recording_is_rejected(serve: MakeNode) -> None:
    answer = ask(serve(max_seconds=0.05), post(TRANSCRIPTIONS, ("file", WAV)))
    assert (answer.status, answer.error["code"]) == (413, "audio_too_long")


def test_foreign_origin_and_host_are_rejected(serve: MakeNode) -> None:
    node = serve()
    for headers, code in (
        ({"Origin": "https://elsewhere.example"}, "wrong_origin"),
        ({"Host": "elsewhere.example"}, "wrong_host"),
    ):
        answer = ask(node, post(TRANSCRIPTIONS, ("file", WAV), **headers))
        assert (answer.status, answer.error["code"]) == (403, code)
    assert node.engine.calls == []


def test_form_with_unsupported_language_or_task_is_rejected(serve: MakeNode) -> None:
    node = serve()
    answer = ask(node, post(TRANSCRIPTIONS, ("file", WAV), ("language", "de")))
    assert (answer.status, answer.error["param"]) == (400, "language")
    translation = ask(node, post("/v1/audio/translations", ("file", WAV)))
    assert (translation.status, translation.error["code"]) == (400, "bad_field")
    body = chunked(form(("file", WAV), ("language", "en")), 1000)
    head = request(
        "POST",
        TRANSCRIPTIONS,
        Transfer_Encoding="chunked",
        Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
    )
    assert ask(node, head + body).json["text"] == TEXT


# OpenAI has deprecated the endpoint, so the package warns.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_openai_client_translates_in_every_format(serve: MakeNode) -> None:
    node = serve(model=ModelInfo("fake", True, frozenset({"de", "en"})))
    base = f"http://127.0.0.1:{node.port}/v1"
    with openai.OpenAI(base_url=base, api_key="none", timeout=HANG, max_retries=0) as client:
        create: Any = client.audio.translations.create
        asked = {"file": ("a.wav", WAV), "model": "whisper-1", "extra_body": {"language": "de"}}
        answers = {
            form: create(**asked, response_format=form)
            for form in ("json", "text", "srt", "verbose_json", "vtt")
        }
    assert answers["json"].text == answers["verbose_json"].text == TEXT
    assert answers["text"] == f"{TEXT}\n"
    times = "00:00:00.000 --> 00:00:00.100"
    assert answers["vtt"] == f"WEBVTT\n\n{times}\n{TEXT}\n\n"
    assert answers["srt"] == f"1\n{times.replace('.', ',')}\n{TEXT}\n\n"
    verbose = answers["verbose_json"]
    assert (verbose.language, verbose.duration) == ("english", 0.1)
    assert [segment.text for segment in verbose.segments] == [TEXT]
    calls = {(options.translate, options.language) for _, options in node.engine.calls}
    assert calls == {(True, "de")}


# Numbers.


def samples(answer: Answer) -> dict[tuple[str, tuple[str, ...]], float]:
    """The samples that Prometheus' own parser reads, by name and values of the labels."""
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_metrics_count_requests(serve: MakeNode) -> None:
    node = serve()
    before = samples(get(node, "/metrics"))
    assert before["node_whisper_info", (ENGLISH.name, "1.2.3")] == 1
    assert ("node_whisper_requests_total", ("ok", "http")) not in before
    for _ in range(2):
        ask(node, post(TRANSCRIPTIONS, ("file", WAV)))
    ask(node, post(TRANSCRIPTIONS, ("file", b"not audio")))
    after = samples(get(node, "/metrics"))
    assert after["node_whisper_requests_total", ("ok", "http")] == 2
    assert after["node_whisper_requests_total", ("unsupported_media_type", "http")] == 1
    assert after["node_whisper_audio_seconds_sum", ()] == pytest.approx(0.2)
    for name in ("queue_seconds", "audio_seconds", "processing_seconds", "real_time_factor"):
        assert after[f"node_whisper_{name}_count", ()] == 2
        assert after[f"node_whisper_{name}_bucket", ("+Inf",)] == 2
    assert after["node_whisper_passes_total", ()] == 2
    assert after["node_whisper_second_passes_total", ()] == 0
    assert after["node_whisper_ready", ()] == 1
    assert after["node_whisper_draining", ()] == 0
    assert after["node_whisper_connections", ()] == 1
    assert after["node_whisper_queue_size", ()] == 64
    assert after["node_whisper_queue_depth", ()] == 0
    assert after["node_whisper_waiting_requests", ()] == 0
    assert after["node_whisper_buffered_bytes", ()] == 0
    assert after["process_resident_memory_bytes", ()] > 1e6


def test_metrics_count_journal_entries(serve: MakeNode, tmp_path: Path) -> None:
    def counted(node: Node) -> tuple[float, float]:
        found = samples(get(node, "/metrics"))
        names = ("journal_entries", "quarantined_entries")
        entries, quarantined = (found[f"node_whisper_{name}", ()] for name in names)
        return entries, quarantined

    assert counted(serve()) == (0, 0)  # without a journal
    engine = FakeEngine()
    node = serve(engine, journal=tmp_path / "journal")
    with held(engine), node.connect() as client:
        client.send(post(TRANSCRIPTIONS, ("file", WAV)))
        engine.wait_for_calls(1)
        assert counted(node) == (1, 0)
        engine.release()
        assert receive(client).json["text"] == TEXT
    eventually(lambda: counted(node) == (0, 0), "an empty journal")


def test_every_metric_is_documented(serve: MakeNode) -> None:
    docs = (Path(__file__).parent.parent / "docs" / "http.md").read_text()
    families = text_string_to_metric_families(get(serve(), "/metrics").body.decode())
    missing = [family.name for family in families if f"`{family.name}" not in docs]
    assert missing == []


def test_status_keeps_only_times_and_causes(serve: MakeNode) -> None:
    node = serve()
    ask(node, post(TRANSCRIPTIONS, ("file", WAV), ("prompt", "Zoë")))
    answer = ask(node, post(TRANSCRIPTIONS, ("file", b"not audio")))
    status = get(node, "/status").json
    assert (status["model"], status["version"]) == (ENGLISH.name, "1.2.3")
    assert status["ready"]
    assert status["queue"] == {"size": 64, "unfinished": 0, "waiting": 0}
    assert status["tasks"] == ["transcribe"]
    good, bad = status["recent"]
    assert good.keys() == {
        "age_seconds",
        "protocol",
        "id",
        "outcome",
        "audio_seconds",
        "queue_seconds",
        "processing_seconds",
    }
    assert (good["outcome"], good["audio_seconds"], good["protocol"]) == ("ok", 0.1, "http")
    assert bad.keys() == {"age_seconds", "protocol", "id", "outcome", "message"}
    assert bad["outcome"] == "unsupported_media_type"
    assert bad["message"].startswith("the audio was not recognised")
    assert bad["id"] == answer.headers["x-request-id"]


def test_status_lists_an_upload_that_is_too_large(serve: MakeNode) -> None:
    node = serve(max_body=100)
    with node.connect() as client:
        client.send(post(TRANSCRIPTIONS, ("file", WAV)))
        assert receive(client, closed=True).status == 413
    (entry,) = get(node, "/status").json["recent"]
    assert (entry["outcome"], entry["protocol"]) == ("too_large", "http")
    assert "limit of 100 bytes" in entry["message"]


def test_status_has_no_id_that_a_client_chose() -> None:
    load = Load(False, True, False, 0, 1, 0, 0, 0.0, 0)
    status = Status(lambda: load, ENGLISH, "0")
    for protocol in ("native", "wyoming", "vosk", "queue"):
        status.finished(Origin("p", 0.0, protocol), Request("r", 1), Failure("busy", "m" * 9999))
    for entry in json.loads(status.report().body)["recent"]:
        assert "id" not in entry
        assert len(entry["message"]) == 300


def test_status_keeps_only_the_latest_requests() -> None:
    load = Load(False, True, False, 0, 1, 0, 0, 0.0, 0)
    status = Status(lambda: load, ENGLISH, "0")
    asked = Request("r", 1)
    for number in range(RECENT + 5):
        status.finished(Origin("p", 0.0), asked, Failure(f"code{number}", "m"))
    status.finished(Origin("p", 0.0), None, Failure("scanner", "m"))
    recent = json.loads(status.report().body)["recent"]
    assert [entry["outcome"] for entry in recent] == [f"code{n}" for n in range(5, RECENT + 5)]
    ready = status.ready()
    assert not ready.ok
    reasons = json.loads(ready.body)["reasons"]
    assert reasons == ["the worker is not running", "the node is shutting down"]


def test_stream_is_counted_with_the_workers_counts() -> None:
    counts = LiveCounts(
        jobs=5,
        utterances=2,
        speculations_used=6,
        speculations_wasted=1,
        finals=7,
        final_seconds=0.25,
        partials=9,
        lag_seconds=1.5,
    )
    load = Load(True, False, True, 3, 64, 0, 0, 0.0, 0, streams=3, live=counts)
    metrics, status = Metrics(lambda: load, "a", "0"), Status(lambda: load, ENGLISH, "0")
    asked = Request("r", None, live=LiveOptions())
    outcome = Streamed("en", 7, 9, 60.0, 3.0, "a", False)
    for observer in (metrics, status):
        observer.finished(Origin("p", 0.0), asked, outcome)
    text = metrics.report().body.decode()
    for line in (
        'node_whisper_requests_total{outcome="ok",protocol="native"} 1.0',
        "node_whisper_live_finals_total 7.0",
        "node_whisper_live_final_seconds_total 0.25",
        "node_whisper_live_partials_total 9.0",
        'node_whisper_speculations_total{result="used"} 6.0',
        'node_whisper_speculations_total{result="wasted"} 1.0',
        "node_whisper_live_lag_seconds 1.5",
        "node_whisper_audio_seconds_sum 60.0",
        "node_whisper_processing_seconds_sum 3.0",
        "node_whisper_queue_seconds_count 0.0",
        "node_whisper_streams 3.0",
        "node_whisper_live_utterances 2.0",
    ):
        assert line in text.splitlines(), line
    fields = json.loads(status.report().body)
    assert fields["live"] == {"streams": 3, "utterances": 2}
    (entry,) = fields["recent"]
    assert (entry["outcome"], entry["audio_seconds"]) == ("ok", 60.0)


def test_two_nodes_in_one_process_count_separately() -> None:
    load = Load(True, False, True, 0, 1, 0, 0, 0.0, 0)
    one, two = (Metrics(lambda: load, name, "0") for name in ("a", "b"))
    one.finished(Origin("p", 0.0, "http"), None, Failure("busy", "m"))
    assert b'requests_total{outcome="busy",protocol="http"} 1.0' in one.report().body
    assert b"busy" not in two.report().body
