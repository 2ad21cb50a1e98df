"""Nodes that take jobs from a real broker, with fake engines in this process."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="requirements-queue.txt is not installed")

from broker import Broker
from cluster import Admin, queue_parts
from fakes import (
    HANG,
    RATE,
    RAW,
    FakeEngine,
    Node,
    count_samples,
    eventually,
    hypothesis_of,
    pcm,
    text_or_code,
)

from app.queue import names
from app.queue.limits import MAX_DEATHS, SUSPECT_DEATHS
from app.storage.spool import Spool

MakeNode = Callable[..., Node]


@pytest.fixture
def admin(broker: Broker) -> Iterator[Admin]:
    admin = Admin(broker.url)
    admin.init()
    yield admin
    admin.close()


@pytest.fixture
def make(
    make_node: MakeNode, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Node]:
    """Start nodes that take jobs."""
    # A node that ends waits for its last requests.
    monkeypatch.setattr("app.queue.places.WAIT_SECONDS", 0.2)
    monkeypatch.setattr("app.queue.jetstream._LATE_SECONDS", 0.1)

    def start(engine: FakeEngine | None = None, places: int = 3, **more: Any) -> Node:
        queue = queue_parts(broker.url, places, **more.pop("thread", {}))
        return make_node(engine, queue=queue, **more)

    return start


def all_done(admin: Admin) -> Callable[[], bool]:
    return lambda: admin.count(names.JOBS) == 0


def test_job_has_a_line_then_a_result_and_leaves_the_queue(admin: Admin, make: Any) -> None:
    node = make()
    admin.submit_samples("a", 3000, word_timestamps=False)
    result = admin.wait_for("a")
    assert (result["text"], result["status"]) == ("3000", "ok")
    assert (result["node"], result["delivered"]) == ("test:1", 1)
    line = node.lines.wait_for("a")
    assert (line["text"], line["peer"], line["delivered"]) == ("3000", "queue/t1", 1)
    eventually(all_done(admin), "an empty queue")
    eventually(lambda: node.server.load.admitted == 0, "a free place")


def test_jobs_are_shared_by_three_nodes_and_done_once(admin: Admin, make: Any) -> None:
    nodes = [make() for _ in range(3)]
    sizes = {f"j{number}": 2000 + number for number in range(200)}
    for request_id, size in sizes.items():
        admin.submit_samples(request_id, size, model="any" if size % 2 else "fake.en")
    texts = {request_id: admin.wait_for(request_id)["text"] for request_id in sizes}
    assert texts == {request_id: str(size) for request_id, size in sizes.items()}
    eventually(all_done(admin), "an empty queue")
    lines = [line for node in nodes for line in node.lines.written]
    assert sorted(line["id"] for line in lines) == sorted(sizes)
    assert all(node.lines.written for node in nodes)


def test_large_audio_comes_in_chunks_and_is_deleted(admin: Admin, make: Any) -> None:
    node = make()
    body = pcm(3_000_000)  # 6 MB, so that it goes to a file
    admin.submit("big", body, job_class="long")
    assert admin.wait_for("big")["text"]
    eventually(lambda: admin.audio() == [], "deleted audio")
    assert admin.audio_bytes() < 2000
    assert node.queue.counts.fetched_bytes == len(body)


def test_segments_are_published_while_the_job_is_done(admin: Admin, make: Any) -> None:
    heard = admin.listen("asr.segment.t1.*")
    make()
    admin.submit_samples("s", 3000, reply="segments")
    admin.wait_for("s")
    eventually(lambda: heard, "a segment")
    assert heard[0]["segment"]["text"] == "3000"
    assert (heard[0]["id"], heard[0]["status"]) == ("s", "segment")


def test_result_over_the_limit_of_a_message_is_an_object(admin: Admin, make: Any) -> None:
    text = "word " * 150_000
    make(FakeEngine(lambda samples, _: hypothesis_of(text, len(samples) / RATE)))
    admin.submit_samples("large", 3000)
    assert admin.wait_for("large")["text"].strip() == text.strip()
    stored = admin.messages(names.RESULTS)
    assert [message.data for message in stored] == [None]


# Jobs that cannot be done have an outcome.


def outcome_of(admin: Admin, node: Node, request_id: str) -> str:
    """The code of a job's failure, which must be on stdout and stored, its job gone."""
    result = admin.wait_for(request_id)
    line = node.lines.wait_for(request_id)
    assert line["error"] == result["error"]
    eventually(all_done(admin), "an empty queue")
    code: str = result["error"]["code"]
    return code


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Asr-Header": "{"}, "bad_header"),
        ({"Asr-Header": '{"id": "wrong", "content-length": 3}'}, "missing_field"),
        ({"Asr-Header": '{"id": "wrong"}', "Status": "404"}, "missing_field"),
    ],
)
def test_wrong_header_is_a_result(
    admin: Admin, make: Any, headers: dict[str, str], code: str
) -> None:
    node = make()
    admin.publish("asr.job.any.short.t1", b"abc", {**headers, "Nats-Msg-Id": "t1/wrong/x"})
    assert outcome_of(admin, node, "wrong") == code


