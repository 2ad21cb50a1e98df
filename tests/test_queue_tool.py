"""scripts/queue against a real broker: set-up, submission, results, dead jobs."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="nats-py is not installed (requirements-queue.txt)")

import queue_tool.broker
import queue_tool.orphans
import queue_tool.results
import queue_tool.server
import queue_tool.setup
from broker import HANG
from queue_cluster import StandIn, result
from queue_tool import cli, configs, objects

from app.model_files import catalog
from app.queue import names
from app.queue.broker import Broker, access, connect
from app.queue.job import INLINE_BYTES
from app.queue.limits import LIMITS

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "tests" / "audio" / "jfk.flac"


class Tool:
    """scripts/queue, run within this process."""

    def __init__(self, url: str, capture: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capture = capture

    def __call__(self, *arguments: str | Path, status: int = 0) -> str:
        """Run a command that must end with `status`; return its stdout. See `errors`, too."""
        self._capture.readouterr()
        try:
            found = cli.main([*map(str, arguments), "--queue", self.url])
        except SystemExit as end:
            found = int(end.code or 0)
        output, self.errors = self._capture.readouterr()
        assert found == status, self.errors
        return output

    def jetstream(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream's API."""

        async def ask(broker: Broker) -> dict[str, Any]:
            data = b"" if body is None else json.dumps(body).encode()
            reply = await broker.request(f"$JS.API.{verb}", data)
            return dict(json.loads(reply.data))

        return self.run(ask)

    def run(self, act: Callable[[Broker], Coroutine[Any, Any, Any]]) -> Any:
        async def connected() -> Any:
            broker = await self.connect()
            try:
                return await act(broker)
            finally:
                await broker.close()

        return asyncio.run(connected())

    async def connect(self) -> Broker:
        return await connect(access((self.url,), None, None, owner="test", name="test"))

    def stand_in(self, **options: Any) -> StandIn:
        return StandIn(self.connect, **options)


