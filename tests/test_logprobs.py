"""Probabilities of tokens on OpenAI's routes: who receives them, and in which shape."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from fakes import RATE, Node, encoded, eventually, hypothesis_of, tone
from forms import TRANSCRIPTIONS, Answer, form
from http_node import BEARER, ask, http_node

from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions
from app.messages import Origin, Request, TextToken
from app.storage.record import Record, decode, encode

BOUNDARY = "multipart/form-data; boundary=XyZ0"
WAV = encoded(tone(RATE))
TOKENS = (
    TextToken(b"One", -0.25),
    TextToken(b" ", -0.5),
    TextToken("日".encode()[:2], -math.inf),
    TextToken("日".encode()[2:], -1.0),
)


def with_tokens(_samples: Any, options: DecodeOptions) -> Hypothesis:
    """A hypothesis with tokens if the options ask for them, as of the engine."""
    whole = hypothesis_of("One 日", 1.0)
    (segment,) = whole.segments
    return replace(whole, segments=(replace(segment, tokens=TOKENS if options.tokens else None),))


@pytest.fixture
def node(make_node: Any) -> Node:
    found = http_node(make_node)
    found.engine.answer = with_tokens
    return found


def post(node: Node, *fields: tuple[str, str], path: str = TRANSCRIPTIONS) -> Answer:
    body = form(*fields, ("file", WAV))
    return ask(node, "POST", path, body, Content_Type=BOUNDARY, **BEARER)


EXPECTED = [
    {"token": "One", "bytes": [79, 110, 101], "logprob": -0.25},
    {"token": " ", "bytes": [32], "logprob": -0.5},
    {"token": "\ufffd", "bytes": [0xE6, 0x97], "logprob": -9999.0},
    {"token": "\ufffd", "bytes": [0xA5], "logprob": -1.0},
]


@pytest.mark.parametrize(
    "field", [("include[]", "logprobs"), ("include", "logprobs"), ("include", '["logprobs"]')]
)
def test_json_has_the_tokens_of_the_text(node: Node, field: tuple[str, str]) -> None:
    answer = post(node, field)
    assert answer.json["text"] == "One 日"
    assert answer.json["logprobs"] == EXPECTED
    assert "x-ignored-fields" not in answer.headers


def test_answer_has_no_tokens_unless_requested(node: Node) -> None:
    assert "logprobs" not in post(node).json
    assert "logprobs" not in post(node, ("include", "")).json
    for event in post(node, ("stream", "true")).events:
        assert "logprobs" not in event
    assert not any(options.tokens for _, options in node.engine.calls)


def test_stream_has_the_tokens_of_each_delta_and_of_the_whole(node: Node) -> None:
    delta, done = post(node, ("stream", "true"), ("include[]", "logprobs")).events
    assert (delta["delta"], delta["logprobs"]) == ("One 日", EXPECTED)
    assert (done["text"], done["logprobs"]) == ("One 日", EXPECTED)


def test_text_without_words_has_an_empty_list(node: Node) -> None:
    node.engine.answer = lambda samples, options: hypothesis_of("", 1.0)
    assert post(node, ("include", "logprobs")).json["logprobs"] == []
    (done,) = post(node, ("include", "logprobs"), ("stream", "true")).events
    assert done["logprobs"] == []


@pytest.mark.parametrize("name", ["text", "srt", "vtt", "verbose_json"])
def test_other_formats_are_rejected_by_name(node: Node, name: str) -> None:
    answer = post(node, ("include[]", "logprobs"), ("response_format", name))
    assert answer.status == 400
    assert answer.error["param"] == "include"
    assert answer.error["message"] == "include logprobs needs response_format json"


def test_unknown_value_is_rejected_by_name(node: Node) -> None:
    answer = post(node, ("include[]", "logprobs"), ("include[]", "usage"))
    assert (answer.status, answer.error["param"]) == (400, "include")
    assert answer.error["message"] == "include must be logprobs, not 'usage'"


def test_stdout_is_the_same_with_tokens(node: Node) -> None:
    for fields in ((), (("include", "logprobs"),)):
        post(node, *fields)
    eventually(lambda: len(node.lines.written) == 2)
    first, second = node.lines.written
    assert first.keys() == second.keys()
    assert "tokens" not in str(second)


def test_journal_keeps_the_request_for_tokens() -> None:
    request = Request("r", None, logprobs=True)
    record = Record(request, Origin("peer", 1.0), 3, 0)
    assert decode(encode(record)).request == request