def test_message_without_headers_is_a_result(admin: Admin, make: Any) -> None:
    node = make()
    admin.publish("asr.job.any.short.t1", b"abc", {})
    assert outcome_of(admin, node, "job-1") == "bad_header"


def test_empty_message_that_looks_like_a_status_is_a_result(admin: Admin, make: Any) -> None:
    node = make()
    admin.publish("asr.job.any.short.t1", b"", {"Status": "408", "Description": "no"})
    assert outcome_of(admin, node, "job-1") == "bad_header"


def test_field_that_the_model_cannot_serve_is_a_result(admin: Admin, make: Any) -> None:
    node = make()
    admin.submit_samples("german", 3000, language="de")
    assert outcome_of(admin, node, "german") == "bad_field"


def test_audio_that_cannot_be_decoded_is_a_result(admin: Admin, make: Any) -> None:
    node = make()
    admin.submit("noise", b"no audio" * 100, content_type="audio/flac")
    assert outcome_of(admin, node, "noise") in ("bad_audio", "unsupported_media_type")


def test_audio_that_is_gone_is_a_result(admin: Admin, make: Any) -> None:
    admin.submit("gone", pcm(300_000), job_class="long", as_object=True)
    admin.delete_audio("gone")
    node = make()
    assert outcome_of(admin, node, "gone") == "incomplete"


def test_audio_with_another_digest_is_a_result(admin: Admin, make: Any) -> None:
    body = pcm(300_000)
    admin.submit("bent", body, job_class="long", as_object=True)
    admin.damage_audio("bent")
    node = make()
    assert outcome_of(admin, node, "bent") == "incomplete"
    assert node.engine.calls == []


def test_audio_of_another_size_than_announced_is_a_result(admin: Admin, make: Any) -> None:
    admin.submit("size", pcm(300_000), job_class="long", as_object=True)
    admin.put_audio("size", pcm(1000))
    node = make()
    assert outcome_of(admin, node, "size") == "incomplete"


def test_audio_over_the_limit_is_not_fetched(admin: Admin, make: Any) -> None:
    admin.submit("huge", pcm(300_000), job_class="long", as_object=True)
    node = make(thread={"max_body": 100_000})
    assert outcome_of(admin, node, "huge") == "too_large"
    assert node.queue.counts.fetched_bytes == 0


def test_long_audio_in_the_class_of_short_jobs_is_refused(admin: Admin, make: Any) -> None:
    """The submitter's library refuses it, so it comes from another one."""
    body = pcm(300_000)
    admin.put_audio("sly", body)
    header = json.dumps({**RAW, "id": "sly", "content-length": len(body)})
    admin.publish("asr.job.any.short.t1", b"", {"Asr-Header": header, "Asr-Object": "sly"})
    node = make()
    assert outcome_of(admin, node, "sly") == "too_large"


# Places.