@pytest.fixture
def tool(broker: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> Iterator[Tool]:
    """The tool and an open broker without a queue yet."""
    for name in tuple(os.environ):
        if name.startswith(cli.PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setattr(queue_tool.broker, "_RETRY_SECONDS", 0.05)
    # A consumer takes some milliseconds to make; one test makes those of every model.
    monkeypatch.setattr(queue_tool.setup, "catalogue_models", lambda: ["tiny.en", "base"])
    monkeypatch.setattr(queue_tool.results, "LOOK_SECONDS", 0.2)
    return Tool(broker.url, capsys)


@pytest.fixture
def ready(tool: Tool) -> Tool:
    """The tool and a queue with the tenant t1."""
    tool("init", "--tenant", "t1")
    return tool


def clip(folder: Path, size: int, name: str = "clip.flac") -> Path:
    """A file of `size` bytes that differ from file to file; no node decodes it here."""
    path = folder / name
    path.write_bytes((hashlib.sha256(name.encode()).digest() * (size // 32 + 1))[:size])
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# init.


def test_init_makes_all_and_is_idempotent(tool: Tool, monkeypatch: Any) -> None:
    monkeypatch.undo()
    first = tool("init", "--tenant", "t1", "--tenant", "t2")
    streams = tool.jetstream("STREAM.NAMES")["streams"]
    buckets = {
        f"OBJ_asr-{kind}-{tenant}" for kind in ("audio", "results") for tenant in ("t1", "t2")
    }
    assert set(streams) == {one.name for one in LIMITS.streams} | buckets
    models = {names.ANY_MODEL, *(entry.model for entry in catalog.entries())}
    consumers = tool.jetstream("CONSUMER.NAMES.ASR_JOBS")["consumers"]
    assert set(consumers) == {
        names.consumer(model, job_class) for model in models for job_class in names.CLASSES
    }
    assert first.count("created: ") == len(streams) + len(consumers)
    again = tool("init", "--tenant", "t1", "--tenant", "t2")
    assert again == f"ready: {len(models)} models, tenants t1, t2\n"


def test_init_sets_every_limit(ready: Tool) -> None:
    for limits in LIMITS.streams:
        config = ready.jetstream(f"STREAM.INFO.{limits.name}")["config"]
        assert not list(configs.differences(config, configs.stream_config(limits, ())))
        # A header of one publisher must not remove or expire the messages of others.
        for right in ("allow_rollup_hdrs", "allow_msg_ttl", "allow_msg_schedules"):
            assert not config.get(right)


def test_objects_outlive_the_jobs_that_name_them(ready: Tool) -> None:
    def age(stream: str) -> float:
        config = ready.jetstream(f"STREAM.INFO.{stream}")["config"]
        return float(config["max_age"]) or float("inf")

    audio = age(names.bucket_stream(names.audio_bucket("t1")))
    assert audio >= age(names.JOBS) + age(names.DEAD)
    assert age(names.bucket_stream(names.results_bucket("t1"))) > age(names.RESULTS)
    # No job leaves by age.
    assert age(names.JOBS) == age(names.DEAD) == float("inf")


def test_init_adds_a_model_and_keeps_it(ready: Tool) -> None:
    output = ready("init", "--tenant", "t1", "--model", "my.model v2")
    assert "created: consumer my=2Emodel=20v2-short" in output
    ready("init", "--tenant", "t1")
    subjects = ready.jetstream("STREAM.INFO.ASR_JOBS")["config"]["subjects"]
    assert "asr.job.my=2Emodel=20v2.long.*" in subjects


def test_init_names_a_model_as_the_nodes_do(ready: Tool) -> None:
    # A node with any quantization serves the same jobs.
    assert "created" not in ready("init", "--tenant", "t1", "--model", "tiny.en-q5_1")


def test_init_says_what_differs_and_changes_it_on_request(ready: Tool) -> None:
    config = ready.jetstream("STREAM.INFO.ASR_DEAD")["config"]
    ready.jetstream("STREAM.UPDATE.ASR_DEAD", {**config, "max_age": 5_000_000_000_000})
    consumer = ready.jetstream("CONSUMER.INFO.ASR_JOBS.any-long")["config"]
    consumer["ack_wait"] = 5_000_000_000
    ready.jetstream(
        "CONSUMER.DURABLE.CREATE.ASR_JOBS.any-long", {"stream_name": "ASR_JOBS", "config": consumer}
    )
    output = ready("init", "--tenant", "t1")
    assert "stream ASR_DEAD: max_age is 5000 s instead of unlimited" in output
    assert "consumer any-long: ack_wait is 5 s instead of 30 s" in output
    assert output.count("left as it is") == 2
    assert "left as it is" not in ready("init", "--tenant", "t1", "--update")
    assert ready("init", "--tenant", "t1").startswith("ready")


def test_init_warns_of_ages_that_lose_jobs(ready: Tool) -> None:
    config = ready.jetstream("STREAM.INFO.OBJ_asr-audio-t1")["config"]
    ready.jetstream("STREAM.UPDATE.OBJ_asr-audio-t1", {**config, "max_age": 60_000_000_000_000})
    ready("init", "--tenant", "t1")
    assert "OBJ_asr-audio-t1: audio ends before the jobs that name it" in ready.errors


def test_init_says_when_it_cannot_tell_whether_writes_are_synced(tool: Tool) -> None:
    tool("init")
    assert "it is unknown whether the broker syncs" in tool.errors
    assert "tenants default" in tool("init")


@pytest.mark.parametrize("sync", ["always", "2m"])
def test_init_learns_the_sync_from_the_monitoring_page(
    make_broker: Any, capsys: Any, monkeypatch: Any, sync: str
) -> None:
    server = make_broker(sync=sync)
    monkeypatch.setattr(queue_tool.server, "MONITOR_PORT", server.monitoring_port)
    tool = Tool(server.url, capsys)
    tool("init")
    assert ("a power cut loses accepted jobs" in tool.errors) == (sync != "always")
    assert "is unknown whether" not in tool.errors


def test_monitoring_page_of_another_server_does_not_count(
    make_broker: Any, capsys: Any, monkeypatch: Any
) -> None:
    other = make_broker(sync="always")
    monkeypatch.setattr(queue_tool.server, "MONITOR_PORT", other.monitoring_port)
    tool = Tool(make_broker(sync="2m").url, capsys)
    tool("init")
    assert "it is unknown whether" in tool.errors


@pytest.mark.parametrize(
    ("version", "warned"),
    [("2.9.10", True), ("2.13.9", True), ("2.14.0", False), ("2.15.1", False), ("3.0.0", False)],
)
def test_old_server_is_warned_of(version: str, warned: bool) -> None:
    facts = queue_tool.server.ServerFacts(version, syncs_always=True)
    assert bool(queue_tool.server.warnings(facts)) == warned


def test_init_reports_a_broker_without_storage(make_broker: Any, capsys: Any) -> None:
    small = make_broker(
        "accounts { A { jetstream { max_file: 100MB }, users: [ { user: a, password: a } ] } }\n"
        "no_auth_user: a"
    )
    tool = Tool(small.url, capsys)
    tool("init", status=1)
    assert "no_space: the broker has too little storage for ASR_JOBS" in tool.errors


# submit and result.


@pytest.mark.parametrize("size", [100, INLINE_BYTES, INLINE_BYTES + 1, 2_700_000])
def test_submit_waits_for_the_text(ready: Tool, tmp_path: Path, size: int) -> None:
    path = clip(tmp_path, size)
    with ready.stand_in() as worker:
        assert ready("submit", "--tenant", "t1", "--wait", path) == sha256(path) + "\n"
    job_class = "short" if size <= names.SHORT_BYTES else "long"
    assert [subject for subject, _ in worker.jobs] == [f"asr.job.any.{job_class}.t1"]


def test_submit_without_waiting_prints_ids_for_result(ready: Tool, tmp_path: Path) -> None:
    paths = [clip(tmp_path, 200, f"{number}.flac") for number in range(3)]
    lines = ready("submit", "--tenant", "t1", *paths).splitlines()
    ids = [line.removeprefix("accepted ") for line in lines]
    assert len(set(ids)) == 3
    ready("result", ids[0], "--tenant", "t1", status=1)
    assert "not_found: there is no result" in ready.errors
    with ready.stand_in():
        for path, request_id in zip(paths, ids, strict=True):
            assert ready("result", request_id, "--tenant", "t1", "--wait") == sha256(path) + "\n"
    # Also later, and again.
    assert ready("result", ids[0], "--tenant", "t1") == sha256(paths[0]) + "\n"


def test_json_has_one_object_per_file(ready: Tool, tmp_path: Path) -> None:
    good, bad = clip(tmp_path, 100), tmp_path / "missing.wav"
    output = ready("submit", "--tenant", "t1", "--json", good, bad, status=1)
    accepted, failed = map(json.loads, output.splitlines())
    assert accepted == {"file": str(good), "id": accepted["id"], "status": "accepted"}
    assert failed["status"] == "error"
    assert failed["error"]["code"] == "bad_file"
    with ready.stand_in():
        output = ready("submit", "--tenant", "t1", "--json", "--wait", good)
        done = json.loads(output)
    assert done["text"] == sha256(good)
    assert (done["status"], done["node"], done["delivered"]) == ("ok", "stand-in", 1)


def test_failed_job_ends_with_status_1(ready: Tool, tmp_path: Path) -> None:
    def refuse(request_id: str, _: str) -> dict[str, Any]:
        error = {"code": "bad_audio", "message": "nothing can be decoded"}
        return {"id": request_id, "status": "error", "error": error}

    with ready.stand_in(reply=refuse):
        output = ready("submit", "--tenant", "t1", "--wait", clip(tmp_path, 9), status=1)
    assert output == ""
    assert "bad_audio: nothing can be decoded" in ready.errors


def test_srt_prints_subtitles(ready: Tool, tmp_path: Path) -> None:
    path = clip(tmp_path, 100)
    with ready.stand_in():
        output = ready("submit", "--tenant", "t1", "--wait", "--srt", path)
    assert output == f"1\n00:00:00,000 --> 00:00:01,500\n{sha256(path)}\n\n"


def test_large_result_comes_from_its_object(ready: Tool, tmp_path: Path) -> None:
    text = "word " * 300_000

    def reply(request_id: str, _: str) -> dict[str, Any]:
        return result(request_id, text)

    path = clip(tmp_path, 100)
    with ready.stand_in(reply=reply):
        assert (
            ready("submit", "--tenant", "t1", "--wait", "--id", "a:b.c", path) == text[:-1] + "\n"
        )
    found = json.loads(ready("result", "a:b.c", "--tenant", "t1", "--json"))
    assert found["text"] == text


def test_request_options_are_in_the_header(ready: Tool, tmp_path: Path) -> None:
    raw = clip(tmp_path, 32_000, "a.pcm")
    arguments = (
        "--language de --prompt Käse --words --encoding s16 --sample-rate 16000 --channels 1"
    )
    ready("submit", "--tenant", "t1", *arguments.split(), raw)
    message = ready.jetstream("STREAM.MSG.GET.ASR_JOBS", {"last_by_subj": "asr.job.any.short.t1"})
    import base64

    headers = base64.b64decode(message["message"]["hdrs"]).decode()
    fields = json.loads(headers.partition("Asr-Header: ")[2].partition("\r\n")[0])
    assert headers.isascii()
    assert (fields["language"], fields["prompt"], fields["word-timestamps"]) == ("de", "Käse", True)
    assert (fields["content-type"], fields["sample-rate"]) == ("audio/pcm", 16000)


@pytest.mark.parametrize(("seconds", "expected"), [(10, "short"), (31, "long"), (3600, "long")])
def test_raw_audio_is_classed_by_its_length(seconds: int, expected: str) -> None:
    from queue_tool.submit import job_class_of

    fields = {"content-length": seconds * 8000, "content-encoding": "u8"}
    assert job_class_of({**fields, "sample-rate": 8000, "channels": 1}) == expected


@pytest.mark.parametrize(
    ("encoding", "rate", "size"),
    [("gsm", 8000, 1650), ("g722", 16_000, 8000), ("alaw", 8000, 8000)],
)
def test_telephony_is_classed_by_its_length(encoding: str, rate: int, size: int) -> None:
    from queue_tool.submit import job_class_of

    fields = {"content-encoding": encoding, "sample-rate": rate, "channels": 1}
    assert job_class_of({**fields, "content-length": 29 * size}) == "short"
    assert job_class_of({**fields, "content-length": 31 * size}) == "long"


def test_class_of_the_user_counts(ready: Tool, tmp_path: Path) -> None:
    ready("submit", "--tenant", "t1", "--class", "long", clip(tmp_path, 100))
    ready("submit", "--tenant", "t1", "--class", "short", clip(tmp_path, 600_000), status=1)
    assert "too_large: a job of class short has at most" in ready.errors
    assert json.loads(ready("status", "--json"))["pending"] == 1


def test_stdin_is_submitted(ready: Tool, tmp_path: Path, monkeypatch: Any) -> None:
    path = clip(tmp_path, 5_000)
    with open(path, "rb") as file, ready.stand_in():
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert ready("submit", "--tenant", "t1", "--wait", "-") == sha256(path) + "\n"


def test_bad_header_fails_before_anything_is_sent(ready: Tool, tmp_path: Path) -> None:
    ready("submit", "--tenant", "t1", "--id", "with space", clip(tmp_path, 9), status=1)
    assert "bad_field: id must be" in ready.errors
    ready("submit", "--tenant", "t1", "--language", "x1", clip(tmp_path, 9), status=1)
    assert "bad_field: language" in ready.errors
    assert json.loads(ready("status", "--json"))["jobs"] == 0


def test_upload_is_never_whole_in_memory(ready: Tool, tmp_path: Path) -> None:
    path = clip(tmp_path, 24_000_000)
    tracemalloc.start()
    try:
        ready("submit", "--tenant", "t1", path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
    info = ready.jetstream("STREAM.INFO.OBJ_asr-audio-t1")["state"]
    assert info["messages"] == 24_000_000 // objects.CHUNK_BYTES + 2


# Names and refusals.


def test_unknown_model_is_refused_by_the_broker(ready: Tool, tmp_path: Path) -> None:
    ready("submit", "--tenant", "t1", "--model", "own", clip(tmp_path, 9), status=1)
    assert "model_not_found: no consumer takes jobs for the model own" in ready.errors
    ready("init", "--tenant", "t1", "--model", "own")
    path = clip(tmp_path, 600_000)
    with ready.stand_in(model="own") as worker:
        output = ready("submit", "--tenant", "t1", "--model", "own", "--wait", path)
    assert output == sha256(path) + "\n"
    assert [subject for subject, _ in worker.jobs] == ["asr.job.own.long.t1"]


def test_refused_large_job_leaves_no_audio(ready: Tool, tmp_path: Path) -> None:
    ready("submit", "--tenant", "t1", "--model", "own", clip(tmp_path, 900_000), status=1)
    assert "model_not_found" in ready.errors
    state = ready.jetstream("STREAM.INFO.OBJ_asr-audio-t1")["state"]
    assert state["bytes"] < 2_000


def test_unknown_tenant_is_refused(ready: Tool, tmp_path: Path) -> None:
    ready("submit", "--tenant", "t2", clip(tmp_path, 9), status=1)
    assert "tenant_not_found: the broker has no tenant t2" in ready.errors


def test_model_with_a_quantization_means_the_model(ready: Tool, tmp_path: Path) -> None:
    ready("submit", "--tenant", "t1", "--model", "tiny.en-q8_0", clip(tmp_path, 9))
    rows = [one for one in json.loads(ready("status", "--json"))["consumers"] if one["pending"]]
    assert [(one["model"], one["class"]) for one in rows] == [("tiny.en", "short")]


@pytest.mark.parametrize("size", [300, 700_000])
def test_same_id_with_the_same_audio_is_harmless(ready: Tool, tmp_path: Path, size: int) -> None:
    path = clip(tmp_path, size)
    for _ in range(2):
        assert ready("submit", "--tenant", "t1", "--id", "x.1", path) == "accepted x.1\n"
    assert json.loads(ready("status", "--json"))["jobs"] == 1
    with ready.stand_in() as worker:
        assert ready("result", "x.1", "--tenant", "t1", "--wait") == sha256(path) + "\n"
        # The job is done, and is not run again.
        output = ready("submit", "--tenant", "t1", "--id", "x.1", "--wait", path)
    assert output == sha256(path) + "\n"
    assert len(worker.jobs) == 1


def test_same_id_with_other_audio_is_refused(ready: Tool, tmp_path: Path) -> None:
    first, other = clip(tmp_path, 300), clip(tmp_path, 300, "other.flac")
    ready("submit", "--tenant", "t1", "--id", "x.1", first)
    output = ready("submit", "--tenant", "t1", "--id", "x.1", "--json", other, status=1)
    assert json.loads(output)["error"]["code"] == "duplicate_id"
    # Also once the job is done; and another tenant has ids of its own.
    with ready.stand_in():
        ready("result", "x.1", "--tenant", "t1", "--wait")
    ready("submit", "--tenant", "t1", "--id", "x.1", other, status=1)
    assert "duplicate_id" in ready.errors
    ready("init", "--tenant", "t2")
    ready("submit", "--tenant", "t2", "--id", "x.1", other)


def test_two_clients_with_one_id_at_once_get_one_job(ready: Tool, tmp_path: Path) -> None:
    paths = [clip(tmp_path, 300, f"{number}.flac") for number in range(4)]
    command = [sys.executable, "-m", "queue_tool.cli", "submit", "--queue", ready.url]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"}
    clients = [
        subprocess.Popen(
            [*command, "--tenant", "t1", "--id", "one", str(path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for path in paths
    ]
    ends = [(client.communicate(timeout=HANG), client.returncode) for client in clients]
    assert sorted(status for _, status in ends) == [0, 1, 1, 1]
    assert all("duplicate_id" in text[1] for text, status in ends if status)
    assert json.loads(ready("status", "--json"))["jobs"] == 1


def test_tenant_is_capped(ready: Tool, tmp_path: Path) -> None:
    config = ready.jetstream("STREAM.INFO.ASR_JOBS")["config"]
    ready.jetstream("STREAM.UPDATE.ASR_JOBS", {**config, "max_msgs_per_subject": 2})
    ready("init", "--tenant", "t2")
    files = [clip(tmp_path, 50, f"{number}.flac") for number in range(3)]
    ready("submit", "--tenant", "t1", *files, status=1)
    assert "2.flac: busy: the tenant t1 has as many unfinished short jobs" in ready.errors
    # Neither its other class nor another tenant is affected.
    ready("submit", "--tenant", "t1", "--class", "long", files[2])
    ready("submit", "--tenant", "t2", files[2])


@pytest.mark.parametrize("stream", ["ASR_JOBS", "OBJ_asr-audio-t1"])
def test_full_queue_is_reported(ready: Tool, tmp_path: Path, stream: str) -> None:
    config = ready.jetstream(f"STREAM.INFO.{stream}")["config"]
    ready.jetstream(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": 1_000_000})
    size = 500_000 if stream == "ASR_JOBS" else 2_000_000
    for number in range(3):
        path = clip(tmp_path, size, f"{number}.flac")
        status = 0 if number < 1 and stream == "ASR_JOBS" else 1
        if status == 0 or stream != "ASR_JOBS" or number > 1:
            ready("submit", "--tenant", "t1", path, status=status)
    assert "no_space: " in ready.errors
    if stream != "ASR_JOBS":
        # The chunks that were stored are dropped again.
        assert ready.jetstream(f"STREAM.INFO.{stream}")["state"]["bytes"] < 2_000


# The broker goes away.


def test_submission_survives_a_broker_that_is_killed(
    ready: Tool, broker: Any, tmp_path: Path
) -> None:
    paths = [clip(tmp_path, 600_000, f"{number}.flac") for number in range(12)]
    started = threading.Event()

    def restart() -> None:
        started.wait(HANG)
        broker.kill()
        time.sleep(0.3)
        broker.start()

    thread = threading.Thread(target=restart)
    thread.start()
    original = objects.put

    async def put(*arguments: Any) -> bytes:
        found = await original(*arguments)
        started.set()
        return found

    objects.put = put
    try:
        output = ready("submit", "--tenant", "t1", *paths)
    finally:
        objects.put = original
        started.set()
        thread.join(HANG)
    assert output.count("accepted ") == 12
    assert json.loads(ready("status", "--json"))["jobs"] == 12
    with ready.stand_in():
        for path, line in zip(paths, output.splitlines(), strict=True):
            request_id = line.removeprefix("accepted ")
            assert ready("result", request_id, "--tenant", "t1", "--wait") == sha256(path) + "\n"


def test_waiting_client_finds_a_result_that_came_during_a_break(
    ready: Tool, broker: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    # The live message is lost: the client was not subscribed when it came.
    async def deaf(self: Any) -> None:
        return None

    monkeypatch.setattr(queue_tool.results.Waiting, "start", deaf)
    path = clip(tmp_path, 100)
    with ready.stand_in():
        assert ready("submit", "--tenant", "t1", "--wait", path) == sha256(path) + "\n"


def test_absent_broker_is_reported(tool: Tool, broker: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(queue_tool.broker, "CONNECT_SECONDS", 0.5)
    broker.kill()
    tool("status", status=1)
    assert "unavailable: cannot reach nats://127.0.0.1" in tool.errors


def test_broker_without_jetstream_is_reported(tool: Tool, broker: Any, tmp_path: Path) -> None:
    broker.kill()
    text = broker._config.read_text().splitlines()
    broker._config.write_text("\n".join(line for line in text if "jetstream" not in line))
    broker.start()
    tool("init", status=1)
    assert "JetStream does not answer" in tool.errors or "enable JetStream" in tool.errors


def test_init_removes_audio_that_no_job_names(
    ready: Tool, tmp_path: Path, monkeypatch: Any
) -> None:
    kept = [clip(tmp_path, 700_000, f"{number}.flac") for number in range(2)]
    ready("submit", "--tenant", "t1", "--id", "dead", kept[0])
    bury(ready, "dead")
    ready("submit", "--tenant", "t1", "--id", "waits", kept[1])

    async def break_off(broker: Broker) -> None:
        from app.queue.jetstream import JetStream

        jetstream = JetStream(broker, lambda _: None)
        await jetstream.begin()
        await jetstream.put_object("asr-audio-t1", "lost", b"x" * 900_000, objects.CHUNK_BYTES)
        await jetstream.store(names.chunk_subject("asr-audio-t1", "half"), b"y" * 500_000, {})

    ready.run(break_off)
    # An upload may still be in progress.
    assert "removed" not in ready("init", "--tenant", "t1")
    monkeypatch.setattr(queue_tool.orphans, "OLD_SECONDS", -1.0)
    output = ready("init", "--tenant", "t1")
    assert "removed: audio lost of t1, 900000 bytes that no job names" in output
    assert "removed: an unfinished upload of t1" in output
    assert output.count("removed") == 2
    assert "removed" not in ready("init", "--tenant", "t1")
    ready("dead", "retry", "dead")
    with ready.stand_in():
        for path, request_id in zip(kept, ("dead", "waits"), strict=True):
            assert ready("result", request_id, "--tenant", "t1", "--wait") == sha256(path) + "\n"


# TLS.


@pytest.fixture
def encrypted(make_broker: Any, certificates: Any) -> Any:
    certificate, key = certificates.node
    return make_broker(f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}')


def test_tls_encrypts_the_connection(encrypted: Any, certificates: Any, capsys: Any) -> None:
    tool = Tool(f"tls://localhost:{encrypted.port}", capsys)
    tool("init", "--queue-ca", certificates.ca)
    assert "oldest job: none" in tool("status", "--queue-ca", certificates.ca)


def test_foreign_authority_is_rejected(
    encrypted: Any, certificates: Any, strangers: Any, capsys: Any
) -> None:
    tool = Tool(f"tls://localhost:{encrypted.port}", capsys)
    tool("status", "--queue-ca", strangers.ca, status=1)
    assert "name its authority with --queue-ca" in tool.errors
    tool("status", "--queue-ca", tool_folder := Path("/nowhere"), status=2)
    assert f"cannot use the authority {tool_folder}" in tool.errors


def test_broker_without_tls_is_rejected_before_the_credentials_are_sent(
    broker: Any, certificates: Any, capsys: Any
) -> None:
    tool = Tool(f"tls://localhost:{broker.port}", capsys)
    tool("status", "--queue-ca", certificates.ca, status=1)
    assert "does not require TLS" in tool.errors


# Dead jobs.


def bury(tool: Tool, request_id: str) -> None:
    """Quarantine the oldest short job of t1, as a node does it."""

    async def act(broker: Broker) -> None:
        from app.queue.jetstream import JetStream

        jetstream = JetStream(broker, lambda _: None)
        await jetstream.begin()
        for job_class in names.CLASSES:
            pull = await jetstream.pull(names.consumer("any", job_class), 0.0)
            delivery = await pull.answer
            if delivery is not None:
                break
        assert delivery is not None
        headers = {**delivery.headers, "Asr-Subject": delivery.subject, "Asr-Deaths": "5"}
        headers.pop("Nats-Msg-Id")
        await jetstream.store(names.dead_subject("any"), delivery.data, headers)
        error = {"code": "quarantined", "message": "it ended its node five times"}
        fields = {"id": request_id, "status": "error", "error": error}
        subject = names.result_subject("t1", request_id)
        await jetstream.store(
            subject, json.dumps(fields).encode(), {"Nats-Msg-Id": f"t1/{request_id}/1"}
        )
        await jetstream.ack(delivery)

    tool.run(act)


@pytest.mark.parametrize("size", [400, 1_200_000])
def test_dead_job_keeps_its_audio_and_is_done_after_a_retry(
    ready: Tool, tmp_path: Path, size: int
) -> None:
    path = clip(tmp_path, size)
    ready("submit", "--tenant", "t1", "--id", "p", path)
    bury(ready, "p")
    assert json.loads(ready("status", "--json"))["dead"] == 1
    (dead,) = map(json.loads, ready("dead", "list", "--json").splitlines())
    job_class = "short" if size < names.SHORT_BYTES else "long"
    assert (dead["id"], dead["tenant"], dead["class"]) == ("p", "t1", job_class)
    assert (dead["bytes"], dead["deaths"]) == (size, 5)
    assert "p" in ready("dead", "list")
    ready("result", "p", "--tenant", "t1", status=1)
    assert "quarantined" in ready.errors
    assert ready("dead", "retry", "p") == "p: submitted again\n"
    with ready.stand_in() as worker:
        assert ready("result", "p", "--tenant", "t1", "--wait") == sha256(path) + "\n"
    assert len(worker.jobs) == 1
    assert ready("dead", "list", "--json") == ""


def test_dropped_dead_job_takes_its_audio_along(ready: Tool, tmp_path: Path) -> None:
    ready("submit", "--tenant", "t1", "--id", "p", clip(tmp_path, 1_200_000))
    bury(ready, "p")
    assert ready.jetstream("STREAM.INFO.OBJ_asr-audio-t1")["state"]["bytes"] > 1_200_000
    assert ready("dead", "drop", "p") == "p: dropped\n"
    assert ready.jetstream("STREAM.INFO.OBJ_asr-audio-t1")["state"]["bytes"] < 2_000
    assert json.loads(ready("status", "--json"))["dead"] == 0
    ready("dead", "drop", "p", "q", status=1)
    assert ready.errors.count("not_found: no dead job") == 2


# status and the command line.


def test_status_counts_pending_held_and_oldest(ready: Tool, tmp_path: Path) -> None:
    assert "oldest job: none" in ready("status")
    ready("submit", "--tenant", "t1", *(clip(tmp_path, 9, f"{n}.flac") for n in range(3)))

    async def hold(broker: Broker) -> None:
        from app.queue.jetstream import JetStream

        jetstream = JetStream(broker, lambda _: None)
        await jetstream.begin()
        pull = await jetstream.pull("any-short", 0.0)
        assert await pull.answer is not None

    ready.run(hold)
    found = json.loads(ready("status", "--json"))
    assert (found["jobs"], found["pending"], found["held"], found["dead"]) == (3, 2, 1, 0)
    assert 0 <= found["oldest_seconds"] < HANG
    text = ready("status")
    assert [line.split()[:4] for line in text.splitlines()[1:2]] == [["any", "short", "2", "1"]]


def test_status_of_a_broker_without_a_queue_says_what_to_do(tool: Tool) -> None:
    tool("status", status=1)
    assert "run scripts/queue init" in tool.errors


def test_broker_options_stand_anywhere(ready: Tool, tmp_path: Path) -> None:
    path = str(clip(tmp_path, 9))
    for position in range(5):
        arguments = ["submit", "--tenant", "t1", path]
        arguments[position:position] = ["--queue", ready.url]
        assert cli.main(arguments) == 0
    assert json.loads(ready("status", "--json"))["jobs"] == 5


def test_options_come_from_variables(ready: Tool, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("NODE_WHISPER_QUEUE", ready.url)
    monkeypatch.setenv("NODE_WHISPER_QUEUE_TENANT", "t1")
    assert cli.main(["submit", str(clip(tmp_path, 9))]) == 0
    # A flag beats its variable.
    monkeypatch.setenv("NODE_WHISPER_QUEUE", "nats://127.0.0.1:1")
    ready("status")


def test_tool_loads_only_the_packages_of_its_requirements() -> None:
    code = "import queue_tool.cli, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "nats" in done.stdout.split()
    assert not {"numpy", "structlog", "soundfile", "h11"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["launch"], "'launch' is not one of init, submit"),
        (["status", "--queue", "nats://me:secret@h"], "--queue-credentials"),
        (["status", "--queue", "http://h"], "is not an address"),
        (["status", "--queue-credentials", "/nowhere"], "cannot read /nowhere"),
        (["submit", "--tenant", "a.b", "x"], "is not 1 to 32 of"),
        (["submit", "--id", "x", "a", "b"], "take one FILE"),
        (["submit", "--srt", "a"], "add --wait"),
        (["submit", "--class", "urgent", "a"], "invalid choice: 'urgent'"),
        (["dead", "retry"], "needs an ID"),
        (["dead", "list", "x"], "list takes no ID"),
    ],
)
def test_wrong_command_lines_end_with_status_2(
    arguments: list[str], message: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "secret" not in errors


def test_help_names_every_command(capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["-h"])
    assert not end.value.code
    text = capsys.readouterr().out
    assert all(command in text for command in cli.COMMANDS)
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit) as end:
            cli.main([command, "-h"])
        assert not end.value.code


def test_credentials_that_others_can_read_are_warned_of(
    ready: Tool, tmp_path: Path, capsys: Any
) -> None:
    path = tmp_path / "user"
    path.write_text("a:b")
    path.chmod(0o644)
    ready("status", "--queue-credentials", path)
    assert f"other users can read {path}: run chmod 600" in ready.errors


def test_key_is_secret_and_never_overwritten(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "user.nk"
    assert cli.main(["key", str(path)]) == 0
    assert capsys.readouterr().out.startswith("U")
    assert path.stat().st_mode & 0o777 == 0o600
    seed = path.read_text()
    assert cli.main(["key", str(path)]) == 1
    assert path.read_text() == seed


def test_interrupted_upload_drops_its_chunks(ready: Tool, tmp_path: Path) -> None:
    path = clip(tmp_path, 40_000_000)
    command = [sys.executable, "-m", "queue_tool.cli", "submit", "--queue", ready.url]
    client = subprocess.Popen(
        [*command, "--tenant", "t1", str(path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"},
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + HANG
    while ready.jetstream("STREAM.INFO.OBJ_asr-audio-t1")["state"]["bytes"] < 1_000_000:
        assert time.monotonic() < end
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=HANG)
    state = ready.jetstream("STREAM.INFO.OBJ_asr-audio-t1")["state"]
    if client.returncode == 130:
        assert b"interrupted" in errors
        assert state["bytes"] < 2_000
    else:
        # The upload was complete before the signal came.
        assert json.loads(ready("status", "--json"))["jobs"] == 1


@pytest.mark.parametrize("size", [300, 700_000])
def test_lost_acknowledgement_keeps_the_job_and_its_audio(
    ready: Tool, tmp_path: Path, monkeypatch: Any, size: int
) -> None:
    """The broker stores the job, but the answer is lost: the next attempt is a duplicate."""
    original = queue_tool.broker.Broker.request
    lost: list[str] = []

    async def request(self: Any, subject: str, *arguments: Any, **options: Any) -> Any:
        reply = await original(self, subject, *arguments, **options)
        if subject.startswith("asr.job.") and not lost:
            lost.append(subject)
            raise asyncio.TimeoutError
        return reply

    monkeypatch.setattr(queue_tool.broker.Broker, "request", request)
    path = clip(tmp_path, size)
    assert ready("submit", "--tenant", "t1", "--id", "once", path) == "accepted once\n"
    assert len(lost) == 1
    assert json.loads(ready("status", "--json"))["jobs"] == 1
    with ready.stand_in():
        assert ready("result", "once", "--tenant", "t1", "--wait") == sha256(path) + "\n"


def test_broker_that_starts_again_is_not_taken_for_an_unknown_model(
    ready: Tool, tmp_path: Path, monkeypatch: Any
) -> None:
    """After a lost answer, a broker without streams yet says nothing about the model."""
    original = queue_tool.broker.Broker.request
    attempts: list[str] = []

    async def request(self: Any, subject: str, *arguments: Any, **options: Any) -> Any:
        if not subject.startswith("asr.job."):
            return await original(self, subject, *arguments, **options)
        attempts.append(subject)
        if 2 <= len(attempts) <= 6:
            raise queue_tool.broker.NoResponder(subject)
        reply = await original(self, subject, *arguments, **options)
        if len(attempts) == 1:
            raise asyncio.TimeoutError
        return reply

    monkeypatch.setattr(queue_tool.broker.Broker, "request", request)
    path = clip(tmp_path, 700_000)
    assert ready("submit", "--tenant", "t1", "--id", "once", path) == "accepted once\n"
    assert len(attempts) == 7
    with ready.stand_in():
        assert ready("result", "once", "--tenant", "t1", "--wait") == sha256(path) + "\n"
