"""Bodies of uploads: forms, the audio itself, JSON with base64, and whisper-asr-webservice's
routes."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from fakes import transcript_of
from forms import BOUNDARY, INFERENCE, TRANSCRIPTIONS, form, post, request
from http_peer import AUDIO, SITE, Peer, ask
from hypothesis import given, settings
from hypothesis import strategies as st

from app.messages import RawFormat, Segment
from app.protocols.http.form import FormError
from app.protocols.http.json_body import MAX_JSON_BYTES, JsonBody

SAMPLES = RawFormat("s16", 16_000, 1, "little")


def send(target: str, body: bytes, content_type: str, **more: Any) -> Peer:
    return Peer(**more).feed(request("POST", target, body, Content_Type=content_type))


def body_of(peer: Peer) -> bytes:
    return b"".join(entry[1] for entry in peer.seen if entry[0] == "body")


# The audio itself.


@pytest.mark.parametrize("kind", ["audio/flac", "video/mp4", "application/octet-stream"])
def test_body_may_be_the_file_with_fields_in_the_query(kind: str) -> None:
    query = urlencode({"language": "de", "response_format": "text", "prompt": "Zoë & Ava"})
    peer = send(f"{TRANSCRIPTIONS}?{query}", AUDIO, kind)
    assert body_of(peer) == AUDIO
    asked = peer.seen[-1][1]
    assert (asked.language, asked.prompt, asked.raw) == ("de", "Zoë & Ava", None)
    assert peer.answer.body == b"one two\n"


def test_body_may_be_samples_that_the_type_describes() -> None:
    asked = send(TRANSCRIPTIONS, b"abcd", "audio/L16; rate=8000; channels=2").seen[-1][1]
    assert asked.raw == RawFormat("s16", 8000, 2, "big")
    asked = send(TRANSCRIPTIONS, b"abcd", "audio/pcm;rate=16000").seen[-1][1]
    assert asked.raw == SAMPLES
    for wrong in ("audio/l16", "audio/l16; rate=0", "audio/l16; rate=8000; channels=x"):
        peer = send(TRANSCRIPTIONS, b"abcd", wrong)
        assert peer.answer.error["code"] == "bad_field"


def test_form_beats_the_query() -> None:
    peer = Peer().feed(
        post(f"{TRANSCRIPTIONS}?language=fr&temperature=0.5", ("language", "de"), ("file", b"a"))
    )
    asked = peer.seen[-1][1]
    assert (asked.language, asked.temperature) == ("de", 0.5)


@pytest.mark.parametrize(
    ("query", "code"),
    [("language=%ff", "bad_field"), ("x=1&" * 200, "bad_field"), ("prompt=" + "x" * 9000, None)],
)
def test_query_has_limits(query: str, code: str | None) -> None:
    answer = send(f"{TRANSCRIPTIONS}?{query}", b"a", "audio/wav").answer
    assert (answer.error["code"] if code else answer.status) == (code or 200)


def test_empty_body_is_missing_audio() -> None:
    answer = send(TRANSCRIPTIONS, b"", "audio/wav").answer
    assert (answer.status, answer.error["code"]) == (400, "missing_field")


def test_other_type_is_an_error_that_names_the_choices() -> None:
    answer = send(TRANSCRIPTIONS, b"a", "text/plain").answer
    assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")
    for choice in ("multipart/form-data", "application/octet-stream", "JSON"):
        assert choice in answer.error["message"]


@pytest.mark.parametrize("size", [10, 20_000])
def test_file_under_another_name_is_an_error_that_says_so(size: int) -> None:
    part = b'Content-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
    start, end = f"--{BOUNDARY}\r\n".encode(), f"\r\n--{BOUNDARY}--\r\n".encode()
    body = start + part + b"x" * size + end
    answer = send(TRANSCRIPTIONS, body, f"multipart/form-data; boundary={BOUNDARY}").answer
    assert answer.error["code"] == "missing_field"
    assert "in the field file, not in audio" in answer.error["message"]


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions/", "//v1//audio/transcriptions"])
def test_careless_slashes_are_forgiven(path: str) -> None:
    assert send(path, b"a", "audio/wav").answer.status == 200
    assert ask("/healthz//").status == 200
    assert ask("//").status == 200


@pytest.mark.parametrize("base", ["", "/v1", "/v1/v1", "/openai/v1", "/api/v1", "/api/openai/v1"])
def test_base_addresses_of_clients_are_understood(base: str) -> None:
    assert send(f"{base}/audio/transcriptions", b"a", "audio/wav").answer.status == 200
    assert send(f"{base}/audio/translations", b"a", "audio/wav").seen[-1][1].task == "translate"
    assert ask(f"{base}/models").json["object"] == "list"
    assert ask(f"{base}/models/tiny.en").json["id"] == "tiny.en"


@pytest.mark.parametrize(
    "path", ["/v2/audio/transcriptions", "/v1x/models", "/v1/audio", "/audio/transcriptions/v1"]
)
def test_other_addresses_stay_unknown(path: str) -> None:
    assert send(path, b"a", "audio/wav").answer.status == 404


# JSON.


def as_json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_json_has_the_file_in_base64() -> None:
    body = as_json(
        model="tiny.en",
        file=encoded(AUDIO),
        language="en",
        temperature=0.25,
        timestamp_granularities=["word", "segment"],
        response_format="verbose_json",
        stream=False,
        prompt=None,
    )
    peer = send(TRANSCRIPTIONS, body, "application/json; charset=utf-8")
    assert body_of(peer) == AUDIO
    asked = peer.seen[-1][1]
    assert (asked.language, asked.temperature, asked.word_timestamps) == ("en", 0.25, True)
    assert peer.answer.status == 200


def test_json_has_the_audio_in_an_object_as_openrouters_clients_write_it() -> None:
    audio = {"data": encoded(AUDIO), "format": "wav"}
    body = as_json(model="tiny.en", input_audio=audio, language="en")
    peer = send(TRANSCRIPTIONS, body, "application/json")
    assert body_of(peer) == AUDIO
    assert peer.seen[-1][1].language == "en"
    assert peer.answer.status == 200


@settings(deadline=None)
@given(
    data=st.binary(max_size=300),
    form=st.sampled_from(["plain", "url", "lines", "slashes", "alphabet", "bare", "escapes"]),
    nested=st.booleans(),
    cuts=st.lists(st.integers(0, 800), max_size=8),
)
def test_any_split_of_json_gives_the_same_audio(
    data: bytes, form: str, nested: bool, cuts: list[int]
) -> None:
    text = encoded(data)
    if form == "url":
        text = f"data:audio/ogg; codecs=opus; base64,{text}"
    elif form == "lines":
        text = base64.encodebytes(data).decode()
    elif form == "alphabet":
        text = base64.urlsafe_b64encode(data).decode()
    elif form == "bare":
        text = text.rstrip("=")
    before = {"a": {"file": "no", "data": "no"}, "b": ['"file":', "data"]}
    holder = {"input_audio": {"format": "data", "data": text}} if nested else {"file": text}
    body = json.dumps({**before, **holder, "c": "file", "d": "data"}).encode()
    if form == "slashes":
        body = body.replace(b"/", b"\\/")
    elif form == "escapes":
        # .NET escapes the plus sign, and Gson the equals sign.
        body = body.replace(b"+", b"\\u002B").replace(b"=", b"\\u003d")
    parser = JsonBody()
    ends = [*sorted(min(cut, len(body)) for cut in cuts), len(body)]
    found = b""
    for begin, end in zip([0, *ends], ends, strict=False):
        found += b"".join(parser.feed(body[begin:end]))
    assert found == data
    fields = {"a[file]": ["no"], "a[data]": ["no"], "b": ['"file":', "data"]}
    assert parser.finish() == fields | {"c": ["file"], "d": ["data"]}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (as_json(language="en"), "missing_field"),
        (as_json(input_audio={"format": "wav"}), "missing_field"),
        (as_json(input_audio=[{"data": "QUJD"}]), "missing_field"),
        (as_json(input_audio={"data": {"data": "QUJD"}}), "missing_field"),
        (as_json(input_audio={"data": "QUJD"}, file="QUJD"), "bad_field"),
        (as_json(file="%%%%"), "bad_field"),
        (b'{"file": "QUJD\\u00e9"}', "bad_field"),
        (b'{"file": "QUJD\\u00"}', "bad_field"),
        (b'{"file": "QUJ\\b"}', "bad_field"),
        (b'{"file": "QUJD\\"}', "bad_field"),
        (as_json(file="data:audio/wav;base64;QUJD"), "bad_field"),
        (as_json(file="QUJD", x=[[[[[[["a"]]]]]]]), "bad_field"),
        (b'{"file": "QUJD", "x": ' + b"[" * 900 + b"]" * 900 + b"}", "bad_field"),
        (as_json(file="QUJD", language={"a": "en"}), "bad_field"),
        (as_json(file="QUJD=QUJD"), "bad_field"),
        (as_json(file="QQ==QUJD"), "bad_field"),
        (as_json(file="data:audio/wav,QUJD"), "bad_field"),
        (as_json(file="data:" + "x" * 400), "bad_field"),
        (as_json(file="QUJD", prompt={"a": 1}), "bad_field"),
        (as_json(file="QUJD", more="x" * 70_000), "bad_field"),
        (as_json(audio="QUJD" * 20_000), "missing_field"),
        (b'{"file": "QUJD", "file": "QUJD"}', "bad_field"),
        (b'{"file": "QUJD"', "incomplete"),
        (b'{"file": "QUJ', "incomplete"),
        (b'["QUJD"]', "bad_header"),
        (b"[" * 5000, "incomplete"),
        (b'{"file": "QUJD"} x', "bad_header"),
        (b"", "bad_header"),
    ],
)
def test_invalid_json_is_an_error(body: bytes, code: str) -> None:
    answer = send(TRANSCRIPTIONS, body, "application/json").answer
    assert answer.error["code"] == code


def test_object_of_an_ignored_field_is_ignored() -> None:
    strategy = {"type": "server_vad", "threshold": 0.5}
    body = as_json(file=encoded(AUDIO), chunking_strategy=strategy, language="en")
    peer = send(TRANSCRIPTIONS, body, "application/json")
    assert peer.answer.headers["x-ignored-fields"] == "chunking_strategy"
    assert peer.seen[-1][1].language == "en"


def test_parts_of_a_plain_field_are_an_error() -> None:
    for name in ("language[]", "language[x]", "languages[x]", "prompt[0]"):
        answer = Peer().feed(post(TRANSCRIPTIONS, (name, "en"), ("file", b"a"))).answer
        assert answer.error["code"] == "bad_field"
        assert answer.error["param"] == name.partition("[")[0]


def test_json_of_asr_has_its_own_name_of_the_file() -> None:
    for name in ("audio_file", "file"):
        peer = send("/asr", as_json(**{name: encoded(AUDIO)}), "application/json")
        assert body_of(peer) == AUDIO
        assert "x-ignored-fields" not in peer.answer.headers


def test_declared_length_over_the_limit_is_rejected_at_the_head() -> None:
    head = request("POST", TRANSCRIPTIONS, b"", Content_Type="application/json")
    head = head.replace(b"Content-Length: 0", b"Content-Length: %d" % (MAX_JSON_BYTES + 1))
    peer = Peer(replace(SITE, max_body=1 << 30)).feed(head)
    assert peer.seen == [("refused", "too_large")]


def test_json_has_a_largest_size() -> None:
    parser = JsonBody()
    piece = b'{"file": "' + b"A" * (MAX_JSON_BYTES - 10)
    list(parser.feed(piece))
    with pytest.raises(FormError) as caught:
        parser.feed(b"A")
    assert caught.value.failure.code == "too_large"


# whisper-asr-webservice.


def asr(query: str = "", **more: Any) -> Peer:
    body = form(("audio_file", AUDIO))
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return send(f"/asr?{query}", body, kind, **more)


def test_asr_reads_its_query() -> None:
    peer = asr("task=translate&language=de&initial_prompt=Ada&word_timestamps=true&vad_filter=true")
    assert body_of(peer) == AUDIO
    asked = peer.seen[-1][1]
    assert (asked.task, asked.language, asked.prompt) == ("translate", "de", "Ada")
    assert asked.word_timestamps
    assert asked.raw is None
    assert asr("encode=false").seen[-1][1].raw == SAMPLES


def test_asr_answers_in_every_output() -> None:
    segments = (Segment(0, 1.5, "one", 0.5), Segment(1.5, 2, "two", 1))
    transcript = transcript_of("one two", segments=segments, language="en")

    def answer(output: str) -> Any:
        return asr(f"output={output}", reply=lambda _id: transcript).answer

    assert answer("txt").body == asr(reply=lambda _id: transcript).answer.body == b"one\ntwo\n"
    assert answer("tsv").body == b"start\tend\ttext\n0\t1500\tone\n1500\t2000\ttwo\n"
    assert answer("srt").body.startswith(b"1\n00:00:00,000 --> 00:00:01,500\none\n")
    assert answer("vtt").body.startswith(b"WEBVTT")
    found = answer("json").json
    assert (found["text"], found["language"]) == ("one two", "en")
    assert [segment["text"] for segment in found["segments"]] == ["one", "two"]


@pytest.mark.parametrize("query", ["output=doc", "task=sing", "diarize=true", "encode=maybe"])
def test_asr_names_a_wrong_field(query: str) -> None:
    answer = asr(query).answer
    assert answer.status == 400
    assert answer.json["code"] == "bad_field"
    assert answer.json["detail"].startswith(query.partition("=")[0])


def test_language_is_detected_in_the_first_window() -> None:
    transcript = transcript_of("hallo", language="de", language_probability=0.9)
    body = form(("audio_file", AUDIO))
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    peer = send("/detect-language?encode=false", body, kind, reply=lambda _id: transcript)
    asked = peer.seen[-1][1]
    assert (asked.language, asked.detect_only, asked.raw) == ("auto", True, SAMPLES)
    assert peer.answer.json == {
        "detected_language": "german",
        "language_code": "de",
        "confidence": 0.9,
        "truncated": False,
    }


def test_inference_takes_the_audio_itself() -> None:
    assert send(f"{INFERENCE}?response_format=json", b"a", "audio/wav").answer.json == {
        "text": "one\ntwo\n",
        "truncated": False,
    }