def test_node_holds_no_more_jobs_than_places(admin: Admin, make: Any) -> None:
    node = make(places=3)
    node.engine.hold()
    for number in range(10):
        admin.submit_samples(f"s{number}", 2000)
        admin.submit_samples(f"l{number}", 2000, job_class="long")
    eventually(lambda: node.server.load.admitted == 3, "three jobs")
    time.sleep(0.3)  # a fourth would come within milliseconds
    assert node.server.load.admitted == 3
    assert all(1 <= number <= 2 for number in node.queue.counts.held.values())
    node.engine.release()
    eventually(all_done(admin), "an empty queue")


def test_short_job_begins_within_two_windows_of_long_ones(admin: Admin, make: Any) -> None:
    node = make()
    node.engine.hold()
    long = pcm(120 * RATE)
    for number in range(6):
        admin.submit(f"l{number}", long, job_class="long")
    node.engine.wait_for_calls(1)
    before = len(node.engine.calls)
    admin.submit_samples("command", 2000)
    eventually(lambda: node.queue.counts.held["short"] == 1, "the command")
    eventually(lambda: node.server.load.queued_seconds > 0)
    time.sleep(0.1)  # the job's way from the queue thread to the worker
    while not any(len(samples) == 2000 for samples, _ in node.engine.calls):
        node.engine.step()
        assert len(node.engine.calls) <= before + 3
        time.sleep(0.02)
    assert len([call for call in node.engine.calls[before:] if len(call[0]) > 2000]) <= 2
    node.engine.release()
    admin.wait_for("command")


def test_long_jobs_are_done_although_short_ones_keep_coming(admin: Admin, make: Any) -> None:
    make(places=2)
    for number in range(40):
        admin.submit_samples(f"s{number}", 2000)
    admin.submit_samples("long", 2000, job_class="long")
    assert admin.wait_for("long")["text"] == "2000"


def test_single_place_serves_both_classes(admin: Admin, make: Any) -> None:
    make(places=1)
    admin.submit_samples("s", 2000)
    admin.submit_samples("l", 3000, job_class="long")
    assert (admin.wait_for("s")["text"], admin.wait_for("l")["text"]) == ("2000", "3000")


def test_node_without_free_places_asks_for_nothing(admin: Admin, make: Any) -> None:
    node = make(queue_size=1)
    node.engine.hold()
    with node.connect() as client:
        client.request(pcm(2000), id="own")
        node.engine.wait_for_calls(1)
        admin.submit_samples("job", 3000)
        time.sleep(0.5)  # the job would come within milliseconds
        assert node.queue.counts.deliveries == 0
        node.engine.release()
        assert text_or_code(client.reply()) == "2000"
    assert admin.wait_for("job")["text"] == "3000"


# Hand-backs and deaths.


class FullSpool(Spool):
    """A spool on a full disk."""

    def create(self, size: int | None) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")


def full(disk: Any) -> Spool:
    return FullSpool(Path("/var/tmp"), disk)


