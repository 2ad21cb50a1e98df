"""The protocol of vosk-server without IO, with the habits of its clients."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sockets import BINARY, Peer, close, frame, text

from app.live import Committed, LiveOptions, Partial, SpeechBegan
from app.messages import (
    BAD_FIELD,
    BUSY,
    INTERNAL,
    Begin,
    Failure,
    RawFormat,
    Request,
    Segment,
    Streamed,
    Utterance,
    Word,
)
from app.protocols.vosk.dialogue import MAX_TEXT, VoskDialogue
from app.protocols.websocket.session import WebSocketSession

CHUNK = frame(BINARY, bytes(3200))
EOF = text('{"eof" : 1}')
RESET = text('{"reset" : 1}')
STREAMED = Streamed("en", 0, 0, 1.0, 0.1, "tiny.en", truncated=False)


def session(accepts: bool | None = True) -> Peer:
    return Peer(WebSocketSession(VoskDialogue(), lambda: "made", None), accepts)


def configured(**config: Any) -> Peer:
    return session().say({"config": config})


def request_of(peer: Peer) -> Request:
    begin = next(event for event in reversed(peer.events) if isinstance(event, Begin))
    return begin.request


def utterance(words: str, start: float = 0.0, timed: bool = True) -> Utterance:
    spoken = tuple(
        Word(start + number, start + number + 0.5, word, 0.75)
        for number, word in enumerate(words.split())
    )
    segment = Segment(start, start + 5, words, 0.5, spoken if timed else None)
    return Utterance(start, start + 5, (segment,) if words else (), "en")


def test_every_binary_message_has_one_reply_at_once() -> None:
    """Clients in lock-step read one reply after each message, so none may wait for the worker."""
    peer = session()
    for _ in range(5):
        assert peer.feed(CHUNK).texts() == [{"partial": ""}]
    assert len(peer.audio) == 5 * 3200
    assert request_of(peer).raw == RawFormat("s16", 8_000, 1, "little")
    assert request_of(peer).live == LiveOptions(0.5, partials=True)


def test_reply_does_not_wait_for_a_place() -> None:
    assert session(accepts=None).feed(CHUNK).texts() == [{"partial": ""}]


def test_message_in_fragments_has_one_reply() -> None:
    peer = session().feed(frame(BINARY, bytes(10), fin=False), frame(0, bytes(10)))
    assert peer.texts() == [{"partial": ""}]
    assert peer.feed(frame(BINARY, b"")).texts() == [{"partial": ""}]


def test_replies_follow_the_state_of_the_worker() -> None:
    peer = session().feed(CHUNK)
    peer.take()
    peer.reply(Partial("and so", " my"))
    assert peer.feed(CHUNK, CHUNK).texts() == [{"partial": "and so my"}] * 2
    peer.reply(utterance("and so my"), utterance("fellow", 6.0))
    assert peer.texts() == []
    first, second, third = peer.feed(CHUNK, CHUNK, CHUNK).texts()
    assert first["text"] == "and so my"
    assert first["result"][1] == {"conf": 0.75, "start": 1.0, "end": 1.5, "word": "so"}
    assert second["text"] == "fellow"
    assert third == {"partial": ""}


def test_speech_without_words_is_not_a_result() -> None:
    peer = session().feed(CHUNK)
    peer.take()
    peer.reply(SpeechBegan(0.0), utterance(""))
    assert peer.feed(CHUNK).texts() == [{"partial": ""}]


def test_eof_gives_all_text_that_was_not_sent_and_closes() -> None:
    peer = session().feed(CHUNK, EOF)
    assert peer.kinds == ["Begin", "End"]
    assert peer.texts() == [{"partial": ""}]
    peer.reply(utterance("one two"), utterance("three", 6.0), STREAMED)
    final, last = peer.take()
    assert final.json["text"] == "one two three"
    assert [word["word"] for word in final.json["result"]] == ["one", "two", "three"]
    assert last.code == 1000
    assert peer.ended


def test_eof_without_audio_gives_an_empty_text() -> None:
    final, last = session().feed(EOF).take()
    assert final.json == {"text": ""}
    assert last.code == 1000


def test_reset_gives_the_text_and_goes_on() -> None:
    peer = session().feed(CHUNK, RESET)
    assert peer.kinds == ["Begin", "Commit"]
    peer.take()
    peer.reply(Partial("one", ""), utterance("one"), Committed(0.2))
    assert [event["text"] for event in peer.texts()] == ["one"]
    assert peer.feed(CHUNK).texts() == [{"partial": ""}]
    assert not peer.ended


def test_reset_without_audio_gives_an_empty_text() -> None:
    assert session().feed(RESET).texts() == [{"text": ""}]


@pytest.mark.parametrize("rate", [8_000, 16_000, 16_000.0, 48_000])
def test_config_sets_the_rate_without_a_reply(rate: float) -> None:
    peer = configured(sample_rate=rate)
    assert peer.take() == []
    peer.feed(CHUNK)
    assert request_of(peer).raw == RawFormat("s16", int(rate), 1, "little")


def test_config_of_other_options() -> None:
    peer = configured(
        words=False,
        max_alternatives=3,
        phrase_list=["zero one", "[unk]", "seven"],
        model="vosk-model-small-en-us",
    )
    peer.feed(CHUNK)
    request = request_of(peer)
    assert (request.prompt, request.word_timestamps) == ("zero one, seven", False)
    peer.take()
    peer.reply(utterance("one two"))
    (result,) = peer.feed(CHUNK).texts()
    assert result == {"alternatives": [{"confidence": 0.5, "text": "one two"}]}


def test_alternatives_with_words() -> None:
    peer = configured(max_alternatives=1).feed(CHUNK)
    peer.take()
    peer.reply(utterance("one"))
    (result,) = peer.feed(CHUNK).texts()
    (alternative,) = result["alternatives"]
    assert alternative["result"] == [{"start": 0.0, "end": 0.5, "word": "one"}]


def test_segments_without_word_times_have_no_words() -> None:
    peer = session().feed(CHUNK)
    peer.take()
    peer.reply(utterance("one", timed=False))
    assert peer.feed(CHUNK).texts() == [{"text": "one"}]


def test_change_of_the_rate_begins_another_stream() -> None:
    peer = session().feed(CHUNK).say({"config": {"sample_rate": 16_000}}).feed(CHUNK)
    assert peer.kinds == ["Begin", "End"]
    peer.reply(utterance("one"), STREAMED)
    assert peer.kinds == ["Begin", "End", "Begin"]
    assert request_of(peer).raw == RawFormat("s16", 16_000, 1, "little")
    assert [event.get("text") for event in peer.texts()] == [None, "one"]


def test_empty_string_means_that_there_is_no_text() -> None:
    """FreeSWITCH's module takes any reply with two quotes in a row for nothing."""
    peer = session()
    peer.feed(CHUNK)
    assert b'""' in peer.sent
    peer.sent = b""
    peer.reply(Partial("", "one"), utterance('say "a\\" "b"'))
    peer.feed(CHUNK, CHUNK)
    found = peer.take()
    assert found[0].json["text"] == 'say "a\\" "b"'
    for message in found:
        assert (b'""' in message.data) == (message.json == {"partial": ""})


