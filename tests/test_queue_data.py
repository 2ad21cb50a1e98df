"""The data of the queue: names, jobs, results and limits, without a broker."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.messages import Failure
from app.monitoring.queue_metrics import queue_families
from app.queue import limits, names
from app.queue.events import Counts
from app.queue.job import (
    HEADER,
    MAX_HEADER_BYTES,
    MESSAGE_ID,
    OBJECT,
    SENT,
    Job,
    JobError,
    Refused,
    job_headers,
    read_job,
)
from app.queue.names import Address, escape, unescape
from app.queue.result import decode_result, encode_result, result_fields

_HELD = "node_whisper_jobs_held"
ADDRESS = Address("tiny.en", "short", "t1")
MAX_BODY = 1 << 20


def fields(size: int = 9, **more: Any) -> dict[str, Any]:
    return {
        "id": "a.b:c",
        "byteorder": "little",
        "content-type": "audio/flac",
        "content-encoding": "",
        "content-length": size,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


LIVE = {
    **{name: value for name, value in fields().items() if name != "content-length"},
    "live": True,
    "reply": "segments",
    "content-type": "audio/pcm",
    "content-encoding": "s16",
    "sample-rate": 16_000,
    "channels": 1,
}


def read(headers: dict[str, str], size: int = 9, address: Address = ADDRESS) -> Job | Refused:
    return read_job(names.job_subject(address), headers, size, 7, MAX_BODY)


def headers_of(address: Address = ADDRESS, **more: Any) -> dict[str, str]:
    return job_headers(fields(**more), address, sent_at=12.5, max_body=MAX_BODY)


# Names.


@given(st.text(min_size=1))
def test_escaped_names_are_one_token_and_come_back(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return  # no text
    token = escape(name)
    assert unescape(token) == name
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=")


def test_escape_is_what_the_documentation_says() -> None:
    assert escape("tiny.en") == "tiny=2Een"
    assert escape("a=b") == "a=3Db"
    assert escape("ü") == "=C3=BC"


@pytest.mark.parametrize("token", ["", "a.b", "a=2e", "a=2", "=41", "a b", "=FF"])
def test_unescape_rejects_other_tokens(token: str) -> None:
    with pytest.raises(ValueError, match=r"not an escaped name|decode"):
        unescape(token)


def test_job_subjects_come_back() -> None:
    assert names.job_subject(ADDRESS) == "asr.job.tiny=2Een.short.t1"
    assert names.parse_job_subject(names.job_subject(ADDRESS)) == ADDRESS
    assert names.consumer("tiny.en", "long") == "tiny=2Een-long"


@pytest.mark.parametrize("subject", ["asr.job.a.short", "asr.job.a.wide.t", "x.job.a.short.t"])
def test_other_subjects_are_no_jobs(subject: str) -> None:
    with pytest.raises(ValueError, match="not the subject of a job"):
        names.parse_job_subject(subject)


def test_tenants_have_up_to_32_safe_characters() -> None:
    assert names.is_tenant("a")
    assert names.is_tenant("A-9_" * 8)
    assert not any(map(names.is_tenant, ("", "a" * 33, "a.b", "a b", "ä", "a\n")))


def test_models_share_jobs_regardless_of_quantization() -> None:
    assert names.queue_model("tiny.en-q8_0") == names.queue_model("tiny.en") == "tiny.en"
    assert names.queue_model("own-model") == "own-model"


# Jobs.


def test_job_comes_back_as_it_was_submitted() -> None:
    job = read(headers_of(prompt="Grüße\nan 日本", word_timestamps=True, language="en"))
    assert isinstance(job, Job)
    assert (job.address, job.sent_at, job.object_name, job.size) == (ADDRESS, 12.5, None, 9)
    assert (job.request.id, job.request.prompt) == ("a.b:c", "Grüße\nan 日本")
    assert job.request.word_timestamps


def test_headers_are_ascii_and_name_the_message() -> None:
    headers = headers_of(prompt="Grüße")
    assert headers[HEADER].isascii()
    assert headers[MESSAGE_ID] == "t1/a.b:c"
    assert headers[SENT] == "12.500"


def test_large_audio_is_named() -> None:
    long = Address("any", "long", "t1")
    headers = job_headers(fields(900_000), long, sent_at=1, max_body=MAX_BODY, object_name="o1")
    job = read(headers, 0, long)
    assert isinstance(job, Job)
    assert (job.object_name, job.size) == ("o1", 900_000)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"language": 5}, "bad_field"),
        ({"size": MAX_BODY + 1}, "too_large"),
        ({"size": names.SHORT_BYTES + 1}, "too_large"),
        ({"prompt": "\x01" * 16_000}, "too_large"),
    ],
)
def test_submitter_rejects_what_a_node_would(more: dict[str, Any], code: str) -> None:
    with pytest.raises(JobError) as caught:
        headers_of(**more)
    assert caught.value.failure.code == code
    assert len(json.dumps(fields())) < MAX_HEADER_BYTES


@pytest.mark.parametrize(
    ("headers", "request_id", "code"),
    [
        ({}, "job-7", "bad_header"),
        ({HEADER: "{"}, "job-7", "bad_header"),
        ({HEADER: "{", MESSAGE_ID: "t1/from-message"}, "from-message", "bad_header"),
        ({HEADER: "{", MESSAGE_ID: "t2/from-message"}, "job-7", "bad_header"),
        ({HEADER: json.dumps(fields(language=5))}, "a.b:c", "bad_field"),
        ({HEADER: json.dumps({"id": "x"})}, "x", "missing_field"),
        ({HEADER: json.dumps(LIVE)}, "a.b:c", "bad_field"),
        ({HEADER: json.dumps(fields(size=8))}, "a.b:c", "incomplete"),
        ({HEADER: json.dumps(fields(size=MAX_BODY + 1)), OBJECT: "o"}, "a.b:c", "too_large"),
        ({HEADER: json.dumps(fields(size=500_000)), OBJECT: "o"}, "a.b:c", "too_large"),
    ],
)
def test_message_that_is_no_job_has_an_outcome(
    headers: dict[str, str], request_id: str, code: str
) -> None:
    refused = read(headers)
    assert isinstance(refused, Refused)
    assert (refused.tenant, refused.request_id, refused.failure.code) == ("t1", request_id, code)


@pytest.mark.parametrize("sent", ["", "soon", "nan", "-1", "1e300"])
def test_time_of_submission_may_be_unreadable(sent: str) -> None:
    job = read(headers_of() | {SENT: sent})
    assert isinstance(job, Job)
    assert job.sent_at is None


# Results.


def test_result_is_the_native_reply_with_its_node() -> None:
    record = result_fields("a", Failure("bad_audio", "no"), "node-1", 2)
    assert decode_result(encode_result(record)) == {
        "id": "a",
        "status": "error",
        "error": {"code": "bad_audio", "message": "no"},
        "node": "node-1",
        "delivered": 2,
    }


# Limits.


def lasts(age: float) -> float:
    return float("inf") if age == limits.FOREVER else age


def test_audio_outlives_every_job_that_names_it() -> None:
    set_by_init = limits.LIMITS
    waiting, dead = lasts(set_by_init.jobs.max_age), lasts(set_by_init.dead.max_age)
    assert lasts(set_by_init.audio.max_age) >= waiting + dead
    assert lasts(set_by_init.handed_back.max_age) >= waiting
    assert lasts(set_by_init.large_results.max_age) > lasts(set_by_init.results.max_age)


def test_no_job_leaves_in_silence() -> None:
    set_by_init = limits.LIMITS
    assert set_by_init.jobs.max_age == set_by_init.dead.max_age == limits.FOREVER
    assert set_by_init.jobs.discard == set_by_init.dead.discard == "new"
    assert set_by_init.consumer.max_deliver == -1


def test_streams_fit_a_broker_with_a_small_card() -> None:
    streams = limits.LIMITS.streams
    assert len({stream.name for stream in streams}) == 5
    assert sum(stream.max_bytes for stream in streams) <= 2 << 30


# Metrics.


def test_metrics_of_the_queue_are_documented() -> None:
    counts = Counts(connected=True)
    counts.held["long"] = 2
    found = {family.name: family for family in queue_families(counts)}
    docs = (Path(__file__).parent.parent / "docs" / "http.md").read_text()
    assert [name for name in found if f"`{name}" not in docs] == []
    held = {sample.labels["class"]: sample.value for sample in found[_HELD].samples}
    assert held == {"short": 0, "long": 2}
    assert found["node_whisper_broker_connected"].samples[0].value == 1


def test_broker_that_never_answered_is_silent_since_the_start() -> None:
    counts = Counts(started_at=time.monotonic() - 100)
    families = {family.name: family for family in queue_families(counts)}
    assert families["node_whisper_broker_silent_seconds"].samples[0].value >= 100