def test_node_with_a_full_spool_quarantines_nothing(
    admin: Admin, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.sources.queue._PAUSE_SECONDS", 0.02)
    node = make(make_spool=full)
    admin.submit_samples("a", 3000)
    eventually(lambda: node.queue.counts.handed_back > 2 * MAX_DEATHS, "many hand-backs")
    assert admin.count(names.DEAD) == 0
    make()
    assert admin.wait_for("a")["text"] == "3000"
    assert node.lines.of("a") == []


def test_large_job_that_the_disk_cannot_take_is_handed_back(admin: Admin, make: Any) -> None:
    admin.submit("big", pcm(2_500_000), job_class="long")
    node = make(make_spool=lambda disk: Spool(Path("/no/such/directory"), disk))
    eventually(lambda: node.queue.counts.handed_back == 1, "a hand-back")
    assert node.server.load.admitted == 0
    assert node.server.load.buffered_bytes == 0
    assert node.lines.of("big") == []
    assert admin.audio() == ["big"]


def test_node_without_space_stops_asking_for_that_class(admin: Admin, make: Any) -> None:
    node = make(make_spool=full)
    admin.submit_samples("a", 3000, job_class="long")
    eventually(lambda: node.queue.counts.handed_back == 1, "a hand-back")
    time.sleep(1.0)  # until the open requests for jobs have ended
    admin.submit_samples("b", 3000, job_class="long")
    time.sleep(0.5)  # it would come within milliseconds
    assert node.queue.counts.deliveries == 1


def test_drained_node_hands_a_long_job_to_the_next(admin: Admin, make: Any) -> None:
    first = make()
    first.engine.hold()
    admin.submit("long", pcm(120 * RATE), job_class="long")
    first.engine.wait_for_calls(1)
    second = make()
    first.server.shutdown.ask()
    second.engine.wait_for_calls(1)
    # The first node's open requests for jobs may bring it back there once more.
    assert admin.wait_for("long")["delivered"] >= 2
    first.engine.release()
    first.wait_until_stopped()
    assert first.lines.of("long") == []
    assert len(second.lines.of("long")) == 1


def test_drained_node_finishes_a_short_job(admin: Admin, make: Any) -> None:
    node = make()
    node.engine.hold()
    admin.submit_samples("short", 2000)
    node.engine.wait_for_calls(1)
    node.server.shutdown.ask()
    eventually(lambda: node.server.shutdown.draining)
    node.engine.release()
    node.wait_until_stopped()
    assert admin.wait_for("short")["delivered"] == 1
    eventually(all_done(admin), "an empty queue")


def test_short_job_that_outlasts_the_drain_is_handed_back(admin: Admin, make: Any) -> None:
    first = make(drain_seconds=0.1)
    first.engine.hold()
    admin.submit_samples("short", 2000)
    first.engine.wait_for_calls(1)
    first.server.shutdown.ask()
    first.wait_until_stopped()
    make()
    assert admin.wait_for("short")["delivered"] >= 2
    assert first.lines.of("short") == []


def test_job_drained_ten_times_is_done(admin: Admin, make: Any) -> None:
    admin.submit_samples("weary", 2000, job_class="long")
    for _ in range(10):
        node = make()
        node.engine.hold()
        node.engine.wait_for_calls(1)
        node.server.shutdown.ask()
        node.wait_until_stopped()
        node.stop()
    make()
    assert admin.wait_for("weary")["delivered"] > 10
    assert admin.count(names.DEAD) == 0


@pytest.mark.parametrize("as_object", [False, True])
def test_job_that_five_nodes_died_of_is_quarantined(
    broker: Broker, make: Any, as_object: bool
) -> None:
    admin = Admin(broker.url, ack_wait=0.2)
    try:
        admin.init()
        admin.submit("poison", pcm(3000), job_class="long", as_object=as_object)
        for _ in range(MAX_DEATHS):
            admin.pull(names.consumer("any", "long"))  # and never answer
        admin.submit_samples("other", 4000, job_class="long")
        node = make()
        assert outcome_of(admin, node, "poison") == "quarantined"
        assert admin.wait_for("other")["text"] == "4000"
        [dead] = admin.messages(names.DEAD)
        assert dead.subject == "asr.dead.any"
        assert (dead.headers["Asr-Subject"], dead.headers["Asr-Deaths"]) == (
            "asr.job.any.long.t1",
            "5",
        )
        assert json.loads(dead.headers["Asr-Header"])["id"] == "poison"
        assert (dead.data or b"") == (b"" if as_object else pcm(3000))
        assert admin.audio() == (["poison"] if as_object else [])
        assert [len(samples) for samples, _ in node.engine.calls] == [4000]
    finally:
        admin.close()


def test_hand_backs_are_subtracted_from_deaths(broker: Broker, make: Any) -> None:
    """Four deaths and six hand-backs: the job is done."""
    admin = Admin(broker.url, ack_wait=0.2)
    try:
        admin.init()
        admin.submit("tried", pcm(3000), job_class="long")
        for _ in range(MAX_DEATHS - 1):
            admin.pull(names.consumer("any", "long"))
        for _ in range(6):
            node = make()
            node.engine.hold()
            node.engine.wait_for_calls(1)
            node.server.shutdown.ask()
            node.wait_until_stopped()
            node.stop()
        make()
        assert admin.wait_for("tried")["delivered"] > 10
        assert admin.count(names.DEAD) == 0
    finally:
        admin.close()


def test_job_that_two_nodes_died_of_is_done_alone(broker: Broker, make: Any) -> None:
    """It waits for the jobs that are held, and no other comes beside it."""
    admin = Admin(broker.url, ack_wait=0.3)
    try:
        admin.init()
        admin.submit_samples("suspect", 3000)
        for _ in range(SUSPECT_DEATHS):
            admin.pull(names.consumer("any", "short"))
        node = make()
        node.engine.hold()
        admin.submit_samples("before", 4000, job_class="long")
        node.engine.wait_for_calls(1)
        eventually(lambda: node.queue.counts.held["short"] == 1, "the suspect")
        admin.submit_samples("after", 5000)
        time.sleep(0.6)  # it would come within milliseconds
        assert node.server.load.admitted == 1
        node.engine.release()
        assert admin.wait_for("suspect")["text"] == "3000"
        assert admin.wait_for("after")["text"] == "5000"
        assert [len(samples) for samples, _ in node.engine.calls][-1] == 5000
        assert admin.count(names.DEAD) == 0
    finally:
        admin.close()


def test_message_of_a_wrong_subject_leaves_the_queue(admin: Admin, make: Any) -> None:
    make()
    admin.publish("asr.job.any.short.a=2Eb", b"x", {})
    eventually(all_done(admin), "an empty queue")
    eventually(lambda: admin.count(names.DEAD) == 1, "a dead message")


# Leases.


def test_job_that_comes_again_to_its_holder_is_done_once(broker: Broker, make: Any) -> None:
    """Its lease runs out here: heartbeats come every ten seconds."""
    admin = Admin(broker.url, ack_wait=0.2)
    try:
        admin.init()
        node = make()
        node.engine.hold()
        admin.submit_samples("slow", 3000)
        eventually(lambda: node.queue.counts.redeliveries >= 2, "a redelivery")
        node.engine.release()
        admin.wait_for("slow")
        eventually(all_done(admin), "an empty queue")
        assert len(node.engine.calls) == len(node.lines.of("slow")) == 1
        assert admin.count(names.DEAD) == 0
    finally:
        admin.close()


def test_hung_node_loses_its_job_and_its_late_result(
    broker: Broker, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.queue.heartbeat.SECONDS", 0.05)
    admin = Admin(broker.url, ack_wait=1.0)
    hang = threading.Event()

    def hanging(samples: Any, options: Any) -> Any:
        hang.wait(HANG)
        return count_samples(samples, options)

    try:
        admin.init()
        first = make(FakeEngine(hanging))
        admin.submit_samples("stuck", 3000)
        first.engine.wait_for_calls(1)
        # It asks for no other job, and hands back what its open requests still bring.
        eventually(lambda: not first.queue._leases.open, "a node that gave up")
        admin.submit_samples("next", 4000)
        second = make()
        assert admin.wait_for("stuck")["delivered"] >= 2
        assert admin.wait_for("next")["text"] == "4000"
        hang.set()
        first.lines.wait_for("stuck")
        eventually(lambda: first.queue.counts.duplicate_results == 1, "a dropped result")
        assert len(second.lines.of("stuck")) == 1
        eventually(all_done(admin), "an empty queue")
        assert admin.count(names.RESULTS) == 2
    finally:
        hang.set()
        admin.close()


def test_heartbeat_keeps_a_job_that_waits_for_the_engine(
    broker: Broker, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.queue.heartbeat.SECONDS", 0.05)
    admin = Admin(broker.url, ack_wait=1.0)
    try:
        admin.init()
        node = make()
        node.engine.hold()
        admin.submit_samples("a", 3000)
        admin.submit_samples("b", 3000)
        node.engine.wait_for_calls(1)
        time.sleep(2.5)  # two and a half leases
        node.engine.release()
        assert (admin.wait_for("a")["delivered"], admin.wait_for("b")["delivered"]) == (1, 1)
        assert node.queue.counts.redeliveries == 0
    finally:
        admin.close()
