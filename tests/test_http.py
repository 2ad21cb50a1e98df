"""HTTP without IO: bytes in, events out; replies in, bytes out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from fakes import transcript_of
from forms import (
    BOUNDARY,
    INFERENCE,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    Answer,
    answers,
    chunked,
    form,
    post,
    request,
)
from http_peer import AUDIO, MAX_BODY, MODEL, SITE, TRANSCRIPT, Peer, ask
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import Seen, split

from app import messages
from app.limits import CueLayout
from app.messages import (
    End,
    Failure,
    Query,
    Report,
    Segment,
    Send,
    Word,
)
from app.protocols.base import MAX_HELD_BYTES
from app.protocols.http import openai, routes
from app.protocols.http.form import MAX_FIELD_BYTES, MAX_PARTS
from app.protocols.http.input import MAX_CHUNKS
from app.protocols.http.protocol import HttpProtocol
from app.protocols.http.replies import STATUS
from app.protocols.model_names import ModelNames


def upload(*parts: tuple[str, bytes | str], target: str = TRANSCRIPTIONS, **headers: str) -> Peer:
    return Peer().feed(post(target, *parts, **headers))


# Uploads.


def test_form_becomes_a_request() -> None:
    peer = upload(
        ("model", "tiny.en"),
        ("language", "en-GB"),
        ("prompt", " Zoë, Grüße "),
        ("file", AUDIO),
        ("temperature", "0.25"),
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("unheard of", "x"),
        Authorization="Bearer secret",
    )
    (_, began), body, (_, ended) = peer.seen
    assert body == ("body", AUDIO)
    assert (began.token, began.task, began.keep_alive) == ("secret", "transcribe", True)
    assert began.content_length is not None
    assert began.content_length >= len(AUDIO)
    assert ended == replace(
        began,
        language="en",
        prompt=" Zoë, Grüße ",
        temperature=0.25,
        word_timestamps=True,
        model="tiny.en",
        ignored=("unheard of",),
    )
    assert peer.answer.status == 200
    assert peer.answer.headers["x-request-id"] == "made"
    assert not peer.closed


@pytest.mark.parametrize("form", ["json", "text", "srt", "verbose_json", "vtt"])
def test_form_is_the_same_in_every_split(form: str) -> None:
    data = post(TRANSCRIPTIONS, ("file", AUDIO), ("response_format", form))
    whole = Peer().feed(data)
    assert whole.names == ["begin", "body", "end"]
    bytewise = Peer().feed(*(data[at : at + 1] for at in range(len(data))))
    assert (bytewise.seen, bytewise.sent) == (whole.seen, whole.sent)


def test_chunked_form_differs_only_in_its_unknown_length() -> None:
    body = form(("file", AUDIO), ("stream", "false"))
    head = request(
        "POST",
        TRANSCRIPTIONS,
        Transfer_Encoding="chunked",
        Content_Type=f'multipart/form-data; charset=utf-8; boundary="{BOUNDARY}"',
    )
    peer = Peer().feed(head + chunked(body, 7))
    (_, began), received, _ = peer.seen
    assert began.content_length is None
    assert received == ("body", AUDIO)
    assert peer.answer.status == 200


def test_media_types_are_case_insensitive() -> None:
    data = post(
        TRANSCRIPTIONS,
        ("file", AUDIO),
        Content_Type=f"Multipart/Form-Data; Boundary={BOUNDARY}",
    )
    peer = Peer().feed(data.replace(b"form-data; name=", b"Form-Data; Name="))
    assert peer.seen[1] == ("body", AUDIO)
    assert peer.answer.status == 200


def test_expect_continue_gets_100_continue() -> None:
    head, _, body = post(TRANSCRIPTIONS, ("file", AUDIO), Expect="100-continue").partition(
        b"\r\n\r\n"
    )
    peer = Peer().feed(head + b"\r\n\r\n")
    assert peer.sent.startswith(b"HTTP/1.1 100 ")
    peer.feed(body)
    assert peer.answer.informational == (100,)
    assert peer.answer.status == 200


def test_expect_continue_gets_no_100_for_a_rejected_request() -> None:
    head = post(TRANSCRIPTIONS, ("file", AUDIO), Expect="100-continue").partition(b"\r\n\r\n")[0]
    peer = Peer(accepts=False).feed(head + b"\r\n\r\n")
    assert peer.answer.informational == ()
    assert peer.answer.status == 503
    assert peer.answer.headers["connection"] == "close"
    assert peer.answer.headers["retry-after"] == "2"


def test_rest_of_a_rejected_body_is_skipped_before_the_close() -> None:
    data = post(TRANSCRIPTIONS, ("file", AUDIO * 100))
    peer = Peer(accepts=False).feed(data[:-1])
    assert peer.answer.status == 503
    assert peer.protocol.reading_body
    assert not peer.closed
    peer.feed(data[-1:] + request("GET", "/healthz"))
    assert peer.closed
    assert len(peer.answers()) == 1


def test_skipped_body_is_limited_to_max_body() -> None:
    head = request("POST", TRANSCRIPTIONS, Transfer_Encoding="chunked", Content_Type="text/html")
    peer = Peer().feed(head)
    assert peer.seen == [("refused", "unsupported_media_type")]
    for _ in range(MAX_BODY // 10_000 + 1):
        assert not peer.closed
        peer.feed(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
    assert peer.closed


FAULTS: dict[str, tuple[bytes, str, int, str | None]] = {
    "no form": (request("POST", TRANSCRIPTIONS, b"abc"), "unsupported_media_type", 415, None),
    "another type": (
        post(TRANSCRIPTIONS, ("file", b"a"), Content_Type="text/html"),
        "unsupported_media_type",
        415,
        None,
    ),
    "no boundary": (
        post(TRANSCRIPTIONS, ("file", b"a"), Content_Type="multipart/form-data"),
        "bad_header",
        400,
        None,
    ),
    "a long boundary": (
        post(
            TRANSCRIPTIONS,
            ("file", b"a"),
            Content_Type=f"multipart/form-data; boundary={'x' * 71}",
        ),
        "bad_header",
        400,
        None,
    ),
    "compressed": (
        post(TRANSCRIPTIONS, ("file", b"a"), Content_Encoding="gzip"),
        "unsupported_media_type",
        415,
        None,
    ),
    "too large": (
        request(
            "POST",
            TRANSCRIPTIONS,
            Content_Length=str(MAX_BODY + 1),
            Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
        ),
        "too_large",
        413,
        None,
    ),
    "no file": (post(TRANSCRIPTIONS, ("model", "tiny.en")), "missing_field", 400, "file"),
    "two files": (post(TRANSCRIPTIONS, ("file", b"a"), ("file", b"b")), "bad_field", 400, "file"),
    "another boundary": (
        request(
            "POST",
            TRANSCRIPTIONS,
            form(("file", b"a"), boundary="other"),
            Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
        ),
        "bad_header",
        400,
        None,
    ),
    "broken off": (
        request(
            "POST",
            TRANSCRIPTIONS,
            form(("file", b"a"), end=False),
            Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
        ),
        "incomplete",
        400,
        None,
    ),
    "nothing": (
        request(
            "POST",
            TRANSCRIPTIONS,
            b"",
            Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
        ),
        "incomplete",
        400,
        None,
    ),
    "a part without a name": (
        request(
            "POST",
            TRANSCRIPTIONS,
            form(("file", b"a")).replace(b"name=", b"nome="),
            Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
        ),
        "bad_header",
        400,
        None,
    ),
    "an encoded part": (
        request(
            "POST",
            TRANSCRIPTIONS,
            form(("file", b"a")).replace(
                b"Content-Type: audio/wav", b"Content-Transfer-Encoding: base64"
            ),
            Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
        ),
        "bad_header",
        400,
        None,
    ),
    "headers of a part without end": (
        request(
            "POST",
            TRANSCRIPTIONS,
            form(("file", b"a")).replace(b"audio/wav", b"x" * 5000),
            Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
        ),
        "bad_header",
        400,
        None,
    ),
    "a field too long": (
        post(TRANSCRIPTIONS, ("prompt", "x" * (MAX_FIELD_BYTES + 1)), ("file", b"a")),
        "bad_field",
        400,
        "prompt",
    ),
    "too many fields": (
        post(TRANSCRIPTIONS, ("file", b"a"), *[("x", "y")] * MAX_PARTS),
        "too_large",
        413,
        None,
    ),
    "not UTF-8": (
        request(
            "POST",
            TRANSCRIPTIONS,
            form(("prompt", "??"), ("file", b"a")).replace(b"??", b"\xff\xfe"),
            Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
        ),
        "bad_field",
        400,
        "prompt",
    ),
    "another model": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("model", "gpt-4o")),
        "model_not_found",
        404,
        "model",
    ),
    "no language": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("language", "???")),
        "bad_field",
        400,
        "language",
    ),
    "a prompt too long": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("prompt", "ü" * 8_193)),
        "bad_field",
        400,
        "prompt",
    ),
    "another format": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("response_format", "docx")),
        "bad_field",
        400,
        "response_format",
    ),
    "too hot": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("temperature", "1.1")),
        "bad_field",
        400,
        "temperature",
    ),
    "not a temperature": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("temperature", "nan")),
        "bad_field",
        400,
        "temperature",
    ),
    "words in plain JSON": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("timestamp_granularities[]", "word")),
        "bad_field",
        400,
        "timestamp_granularities[]",
    ),
    "letters": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("timestamp_granularities[]", "letter")),
        "bad_field",
        400,
        "timestamp_granularities[]",
    ),
    "lines too wide": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("max_line_width", "1001")),
        "bad_field",
        400,
        "max_line_width",
    ),
    "no lines": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("max_line_count", "0")),
        "bad_field",
        400,
        "max_line_count",
    ),
    "cues without a time": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("max_cue_seconds", "nan")),
        "bad_field",
        400,
        "max_cue_seconds",
    ),
    "a stream of subtitles": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("stream", "true"), ("response_format", "srt")),
        "bad_field",
        400,
        "stream",
    ),
    "perhaps a stream": (
        post(TRANSCRIPTIONS, ("file", b"a"), ("stream", "perhaps")),
        "bad_field",
        400,
        "stream",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_error_has_its_code_and_status(name: str) -> None:
    data, code, status, parameter = FAULTS[name]
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        peer = Peer().feed(*pieces)
        assert peer.seen[-1] in (("broken", code), ("refused", code))
        assert peer.answer.status == status
        assert peer.answer.error["code"] == code
        assert peer.answer.error["type"] == "invalid_request_error"
        assert peer.answer.error["param"] == parameter
        assert peer.answer.error["message"]


def test_connection_is_kept_after_an_error_at_the_end_of_a_form() -> None:
    peer = upload(("file", b"a"), ("model", "none"))
    peer.feed(post(TRANSCRIPTIONS, ("file", b"b")))
    assert [answer.status for answer in peer.answers("POST", "POST")] == [404, 200]


def test_chunked_body_over_the_limit_is_too_large() -> None:
    body = form(("file", b"x" * (MAX_BODY + 1)))
    head = request(
        "POST",
        TRANSCRIPTIONS,
        Transfer_Encoding="chunked",
        Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
    )
    peer = Peer().feed(head, *(chunked(body, 5000)[at : at + 999] for at in range(0, 99_900, 999)))
    peer.feed(chunked(body, 5000)[99_900:])
    assert peer.seen[-1] == ("broken", "too_large")
    assert peer.answer.status == 413


def test_translation_is_recognised_by_its_path() -> None:
    peer = upload(("file", b"a"), target=TRANSLATIONS)
    assert peer.seen[0][1].task == "translate"
    assert peer.seen[-1][1].task == "translate"


def test_language_may_be_a_name() -> None:
    for value, code in (("English", "en"), ("haitian creole", "ht"), ("auto", "auto"), ("", None)):
        assert upload(("file", b"a"), ("language", value)).seen[-1][1].language == code


# Replies.


def test_transcript_in_every_format() -> None:
    words = (Word(0.0, 0.4, "Hello", 0.5), Word(0.5, 1.0, "<you>", 1.0))
    segments = (
        Segment(0.0, 1.0, "Hello <you>", 0.5, words),
        Segment(3661.5, 3662.25, "& me", 1.0, ()),
    )
    transcript = transcript_of(
        "Hello <you> & me", segments=segments, audio_seconds=3663.04, language="de"
    )

    def answer(form: str, *more: tuple[str, str], target: str = TRANSCRIPTIONS) -> Answer:
        peer = Peer(reply=lambda _id: transcript)
        return peer.feed(post(target, ("file", b"a"), ("response_format", form), *more)).answer

    plain = answer("json")
    assert plain.headers["content-type"] == "application/json"
    # OpenAI's reference rounds up: 8.47 s of audio are 9.
    usage = {"type": "duration", "seconds": 3664}
    groq = {"id": "made"}
    about = {"languages": [{"code": "de"}], "usage": usage, "x_groq": groq, "truncated": False}
    assert plain.json == {"text": "Hello <you> & me", **about}
    assert answer("text").body == b"Hello <you> & me\n"
    assert answer("srt").body.decode() == (
        "1\n00:00:00,000 --> 00:00:01,000\nHello <you>\n\n"
        "2\n01:01:01,500 --> 01:01:02,250\n& me\n\n"
    )
    assert answer("vtt").body.decode() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nHello &lt;you&gt;\n\n"
        "01:01:01.500 --> 01:01:02.250\n&amp; me\n\n"
    )
    verbose = answer("verbose_json", ("temperature", "0.5")).json
    assert verbose.keys() == {
        *("task", "model", "language", "duration", "text", "segments"),
        *("usage", "x_groq", "truncated"),
    }
    assert verbose["x_groq"] == groq
    assert (verbose["task"], verbose["language"]) == ("transcribe", "german")
    assert verbose["usage"] == usage
    assert verbose["segments"][0] == {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": 1.0,
        "text": "Hello <you>",
        "tokens": [],
        "no_speech_prob": 0.0,
        "temperature": 0.5,
        "avg_logprob": -0.6931,
        "compression_ratio": pytest.approx(0.58, abs=0.2),
    }
    by_word = answer("verbose_json", ("timestamp_granularities[]", "word")).json
    assert "segments" not in by_word
    assert by_word["words"] == [
        {"word": "Hello", "start": 0.0, "end": 0.4},
        {"word": "<you>", "start": 0.5, "end": 1.0},
    ]
    both = [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")]
    assert {"words", "segments"} <= answer("verbose_json", *both).json.keys()

    translated = answer("verbose_json", target=TRANSLATIONS).json
    assert (translated["task"], translated["language"]) == ("translate", "english")

    theirs = answer("json", target=INFERENCE)
    assert theirs.json == {"text": "Hello <you>\n& me\n", "truncated": False}
    verbose = answer("verbose_json", target=INFERENCE).json
    assert verbose.keys() == {
        *("task", "model", "language", "duration", "text", "segments", "truncated")
    }
    assert verbose["segments"][0]["words"][0] == {
        "word": "Hello",
        "start": 0.0,
        "end": 0.4,
        "probability": 0.5,
    }
    timeless = answer("verbose_json", ("no_timestamps", "true"), target=INFERENCE).json
    assert "start" not in timeless["segments"][0]


def test_stream_gives_the_text_in_pieces() -> None:
    peer = upload(("stream", "true"), ("file", b"a"))
    assert peer.seen[-1][1].reply == "segments"
    answer = peer.answer
    assert answer.headers["transfer-encoding"] == "chunked"
    *deltas, done = answer.events
    assert [event["type"] for event in deltas] == ["transcript.text.delta"] * 2
    assert "".join(event["delta"] for event in deltas) == done["text"] == "one two"
    assert [(event["start"], event["end"]) for event in deltas] == [(0, 1), (1, 2)]
    assert (done["type"], done["language"]) == ("transcript.text.done", "en")
    assert done["usage"] == {"type": "duration", "seconds": 0}
    assert done["languages"] == [{"code": "en"}]


def test_stream_has_the_words_of_each_segment_on_request() -> None:
    word = ("timestamp_granularities[]", "word")
    peer = upload(("stream", "true"), word, ("file", b"a"))
    assert peer.seen[-1][1].word_timestamps
    segment = Segment(0.0, 1.0, "one", 0.5, (Word(0.1234, 1.0, "one", 0.5),))
    (event,) = Answer(
        200, {"content-type": "text/event-stream"}, openai.delta(segment, True)
    ).events
    assert event["words"] == [{"word": "one", "start": 0.123, "end": 1.0}]
    assert "words" not in peer.answer.events[0]


def test_stream_for_http_1_0_ends_with_the_connection() -> None:
    peer = Peer().feed(post(TRANSCRIPTIONS, ("stream", "1"), ("file", b"a"), version="1.0"))
    assert peer.closed
    assert "transfer-encoding" not in peer.answer.headers
    assert peer.answer.events[-1]["text"] == "one two"


def test_failed_stream_ends_with_an_error_event() -> None:
    peer = Peer(reply=lambda _id: Failure(messages.BAD_AUDIO, "it stops making sense"))
    peer.feed(post(TRANSCRIPTIONS, ("stream", "true"), ("file", b"a")))
    assert peer.answer.status == 200
    assert peer.answer.events[-1]["error"]["code"] == "bad_audio"
    assert not peer.closed


def test_stream_of_silence_has_only_its_end() -> None:
    protocol = HttpProtocol(SITE, lambda: "made")
    protocol.feed(post(TRANSCRIPTIONS, ("stream", "true"), ("file", b"a")))
    protocol.next_event()
    protocol.accept()
    while not isinstance(protocol.next_event(), End):
        pass
    (answer,) = answers(protocol.encode("made", transcript_of("")))
    assert [event["text"] for event in answer.events] == [""]


def test_every_code_has_a_status() -> None:
    codes = {
        value
        for name, value in vars(messages).items()
        if name.isupper() and isinstance(value, str) and name.lower() == value
    }
    assert len(codes) >= 17
    assert codes == STATUS.keys()


@pytest.mark.parametrize("code", STATUS)
def test_failure_in_the_shapes_of_both_dialects(code: str) -> None:
    for target in (TRANSCRIPTIONS, INFERENCE):
        peer = Peer(reply=lambda _id: Failure(code, "language: no", 0.2))
        answer = peer.feed(post(target, ("file", b"a"))).answer
        assert answer.status == STATUS[code]
        assert answer.headers["retry-after"] == "1"
        assert ("www-authenticate" in answer.headers) == (code == "unauthorized")
        if target == INFERENCE:
            assert answer.json == {"error": "language: no"}
        else:
            kind = "server_error" if answer.status >= 500 else "invalid_request_error"
            assert answer.error == {
                "message": "language: no",
                "type": kind,
                "param": "language",
                "code": code,
            }


def test_error_before_any_request_is_a_response() -> None:
    protocol = HttpProtocol(SITE, lambda: "made")
    (answer,) = answers(protocol.encode(None, Failure(messages.BUSY, "full", 1.0)))
    assert answer.status == 503
    assert answer.headers["connection"] == "close"


# whisper.cpp's fields.


def test_inference_reads_the_fields_of_whisper_cpp() -> None:
    def told(*parts: tuple[str, str]) -> Any:
        return upload(("file", b"a"), *parts, target=INFERENCE).seen[-1][1]

    assert told(("language", "auto")).language == "auto"
    assert told(("detect_language", "true")).language == "auto"
    assert told(("language", "de")).language == "de", "the server rejects it"
    assert told(("translate", "true")).task == "translate"
    assert told(("translate", "false"), ("temperature_inc", "0.2")).task == "transcribe"
    assert told(("response_format", "verbose_json")).word_timestamps
    assert not told(
        ("response_format", "verbose_json"), ("token_timestamps", "false")
    ).word_timestamps


# Requests without a body.


def test_queries_get_their_responses() -> None:
    for kind, path in (("ready", "/readyz"), ("metrics", "/metrics"), ("status", "/status?x=1")):
        peer = Peer().feed(request("GET", path, Authorization="bearer t"))
        assert peer.seen == [("query", kind, "t")]
        (answer,) = peer.answers("GET")
        assert (answer.status, answer.body) == (503 if kind == "ready" else 200, b"report")
        assert answer.headers["content-type"] == "text/x"
        assert answer.headers["cache-control"] == "no-store"


def test_models_lists_the_loaded_model() -> None:
    listed = ask("/v1/models").json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["tiny.en", "tiny.en-q8_0", "whisper-1"]
    one = ask("/v1/models/tiny%2Een").json
    assert (one["id"], one["object"], one["created"]) == ("tiny.en", "model", 1_700_000_000)
    none = ask("/v1/models/gpt-4o")
    assert (none.status, none.error["code"]) == (404, "model_not_found")


def test_other_model_is_served_and_the_answer_names_the_real_one() -> None:
    site = replace(SITE, served=replace(MODEL, strict=False))
    fields = ("model", "gpt-4o"), ("response_format", "verbose_json")
    peer = Peer(site).feed(post(TRANSCRIPTIONS, ("file", b"a"), *fields))
    assert peer.seen[-1][1].model == "gpt-4o"
    assert peer.answer.headers["x-model"] == "tiny.en-q8_0"
    assert peer.answer.json["model"] == TRANSCRIPT.model


def test_model_with_a_strange_name_fits_a_header() -> None:
    names = ModelNames("größe 1\n", frozenset({"größe 1\n"}))
    site = replace(SITE, served=names)
    answer = Peer(site).feed(post(TRANSCRIPTIONS, ("file", b"a"))).answer
    assert answer.headers["x-model"] == "gr%C3%B6%C3%9Fe%201%0A"


def test_health_and_the_page_are_served() -> None:
    for path in ("/healthz", "/health"):
        assert ask(path).json == {"status": "ok"}
    page = ask("/")
    assert page.body == b"<!doctype html>"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert ask("http://127.0.0.1:8080/").body == page.body, "the target may be an absolute URL"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/v1/models", "/nothing"])
def test_head_response_has_no_body(path: str) -> None:
    get, head = ask(path), ask(path, "HEAD")
    assert (head.status, head.headers) == (get.status, get.headers)
    assert get.body
    assert head.body == b""


def test_wrong_path_or_method_is_an_error() -> None:
    assert (ask("/nothing").status, ask("/nothing").error["code"]) == (404, "not_found")
    for method, path, allowed in (
        ("GET", TRANSCRIPTIONS, "POST, OPTIONS"),
        ("DELETE", "/v1/models", "GET, HEAD, OPTIONS"),
        ("PUT", "/", "GET, HEAD, OPTIONS"),
    ):
        answer = ask(path, method)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert answer.error["code"] == "method_not_allowed"


def test_unexpected_body_ends_the_connection() -> None:
    data = request("POST", "/nothing", b"x" * 1000)
    peer = Peer().feed(data[:500])
    assert peer.answer.status == 404
    assert peer.answer.headers["connection"] == "close"
    assert not peer.closed
    peer.feed(data[500:])
    assert peer.closed


# Pages of other origins.

ELSEWHERE = "https://elsewhere.example"


def test_page_of_another_origin_cannot_send_audio() -> None:
    for origin in (ELSEWHERE, "null", "http://127.0.0.1:9999", "http://localhost:8080"):
        peer = upload(("file", b"a"), Origin=origin)
        assert peer.seen == [], origin
        assert (peer.answer.status, peer.answer.error["code"]) == (403, "wrong_origin")
        assert "access-control-allow-origin" not in peer.answer.headers
    assert upload(("file", b"a"), Origin="http://127.0.0.1:8080").answer.status == 200


@pytest.mark.parametrize(
    "origin",
    [
        *("app://obsidian.md", "tauri://localhost", "capacitor://localhost", "null", "file://"),
        *("chrome-extension://abcdefghijklmnop", "http://a.example"),
    ],
)
def test_program_with_an_allowed_origin_can_send_audio(origin: str) -> None:
    stream = post(TRANSCRIPTIONS, ("file", b"a"), Origin=origin)
    assert Peer().feed(stream).answer.status == 403
    answer = Peer(replace(SITE, origins=frozenset({origin}))).feed(stream).answer
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, origin)


def test_page_behind_a_proxy_can_send_audio() -> None:
    elsewhere = {"Origin": "https://voice.example", "Host": "127.0.0.1:8080"}
    stream = post(TRANSCRIPTIONS, ("file", b"a"), **elsewhere)
    assert Peer().feed(stream).answer.status == 403
    same = post(TRANSCRIPTIONS, ("file", b"a"), **elsewhere, Sec_Fetch_Site="same-origin")
    assert Peer().feed(same).answer.status == 200
    cross = post(TRANSCRIPTIONS, ("file", b"a"), **elsewhere, Sec_Fetch_Site="cross-site")
    assert Peer().feed(cross).answer.status == 403
    # A name that was rebound to this machine is the page's own origin, but not this port's host.
    rebound = {"Origin": "http://evil.example", "Host": "evil.example"}
    named = post(TRANSCRIPTIONS, ("file", b"a"), **rebound, Sec_Fetch_Site="same-origin")
    assert Peer().feed(named).answer.error["code"] == "wrong_host"


@pytest.mark.parametrize(
    "path", [path for path, found in routes.ROUTES.items() if isinstance(found, routes.Upload)]
)
def test_every_route_that_takes_audio_is_guarded(path: str) -> None:
    foreign = post(path, ("file", b"a"), Origin="http://a.example")
    rebound = post(path, ("file", b"a"), Host="evil.example")
    assert [Peer().feed(stream).answer.status for stream in (foreign, rebound)] == [403, 403]


def test_page_of_an_allowed_origin_can_send_audio() -> None:
    for origins in (frozenset({ELSEWHERE}), frozenset({"*"})):
        site = replace(SITE, origins=origins)
        peer = Peer(site).feed(post(TRANSCRIPTIONS, ("file", b"a"), Origin=ELSEWHERE))
        assert peer.answer.headers["access-control-allow-origin"] == ELSEWHERE
        assert peer.answer.headers["vary"] == "Origin"
        preflight = ask(
            TRANSCRIPTIONS,
            "OPTIONS",
            site,
            Origin=ELSEWHERE,
            Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="authorization,x-stainless-os",
            Access_Control_Request_Private_Network="true",
        )
        assert (preflight.status, preflight.body) == (204, b"")
        headers = preflight.headers
        assert headers["access-control-allow-origin"] == ELSEWHERE
        assert headers["access-control-allow-methods"] == "POST, OPTIONS"
        assert headers["access-control-allow-headers"] == "authorization,x-stainless-os"
        assert headers["access-control-allow-private-network"] == "true"
    another = ask(
        TRANSCRIPTIONS, "OPTIONS", replace(SITE, origins=frozenset({ELSEWHERE})), Origin="http://x"
    )
    assert not [name for name in another.headers if name.startswith("access-control")]


def test_cors_headers_return_any_bytes() -> None:
    site = replace(SITE, origins=frozenset({"*"}))
    head = b"Host: localhost\r\nOrigin: http://\xfc\r\nAccess-Control-Request-Headers: \xe4\r\n\r\n"
    for line in (b"OPTIONS /inference", b"GET /healthz", b"GET /readyz"):
        peer = Peer(site).feed(line + b" HTTP/1.1\r\n" + head)
        assert b"\r\nAccess-Control-Allow-Origin: http://\xfc\r\n" in peer.sent
        assert (b"\r\nAccess-Control-Allow-Headers: \xe4\r\n" in peer.sent) == (line[:3] == b"OPT")


def test_unknown_host_header_is_rejected() -> None:
    for host in ("evil.example", "evil.example:8080", "localhost.evil.example", ""):
        assert ask("/status", Host=host).error["code"] == "wrong_host", host
    for host in ("localhost:8080", "127.0.0.1", "[::1]:8080", "LOCALHOST", "a.localhost:1"):
        assert ask("/healthz", Host=host).status == 200, host
    assert ask("/healthz", Host="evil.example", site=replace(SITE, local=False)).status == 200
    named = replace(SITE, origins=frozenset({ELSEWHERE}))
    assert ask("/healthz", Host="elsewhere.example", site=named).status == 200


# Connections.


def test_connection_carries_several_requests() -> None:
    data = post(TRANSCRIPTIONS, ("file", b"a")) + request("GET", "/healthz")
    data += post(INFERENCE, ("file", b"b")) + request("HEAD", "/readyz")
    methods = ("POST", "GET", "POST", "HEAD")
    whole = Peer().feed(data)
    bytewise = Peer().feed(*(data[at : at + 1] for at in range(len(data))))
    for peer in (whole, bytewise):
        assert [answer.status for answer in peer.answers(*methods)] == [200, 200, 200, 503]
        assert not peer.closed
        assert peer.protocol.idle


def test_connection_ends_when_the_client_asks_for_it() -> None:
    for data in (
        post(TRANSCRIPTIONS, ("file", b"a"), Connection="close"),
        post(TRANSCRIPTIONS, ("file", b"a"), version="1.0"),
        request("GET", "/healthz", version="1.0"),
        request("GET", "/readyz", Connection="close"),
    ):
        peer = Peer().feed(data + request("GET", "/healthz"))
        assert peer.closed
        assert len(peer.answers(data.split(b" ")[0].decode())) == 1


LOST: dict[str, tuple[bytes, int]] = {
    "nonsense": (b"\x16\x03\x01 nonsense\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two lengths": (
        b"POST /inference HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\n",
        400,
    ),
    "an endless header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000, 431),
    "a length and chunks": (
        b"POST /inference HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
        400,
    ),
    "another transfer": (
        b"POST /inference HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        501,
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_stream_that_is_not_http_gets_an_error(name: str) -> None:
    data, status = LOST[name]
    peer = Peer().feed(data)
    assert peer.seen == [("lost", "bad_header")]
    assert peer.answer.status == status
    assert peer.answer.headers["connection"] == "close"


def test_broken_chunk_ends_an_upload() -> None:
    head = request(
        "POST",
        TRANSCRIPTIONS,
        Transfer_Encoding="chunked",
        Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
    )
    peer = Peer().feed(head + b"zz\r\n")
    assert peer.names == ["begin", "lost"]
    assert peer.answer.status == 400


def test_body_of_tiny_pieces_is_rejected() -> None:
    """Chunks of one byte, and a repeated line that resembles the end of a part."""
    head = request(
        "POST",
        TRANSCRIPTIONS,
        Transfer_Encoding="chunked",
        Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
    )
    start = form(("file", b""), end=False)[:-2]
    fine, tiny = (b"1\r\nx\r\n" * count for count in (MAX_CHUNKS // 2, MAX_CHUNKS))
    begun = head + b"%x\r\n%s\r\n" % (len(start), start)
    assert Peer().feed(begun, fine, fine, fine).names == ["begin", "body"]
    peer = Peer().feed(begun + tiny)
    assert peer.names[-1] == "lost"
    assert peer.answer.status == 400
    almost = form(("file", f"\r\n--{BOUNDARY}-x".encode() * (MAX_PARTS + 2)))
    peer = Peer().feed(head + chunked(almost, 90_000))
    assert peer.seen[-1] == ("broken", "too_large")


def test_protocol_is_full_while_a_reply_is_due() -> None:
    protocol = HttpProtocol(SITE, lambda: "made")
    protocol.feed(request("GET", "/readyz"))
    assert isinstance(protocol.next_event(), Query)
    assert protocol.idle
    assert not protocol.full
    protocol.feed(request("GET", "/healthz") + b"x" * MAX_HELD_BYTES)
    assert protocol.full
    assert protocol.next_event() is None
    protocol.encode(None, Report(True, "text/plain", b""))
    assert not protocol.full
    assert isinstance(protocol.next_event(), Send)


# Random streams.

NAMES = st.sampled_from(["file", "model", "language", "stream", "response_format", "x"])
VALUES = st.sampled_from(["tiny.en", "en", "true", "text", "srt", ""]) | st.text(max_size=12)
PARTS = st.lists(
    st.tuples(NAMES, VALUES) | st.tuples(st.just("file"), st.binary(max_size=50)), max_size=5
)
CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)
few = settings(max_examples=40)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    stream = b""
    for _ in range(draw(st.integers(1, 3))):
        target = draw(st.sampled_from([TRANSCRIPTIONS, INFERENCE, "/healthz"]))
        if target == "/healthz":
            stream += request("GET", target)
            continue
        body = form(*draw(PARTS))
        headers = {"Content_Type": f"multipart/form-data; boundary={BOUNDARY}"}
        if draw(st.booleans()):
            headers["Transfer_Encoding"] = "chunked"
            stream += request("POST", target, **headers) + chunked(body, draw(st.integers(1, 99)))
        else:
            stream += request("POST", target, body, **headers)
    return stream


def play(pieces: Iterable[bytes], accepts: bool) -> tuple[Seen, bytes, bool]:
    peer = Peer(accepts=accepts).feed(*pieces)
    # The amount of audio received before an error is not compared: it may depend on the split.
    seen = [
        entry
        for entry, after in itertools.zip_longest(peer.seen, peer.seen[1:])
        if entry[0] != "body" or (after and after[0] == "end")
    ]
    return seen, peer.sent, peer.closed


@few
@given(streams(), CUTS, st.booleans())
def test_stream_gives_the_same_events_and_answers_in_any_split(
    stream: bytes, cuts: list[int], accepts: bool
) -> None:
    whole, others = play([stream], accepts), play(split(stream, cuts), accepts)
    names = [entry[0] for entry in whole[0]]
    if "broken" not in names:
        assert others == whole
    else:
        fault = names.index("broken")
        # Another request can follow only if the end of the body is known.
        assert others[0][: fault + 1] == whole[0][: fault + 1]


@few
@given(streams(), CUTS, st.integers(0, 1 << 16), st.binary(min_size=1, max_size=3), st.booleans())
def test_damaged_stream_gives_events_or_one_exception(
    stream: bytes, cuts: list[int], at: int, fault: bytes, accepts: bool
) -> None:
    at %= len(stream)
    broken = stream[:at] + fault + stream[at + len(fault) :]
    seen, sent, closed = play(split(broken, cuts), accepts)
    assert "lost" not in [entry[0] for entry in seen[:-1]]
    assert sent.count(b"HTTP/1.1 ") >= 1 or not closed


@few
@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans())
def test_random_bytes_give_events_or_one_exception(pieces: list[bytes], accepts: bool) -> None:
    seen, _, _ = play(pieces, accepts)
    kinds = [entry[0] for entry in seen]
    # Random bytes can be a whole request: hypothesis draws constants of the code under test.
    assert kinds in ([], ["lost"]) or b"HTTP/" in b"".join(pieces)


@few
@given(st.binary(max_size=300), CUTS)
def test_random_form_ends_in_a_request_or_an_error(body: bytes, cuts: list[int]) -> None:
    inside = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=".encode() + body
    for data in (body, inside):
        head = request(
            "POST",
            TRANSCRIPTIONS,
            data,
            Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
        )
        seen, sent, _ = play(split(head, cuts), True)
        assert seen[-1][0] in ("end", "broken")
        (answer,) = answers(sent)
        assert (answer.status == 200) == (seen[-1][0] == "end")


@few
@given(streams())
def test_responses_of_type_json_are_json(stream: bytes) -> None:
    _, sent, _ = play([stream], True)
    for answer in answers(sent, *["POST"] * sent.count(b"HTTP/1.1 ")):
        if answer.headers["content-type"] == "application/json":
            json.loads(answer.body)


# The size of cues.


@pytest.mark.parametrize("target", [TRANSCRIPTIONS, "/inference"])
@pytest.mark.parametrize(
    ("fields", "layout"),
    [
        ({"response_format": "srt"}, CueLayout(42, 2, 7.0)),
        ({"response_format": "vtt", "max_line_width": ""}, CueLayout(42, 2, 7.0)),
        ({"response_format": "vtt", "max_line_count": "1"}, CueLayout(42, 1, 7.0)),
        ({"response_format": "srt", "max_line_width": "0"}, None),
        ({"response_format": "verbose_json"}, None),
        ({"response_format": "verbose_json", "max_cue_seconds": "3.5"}, CueLayout(42, 2, 3.5)),
        ({"response_format": "verbose_json", "max_line_width": "0"}, None),
        ({"response_format": "json", "max_line_width": "30"}, None),
    ],
)
def test_subtitles_have_a_size_of_cues_and_segments_on_request(
    target: str, fields: dict[str, str], layout: CueLayout | None
) -> None:
    peer = Peer().feed(post(target, ("file", b"a"), *fields.items()))
    assert peer.seen[-1][1].cues == layout


def test_stream_has_a_size_of_cues_on_request() -> None:
    stream = ("file", b"a"), ("stream", "true")
    assert Peer().feed(post(TRANSCRIPTIONS, *stream)).seen[-1][1].cues is None
    peer = Peer().feed(post(TRANSCRIPTIONS, *stream, ("max_line_width", "30")))
    assert peer.seen[-1][1].cues == CueLayout(30, 2, 7.0)


CUES = (
    Segment(0.0, 2.0, "And so my fellow Americans", 0.9, lines=("And so my", "fellow Americans")),
    Segment(2.0, 4.0, "ask not", 0.9, channel=2, lines=("ask <not>",)),
)


def test_cues_keep_their_lines_in_every_format() -> None:
    transcript = transcript_of("And so my fellow Americans ask not", segments=CUES)

    def answer(form: str) -> Answer:
        peer = Peer(reply=lambda _id: transcript)
        return peer.feed(post(TRANSCRIPTIONS, ("file", b"a"), ("response_format", form))).answer

    assert answer("srt").body.decode() == (
        "1\n00:00:00,000 --> 00:00:02,000\nAnd so my\nfellow Americans\n\n"
        "2\n00:00:02,000 --> 00:00:04,000\nChannel 2: ask <not>\n\n"
    )
    assert "<v Channel 2>ask &lt;not&gt;\n" in answer("vtt").body.decode()
    first, _ = answer("verbose_json").json["segments"]
    assert (first["text"], first["lines"]) == (CUES[0].text, list(CUES[0].lines or ()))
    assert answer("text").body == b"And so my fellow Americans ask not\n"


# Truncated audio.


@pytest.mark.parametrize("target", [TRANSCRIPTIONS, "/inference"])
def test_truncated_audio_is_reported_in_every_format(target: str) -> None:
    def answer(form: str, truncated: bool) -> Answer:
        transcript = transcript_of("one", truncated=truncated)
        peer = Peer(reply=lambda _id: transcript)
        return peer.feed(post(target, ("file", b"a"), ("response_format", form))).answer

    for name in ("json", "verbose_json"):
        assert answer(name, True).json["truncated"] is True
        assert answer(name, False).json["truncated"] is False
    for name in ("text", "srt", "vtt", "json"):
        assert answer(name, True).headers["x-truncated"] == "true"
        assert "x-truncated" not in answer(name, False).headers


def test_truncated_audio_is_reported_at_the_end_of_a_stream() -> None:
    transcript = transcript_of("one", truncated=True)
    peer = Peer(reply=lambda _id: transcript)
    peer.feed(post(TRANSCRIPTIONS, ("file", b"a"), ("stream", "true")))
    assert peer.answer.events[-1]["truncated"] is True