@pytest.mark.parametrize(
    "words", ["", "{", "[]", "7", "[" * 60_000, '{"config": "' + "x" * MAX_TEXT + '"}']
)
def test_invalid_text_closes_with_1007(words: str) -> None:
    peer = session().feed(text(words))
    assert peer.take()[-1].code == 1007


@pytest.mark.parametrize(
    "config",
    [
        {"sample_rate": 5},
        {"sample_rate": "8000"},
        {"sample_rate": True},
        {"max_alternatives": "1"},
        {"phrase_list": "one"},
        {"phrase_list": ["x" * 20_000]},
    ],
)
def test_invalid_config_closes_with_its_reason(config: dict[str, Any]) -> None:
    peer = configured(**config)
    last = peer.take()[-1]
    assert last.code == 1008
    assert next(iter(config)).encode() in last.data


@pytest.mark.parametrize("message", ["{}", '{"config": 7}', '{"other": 1}'])
def test_other_messages_are_ignored(message: str) -> None:
    peer = session().feed(text(message))
    assert peer.take() == []
    assert not peer.ended


@pytest.mark.parametrize(("code", "closed"), [(BAD_FIELD, 1008), (INTERNAL, 1011), (BUSY, 1013)])
def test_failure_closes_with_its_reason(code: str, closed: int) -> None:
    peer = session().feed(CHUNK)
    peer.take()
    peer.reply(Failure(code, "because"))
    (last,) = peer.take()
    assert (last.code, last.data[2:]) == (closed, b"because")


def test_client_that_closes_gets_no_result() -> None:
    peer = session().feed(CHUNK, close())
    assert peer.kinds == ["Begin", "Clear", "End"]
    assert [message.opcode for message in peer.take()] == [1, 8]


STEPS = st.one_of(
    st.just(CHUNK),
    st.builds(Partial, st.sampled_from(["", "a"]), st.sampled_from(["", " b"])),
    st.builds(utterance, st.sampled_from(["", "a b", "c"])),
)


@given(st.lists(STEPS, max_size=30))
def test_replies_equal_binary_messages_and_no_text_is_lost_or_repeated(story: list[Any]) -> None:
    peer = session().feed(CHUNK)
    for step in story:
        peer.feed(step) if isinstance(step, bytes) else peer.reply(step)
    before = peer.texts()
    assert len(before) == 1 + sum(isinstance(step, bytes) for step in story)
    peer.feed(EOF).reply(STREAMED)
    final = json.loads(peer.take()[0].data)
    told = [event["text"] for event in (*before, final) if event.get("text")]
    said = [step.segments[0].text for step in story if getattr(step, "segments", None)]
    assert " ".join(told) == " ".join(said)
