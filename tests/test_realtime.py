"""OpenAI's Realtime API without IO: events in, streams out; reports in, events out."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from sockets import BINARY, Peer, append, close, frame, text

from app.live import (
    Clear,
    Commit,
    Committed,
    Configure,
    LiveOptions,
    Partial,
    SpeechBegan,
    SpeechEnded,
)
from app.messages import (
    BAD_FIELD,
    BUSY,
    INTERNAL,
    Begin,
    End,
    Failure,
    RawFormat,
    Request,
    Segment,
    Streamed,
    TextToken,
    Utterance,
)
from app.protocols.model_names import ModelNames
from app.protocols.realtime.config import Node
from app.protocols.realtime.dialogue import MAX_EVENT_BYTES, RealtimeDialogue
from app.protocols.realtime.g711 import ALAW, ULAW, expanded
from app.protocols.websocket.session import WebSocketSession

ENGLISH = ModelNames("tiny.en-q8_0", frozenset({"tiny.en", "tiny.en-q8_0"}))
NODE = Node(ENGLISH, frozenset({"en"}), "en", 0.5, multilingual=False)
MANY = Node(
    ModelNames("tiny", frozenset({"tiny"})),
    frozenset({"en", "de", "fr"}),
    "auto",
    0.6,
    multilingual=True,
)
SECOND = bytes(2 * 24_000)
"""One second of the default format."""

COMMIT = {"type": "input_audio_buffer.commit", "event_id": "mine"}
CLEAR = {"type": "input_audio_buffer.clear"}
STREAMED = Streamed("en", 0, 0, 1.0, 0.1, "tiny.en", truncated=False)
ITEM = "conversation.item"
TRANSCRIPTION = f"{ITEM}.input_audio_transcription"
BUFFER = "input_audio_buffer"


def session(node: Node = NODE, older: bool = False, accepts: bool | None = True) -> Peer:
    peer = Peer(WebSocketSession(RealtimeDialogue(node, "abc", older), lambda: "made", None))
    peer.accepts = accepts
    return peer


def opened(node: Node = NODE, **audio: Any) -> Peer:
    """A session that has told its configuration, with the fields of `audio.input`."""
    peer = session(node)
    if audio:
        peer.say(update(**audio))
    peer.take()
    return peer


def manual(node: Node = NODE) -> Peer:
    return opened(node, turn_detection=None)


def update(**audio: Any) -> dict[str, Any]:
    return {
        "type": "session.update",
        "session": {"type": "transcription", "audio": {"input": audio}},
    }


def utterance(words: str, start: float = 0.0, end: float = 1.0) -> Utterance:
    segments = (Segment(start, end, words, 0.9),) if words else ()
    return Utterance(start, end, segments, "en")


def kinds(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]


def request_of(peer: Peer) -> Request:
    begin = next(event for event in reversed(peer.events) if isinstance(event, Begin))
    return begin.request


# The session and its configuration.


def test_session_created_comes_first() -> None:
    (created,) = session().texts()
    assert created["type"] == "session.created"
    assert created["session"] == {
        "id": "sess_abc",
        "object": "realtime.transcription_session",
        "type": "transcription",
        "expires_at": None,
        "include": None,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "noise_reduction": None,
                "transcription": {"model": "tiny.en-q8_0", "language": "en", "prompt": ""},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                },
            }
        },
    }


def test_session_created_fits_openais_types() -> None:
    (created,) = session().texts()
    SERVER_EVENTS["session.created"].model_validate(created)


def test_older_dialect_has_its_own_names_and_fields() -> None:
    peer = session(older=True)
    (created,) = peer.texts()
    assert created["type"] == "transcription_session.created"
    assert created["session"]["input_audio_format"] == "pcm16"
    assert "audio" not in created["session"]
    peer.say(
        {
            "type": "transcription_session.update",
            "session": {
                "input_audio_format": "g711_ulaw",
                "input_audio_transcription": {"model": "gpt-4o-transcribe", "prompt": "names"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.3,
                    "prefix_padding_ms": 600,
                    "silence_duration_ms": 350,
                },
                "input_audio_noise_reduction": {"type": "near_field"},
                "include": ["item.input_audio_transcription.logprobs"],
            },
        }
    )
    (changed,) = peer.texts()
    assert changed["type"] == "transcription_session.updated"
    assert changed["session"]["input_audio_format"] == "g711_ulaw"
    assert changed["session"]["turn_detection"]["silence_duration_ms"] == 350
    peer.say(append(bytes(8000)))
    assert request_of(peer).raw == RawFormat("s16", 8_000, 1, "little")
    assert request_of(peer).live == LiveOptions(0.35, 0.3, 0.6, partials=True, reports_speech=True)
    assert request_of(peer).prompt == "names"
    peer.reply(SpeechEnded(0.5))
    assert kinds(peer.texts()) == [
        f"{BUFFER}.speech_stopped",
        f"{BUFFER}.committed",
        f"{ITEM}.created",
    ]


def test_update_in_the_older_form_changes_the_dialect() -> None:
    """A plugin that does not name the beta in its header."""
    peer = opened()
    peer.say({"type": "transcription_session.update", "session": {}})
    assert kinds(peer.texts()) == ["transcription_session.updated"]
    peer.say(append(SECOND)).reply(SpeechEnded(0.5))
    assert kinds(peer.texts())[-1] == f"{ITEM}.created"


def test_update_changes_only_the_fields_it_has() -> None:
    peer = opened(MANY, transcription={"language": "de", "prompt": "Namen"})
    peer.say(update(turn_detection={"type": "server_vad", "silence_duration_ms": 200}))
    peer.say(update(turn_detection={"type": "server_vad", "threshold": 0.9}))
    peer.say(update(transcription={"prompt": None}))
    (*_, last) = peer.texts()
    found = last["session"]["audio"]["input"]
    assert found["transcription"] == {"model": "tiny", "language": "de", "prompt": ""}
    assert found["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.9,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
    }
    peer.say(update(transcription=None, turn_detection=None))
    found = peer.texts()[-1]["session"]["audio"]["input"]
    assert found["transcription"] == {"model": "tiny", "language": "auto", "prompt": ""}
    assert found["turn_detection"] is None


@pytest.mark.parametrize(
    ("given_", "raw"),
    [
        (None, RawFormat("s16", 24_000, 1, "little")),
        ({"type": "audio/pcm"}, RawFormat("s16", 24_000, 1, "little")),
        ({"type": "audio/pcm", "rate": 16_000}, RawFormat("s16", 16_000, 1, "little")),
        ({"type": "audio/pcm", "rate": 8_000}, RawFormat("s16", 8_000, 1, "little")),
        ({"type": "audio/pcm", "rate": 48_000}, RawFormat("s16", 48_000, 1, "little")),
        ({"type": "audio/pcmu"}, RawFormat("s16", 8_000, 1, "little")),
        ("g711_alaw", RawFormat("s16", 8_000, 1, "little")),
    ],
)
def test_format_of_the_audio(given_: Any, raw: RawFormat) -> None:
    peer = opened(format=given_).say(append(bytes(100)))
    assert request_of(peer).raw == raw


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"format": {"type": "audio/opus"}}, "session.audio.input.format.type"),
        ({"format": 7}, "session.audio.input.format"),
        ({"format": {"type": "audio/pcm", "rate": 7_999}}, "session.audio.input.format.rate"),
        ({"format": {"type": "audio/pcm", "rate": 48_001}}, "session.audio.input.format.rate"),
        ({"format": {"type": "audio/pcm", "rate": 16_000.5}}, "session.audio.input.format.rate"),
        ({"format": {"type": "audio/pcm", "rate": True}}, "session.audio.input.format.rate"),
        ({"transcription": []}, "session.audio.input.transcription"),
        ({"transcription": {"language": "de"}}, "session.audio.input.transcription.language"),
        ({"transcription": {"language": "??"}}, "session.audio.input.transcription.language"),
        ({"transcription": {"language": 5}}, "session.audio.input.transcription.language"),
        ({"transcription": {"prompt": "x" * 20_000}}, "session.audio.input.transcription.prompt"),
        ({"transcription": {"keywords": "x"}}, "session.audio.input.transcription.keywords"),
        ({"transcription": {"languages": ["xx"]}}, "session.audio.input.transcription.languages"),
        ({"transcription": {"model": {}}}, "session.audio.input.transcription.model"),
        ({"turn_detection": {"type": "magic"}}, "session.audio.input.turn_detection"),
        ({"turn_detection": "server_vad"}, "session.audio.input.turn_detection"),
        ({"turn_detection": {"threshold": 1.5}}, "session.audio.input.turn_detection"),
        ({"turn_detection": {"threshold": float("nan")}}, "session.audio.input.turn_detection"),
        ({"turn_detection": {"silence_duration_ms": -1}}, "session.audio.input.turn_detection"),
        ({"turn_detection": {"silence_duration_ms": "9"}}, "session.audio.input.turn_detection"),
        ({"turn_detection": {"prefix_padding_ms": 1e99}}, "session.audio.input.turn_detection"),
        (
            {"turn_detection": {"type": "semantic_vad", "eagerness": []}},
            "session.audio.input.turn_detection",
        ),
    ],
)
def test_invalid_update_names_its_field_and_changes_nothing(
    fields: dict[str, Any], param: str
) -> None:
    peer = opened()
    before = session().texts()[0]["session"]
    peer.say({**update(**fields), "event_id": "mine"})
    (error,) = peer.texts()
    assert error["type"] == "error"
    assert error["error"]["type"] == "invalid_request_error"
    assert error["error"]["param"] == param
    assert error["error"]["event_id"] == "mine"
    assert error["error"]["code"] in ("invalid_value", "invalid_type")
    peer.say(update())
    assert peer.texts()[0]["session"] == before


def test_conversation_session_is_refused_and_its_fields_are_not_read() -> None:
    peer = opened()
    peer.say({"type": "session.update", "session": {"type": "realtime", "instructions": "talk"}})
    (error,) = peer.texts()
    assert error["error"]["param"] == "session.type"


@pytest.mark.parametrize(
    ("eagerness", "milliseconds"), [("low", 1500), ("medium", 800), ("auto", 800), ("high", 500)]
)
def test_semantic_vad_is_a_silence(eagerness: str, milliseconds: int) -> None:
    peer = opened()
    peer.say(update(turn_detection={"type": "semantic_vad", "eagerness": eagerness}))
    turns = peer.texts()[0]["session"]["audio"]["input"]["turn_detection"]
    assert turns["type"] == "server_vad"
    assert turns["silence_duration_ms"] == milliseconds


def test_any_model_and_unknown_fields_are_accepted() -> None:
    peer = opened()
    peer.say(
        update(
            transcription={"model": "gpt-4o-transcribe", "delay": "low"},
            noise_reduction={"type": "far_field"},
            something={"new": 1},
            turn_detection={
                "type": "server_vad",
                "idle_timeout_ms": 5000,
                "create_response": False,
                "interrupt_response": True,
            },
        )
    )
    (changed,) = peer.texts()
    assert changed["session"]["audio"]["input"]["transcription"]["model"] == "tiny.en-q8_0"
    assert request_of(peer.say(append(SECOND))).model == "gpt-4o-transcribe"
    assert changed["session"]["audio"]["input"]["noise_reduction"] is None


def test_strict_node_refuses_other_models() -> None:
    strict = replace(NODE, names=replace(ENGLISH, strict=True))
    peer = opened(strict).say(update(transcription={"model": "gpt-4o-transcribe"}))
    (error,) = peer.texts()
    assert error["error"]["code"] == "model_not_found"
    assert error["error"]["param"] == "session.audio.input.transcription.model"
    peer.say(update(transcription={"model": "tiny.en"}))
    assert peer.texts()[0]["type"] == "session.updated"


def test_request_has_language_prompt_and_keywords() -> None:
    peer = opened(
        MANY,
        transcription={
            "language": "English",
            "prompt": "about ships",
            "keywords": ["Bering", " La  Pérouse "],
        },
    )
    peer.say(append(SECOND))
    request = request_of(peer)
    assert (request.language, request.reply, request.keep_alive) == ("en", "segments", True)
    assert request.prompt == "about ships Bering, La Pérouse"


def test_languages_restrict_detection() -> None:
    peer = opened(MANY, transcription={"languages": ["de", "en"]}).say(append(SECOND))
    assert request_of(peer).languages == ("de", "en")
    assert request_of(peer).language is None


def test_change_between_utterances_configures_the_stream() -> None:
    peer = opened(MANY).say(append(SECOND))
    peer.say(update(transcription={"language": "fr", "prompt": "mots"}))
    peer.say(update(turn_detection={"silence_duration_ms": 900}))
    peer.say(update(transcription={"language": None}))
    peer.say(update())
    configures = [event for event in peer.events if isinstance(event, Configure)]
    assert [(one.language, one.prompt) for one in configures] == [
        ("fr", "mots"),
        ("fr", "mots"),
        ("auto", "mots"),
    ]
    assert configures[1].options.end_pause == 0.9
    assert "End" not in peer.kinds


@pytest.mark.parametrize(
    "fields",
    [
        {"format": {"type": "audio/pcm", "rate": 16_000}},
        {"turn_detection": None},
        {"transcription": {"languages": ["de"]}},
    ],
)
def test_other_changes_begin_another_stream(fields: dict[str, Any]) -> None:
    peer = opened(MANY).say(append(SECOND), update(**fields), append(bytes(3200)))
    assert peer.kinds == ["Begin", "End"]
    peer.reply(SpeechBegan(0.25), SpeechEnded(0.75), utterance("one", 0.5, 0.75), STREAMED)
    assert peer.kinds == ["Begin", "End", "Begin"]
    peer.take()
    # Positions count from the beginning of the session.
    if fields != {"turn_detection": None}:
        peer.reply(SpeechBegan(0.5))
        assert peer.texts()[0]["audio_start_ms"] == 1500


# Audio.


def test_audio_reaches_the_worker_as_it_was_sent() -> None:
    samples = bytes(range(256)) * 64
    peer = opened().say(append(samples[:100]), append(samples[100:101]), append(samples[101:]))
    assert peer.audio == samples
    assert peer.texts() == []


@pytest.mark.parametrize(("name", "table"), [("ULAW", ULAW), ("ALAW", ALAW)])
def test_g711_equals_libsndfile(name: str, table: tuple[bytes, bytes]) -> None:
    codes = bytes(range(256))
    samples, _ = soundfile.read(
        io.BytesIO(codes), format="RAW", subtype=name, samplerate=8000, channels=1, dtype="int16"
    )
    assert np.array_equal(np.frombuffer(expanded(codes, table), "<i2"), samples)


def test_g711_is_expanded_before_the_worker() -> None:
    peer = opened(format={"type": "audio/pcmu"}).say(append(b"\xff\x00\x80"))
    assert np.frombuffer(peer.audio, "<i2").tolist() == [0, -32124, 32124]


@pytest.mark.parametrize("audio", ["!!!!", "AAA", "AA==AA==", "ÄÖÜ0", "AAAA\n", 5, None, ["AAAA"]])
def test_invalid_audio_is_an_error_and_changes_nothing(audio: Any) -> None:
    peer = opened().say({"type": "input_audio_buffer.append", "audio": audio, "event_id": "x"})
    (error,) = peer.texts()
    assert (error["error"]["param"], error["error"]["event_id"]) == ("audio", "x")
    assert peer.kinds == []
    assert not peer.ended


def test_empty_audio_begins_nothing() -> None:
    assert opened().say(append(b"")).kinds == []


# Server VAD.


def test_events_of_an_utterance_come_in_openais_order() -> None:
    peer = opened().say(append(SECOND))
    peer.reply(
        SpeechBegan(0.2),
        Partial("", "and"),
        Partial("and so", " my"),
        Partial("and so my", ""),
        SpeechEnded(0.9),
        utterance("and so my fellow", 0.4, 0.8),
    )
    events = peer.texts()
    assert kinds(events) == [
        f"{BUFFER}.speech_started",
        f"{TRANSCRIPTION}.delta",
        f"{TRANSCRIPTION}.delta",
        f"{BUFFER}.speech_stopped",
        f"{BUFFER}.committed",
        f"{ITEM}.added",
        f"{ITEM}.done",
        f"{TRANSCRIPTION}.delta",
        f"{TRANSCRIPTION}.completed",
    ]
    (item,) = {event.get("item_id") or event["item"]["id"] for event in events}
    started, *_, completed = events
    assert (started["audio_start_ms"], events[3]["audio_end_ms"]) == (200, 900)
    assert events[4]["previous_item_id"] is None
    assert events[5]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    deltas = "".join(event["delta"] for event in events if "delta" in event)
    assert deltas == completed["transcript"] == "and so my fellow"
    assert completed["usage"] == {"type": "duration", "seconds": 0.7}
    assert completed["item_id"] == item
    assert len({event["event_id"] for event in events}) == len(events)


def test_client_that_asks_for_partials_gets_changing_text_and_confidences() -> None:
    """An extension that the node's page uses; deltas stay as they are."""
    peer = opened().say(
        {
            "type": "session.update",
            "session": {"include": ["item.input_audio_transcription.partial", "other"]},
        }
    )
    assert peer.texts()[0]["session"]["include"] == ["item.input_audio_transcription.partial"]
    peer.say(append(SECOND))
    peer.reply(SpeechBegan(0.0), Partial("", "an"), Partial("and", "so"), Partial("and", "some"))
    _, first, delta, second, third = peer.texts()
    assert first["type"] == f"{TRANSCRIPTION}.partial"
    assert (first["stable"], first["rest"]) == ("", "an")
    assert delta["delta"] == "and"
    assert (second["stable"], second["rest"]) == ("and", "so")
    assert (third["stable"], third["rest"]) == ("and", "some")
    peer.reply(SpeechEnded(1.0), utterance("and so"))
    assert peer.texts()[-1]["confidence"] == 0.9
    peer.say({"type": "session.update", "session": {"include": None}})
    assert peer.texts()[0]["session"]["include"] is None


def test_client_that_asks_for_probabilities_gets_those_of_the_final_text() -> None:
    wanted = "item.input_audio_transcription.logprobs"
    peer = opened().say({"type": "session.update", "session": {"include": [wanted]}})
    assert peer.texts()[0]["session"]["include"] == [wanted]
    peer.say(append(SECOND))
    assert request_of(peer).logprobs
    peer.reply(SpeechBegan(0.0), Partial("and so", " my"), SpeechEnded(1.0))
    tokens = (TextToken(b"And so", -1.0), TextToken(b", my", -2.0), TextToken(b" own", -3.0))
    segment = Segment(0.0, 1.0, "And so, my own", 0.9, tokens=tokens)
    peer.reply(Utterance(0.0, 1.0, (segment,), "en"))
    events = peer.texts()
    deltas = [event for event in events if event["type"] == f"{TRANSCRIPTION}.delta"]
    assert [event["delta"] for event in deltas] == ["and so", " my own"]
    # A text that may still change has no probabilities.
    assert "logprobs" not in deltas[0]
    assert deltas[1]["logprobs"] == [
        {"token": " my", "bytes": [32, 109, 121], "logprob": -2.0},
        {"token": " own", "bytes": [32, 111, 119, 110], "logprob": -3.0},
    ]
    assert [one["token"] for one in events[-1]["logprobs"]] == ["And so", ", my", " own"]
    for event in events:
        if event["type"] in SERVER_EVENTS:
            SERVER_EVENTS[event["type"]].model_validate(event)


def test_item_of_several_utterances_has_the_tokens_of_its_whole_text() -> None:
    wanted = "item.input_audio_transcription.logprobs"
    peer = manual().say({"type": "session.update", "session": {"include": [wanted]}})
    peer.say(append(SECOND), COMMIT)
    for word in ("one", "", "two"):
        found = utterance(word)
        segments = tuple(
            replace(segment, tokens=(TextToken(word.encode(), -0.5),)) for segment in found.segments
        )
        peer.reply(replace(found, segments=segments))
    peer.reply(Committed(1.0))
    completed = peer.texts()[-1]
    assert completed["transcript"] == "one two"
    assert [one["token"] for one in completed["logprobs"]] == ["one", " two"]


def test_request_for_probabilities_begins_another_stream() -> None:
    peer = opened().say(append(SECOND))
    wanted = "item.input_audio_transcription.logprobs"
    peer.say({"type": "session.update", "session": {"include": [wanted]}})
    assert isinstance(peer.events[-1], End)
    peer.reply(STREAMED)
    peer.say(append(SECOND))
    assert request_of(peer).logprobs


def test_deltas_go_on_where_only_case_and_punctuation_differ() -> None:
    peer = opened().say(append(SECOND))
    peer.reply(SpeechBegan(0.0), Partial("and so my", " fell"), SpeechEnded(1.0))
    peer.reply(utterance("And so, my fellow Americans."))
    events = peer.texts()
    assert [event["delta"] for event in events if "delta" in event] == [
        "and so my",
        " fellow Americans.",
    ]
    assert events[-1]["transcript"] == "And so, my fellow Americans."


def test_partial_of_a_later_utterance_follows_the_text_before_it() -> None:
    peer = manual().say(
        {
            "type": "session.update",
            "session": {"include": ["item.input_audio_transcription.partial"]},
        },
        append(SECOND),
    )
    peer.reply(utterance("one two"))
    peer.take()
    peer.reply(Partial("", "three"), Partial("three", " four"))
    shown = [e["stable"] + e["rest"] for e in peer.texts() if e["type"].endswith("partial")]
    assert shown == ["one two three", "one two three four"]


def test_final_text_that_differs_is_only_in_completed() -> None:
    peer = opened().say(append(SECOND))
    peer.reply(SpeechBegan(0.0), Partial("an so", ""), SpeechEnded(1.0), utterance("and so"))
    events = peer.texts()
    assert [event["delta"] for event in events if "delta" in event] == ["an so"]
    assert events[-1]["transcript"] == "and so"


def test_items_are_linked_and_matched_by_id() -> None:
    """The next utterance may begin before the text of the one before it is there."""
    peer = opened().say(append(SECOND))
    peer.reply(
        SpeechBegan(0.0),
        SpeechEnded(1.0),
        SpeechBegan(2.0),
        utterance("one", 0.2, 0.9),
        SpeechEnded(3.0),
        utterance("two", 2.2, 2.9),
    )
    events = peer.texts()
    started = [event["item_id"] for event in events if event["type"].endswith("speech_started")]
    completed = {e["item_id"]: e["transcript"] for e in events if "transcript" in e}
    committed = [event for event in events if event["type"].endswith("committed")]
    assert completed == {started[0]: "one", started[1]: "two"}
    assert [event["previous_item_id"] for event in committed] == [None, started[0]]


def test_speech_without_words_completes_with_an_empty_text() -> None:
    peer = opened().say(append(SECOND))
    peer.reply(SpeechBegan(0.0), SpeechEnded(1.0), SpeechBegan(2.0), SpeechEnded(3.0))
    peer.take()
    peer.reply(utterance("two", 2.2, 2.9))
    assert [event.get("transcript") for event in peer.texts()] == ["", None, "two"]
    peer.reply(SpeechBegan(4.0), SpeechEnded(5.0), utterance("", 4.0, 5.0))
    assert peer.texts()[-1]["transcript"] == ""


def test_utterance_without_reports_of_speech_is_an_item_too() -> None:
    """Long speech is cut; a worker may report the piece alone."""
    peer = opened().say(append(SECOND)).reply(utterance("one", 0.5, 13.0))
    assert kinds(peer.texts()) == [
        f"{BUFFER}.committed",
        f"{ITEM}.added",
        f"{ITEM}.done",
        f"{TRANSCRIPTION}.delta",
        f"{TRANSCRIPTION}.completed",
    ]


def test_commit_with_server_vad_is_harmless() -> None:
    peer = opened().say(append(SECOND))
    peer.reply(SpeechBegan(0.0), SpeechEnded(0.5), utterance("one", 0.1, 0.4))
    peer.take()
    peer.say(COMMIT)
    assert peer.kinds == ["Begin", "Commit"]
    assert peer.texts() == []
    peer.reply(Committed(1.0))
    (error,) = peer.texts()
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"
    assert error["error"]["event_id"] == "mine"
    peer.say(COMMIT)
    (error,) = peer.texts()
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"
    assert not peer.ended


def test_commit_with_server_vad_completes_the_open_utterance() -> None:
    peer = opened().say(append(SECOND), COMMIT)
    peer.reply(SpeechBegan(0.0), SpeechEnded(0.9), utterance("one"), Committed(1.0))
    assert kinds(peer.texts())[-1] == f"{TRANSCRIPTION}.completed"


def test_clear_with_server_vad_drops_the_open_utterance() -> None:
    peer = opened().say(append(SECOND)).reply(SpeechBegan(0.0))
    peer.take()
    peer.say(CLEAR)
    assert kinds(peer.texts()) == [f"{BUFFER}.cleared"]
    assert peer.kinds == ["Begin", "Clear", "Commit"]
    peer.reply(Committed(1.0), Partial("late", ""))
    assert peer.texts() == []
    peer.reply(SpeechBegan(1.5), SpeechEnded(2.0), utterance("new", 1.6, 1.9))
    assert peer.texts()[-1]["transcript"] == "new"


# Manual commit.


def test_manual_commit_joins_the_utterances_before_it() -> None:
    peer = manual().say(append(SECOND * 3))
    assert request_of(peer).live == LiveOptions(end_pause=None, partials=True)
    peer.reply(utterance("one two", 0.1, 1.0), Partial("three", "four"))
    events = peer.texts()
    assert [event["delta"] for event in events] == ["one two", " three"]
    peer.say(COMMIT)
    committed = peer.texts()
    assert kinds(committed) == [f"{BUFFER}.committed", f"{ITEM}.added", f"{ITEM}.done"]
    assert committed[0]["item_id"] == events[0]["item_id"]
    assert isinstance(peer.events[-1], Commit)
    peer.reply(utterance("three five", 1.5, 2.5), Committed(3.0))
    last = peer.texts()
    assert kinds(last) == [f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed"]
    assert last[0]["delta"] == " five"
    assert last[1]["transcript"] == "one two three five"
    assert last[1]["usage"]["seconds"] == 3.0


def test_audio_after_a_commit_belongs_to_the_next_item() -> None:
    peer = manual().say(append(SECOND), COMMIT, append(SECOND * 2), COMMIT, append(SECOND))
    committed = [event for event in peer.texts() if event["type"].endswith("committed")]
    first, second = (event["item_id"] for event in committed)
    assert committed[1]["previous_item_id"] == first
    peer.reply(
        utterance("one", 0.1, 0.9),
        Committed(1.0),
        Partial("tw", ""),
        utterance("two", 1.1, 1.9),
        utterance("more", 2.1, 2.9),
        Committed(3.0),
        Partial("three", ""),
    )
    events = peer.texts()
    done = {e["item_id"]: (e["transcript"], e["usage"]["seconds"]) for e in events if "usage" in e}
    assert done == {first: ("one", 1.0), second: ("two more", 2.0)}
    assert events[-1]["item_id"] not in (first, second)


def test_commit_of_silence_completes_with_an_empty_text() -> None:
    peer = manual().say(append(SECOND), COMMIT).reply(Committed(1.0))
    assert peer.texts()[-1]["transcript"] == ""


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0.00ms"), (0.05, "50.00ms"), (0.0999, "99.90ms")]
)
def test_commit_of_too_little_audio_is_openais_error(seconds: float, shown: str) -> None:
    peer = manual().say(append(bytes(2 * int(24_000 * seconds + 0.5))), COMMIT)
    (error,) = peer.texts()
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"
    assert error["error"]["type"] == "invalid_request_error"
    assert error["error"]["message"].startswith("Error committing input audio buffer: buffer too")
    assert shown in error["error"]["message"] or seconds == 0.0999
    assert "Commit" not in peer.kinds


def test_second_commit_is_harmless() -> None:
    peer = manual().say(append(SECOND), COMMIT, COMMIT)
    assert peer.kinds == ["Begin", "Commit"]
    assert peer.texts()[-1]["error"]["code"] == "input_audio_buffer_commit_empty"
    peer.reply(utterance("one"), Committed(1.0))
    assert peer.texts()[-1]["transcript"] == "one"


def test_clear_drops_uncommitted_audio_but_no_committed_one() -> None:
    peer = manual().say(append(SECOND), COMMIT, append(SECOND), CLEAR)
    assert peer.kinds == ["Begin", "Commit", "Clear", "Commit"]
    assert kinds(peer.texts())[-1] == f"{BUFFER}.cleared"
    peer.say(COMMIT)
    assert peer.texts()[-1]["error"]["code"] == "input_audio_buffer_commit_empty"
    peer.say(append(SECOND), COMMIT)
    peer.take()
    peer.reply(
        utterance("kept", 0.1, 0.9),
        Committed(1.0),
        # The worker had this before it saw the clear.
        Partial("dropped", ""),
        utterance("dropped", 1.1, 1.9),
        Committed(2.0),
        utterance("new", 2.1, 2.9),
        Committed(3.0),
    )
    events = peer.texts()
    assert [event["transcript"] for event in events if "transcript" in event] == ["kept", "new"]
    assert "dropped" not in json.dumps(events)


def test_clear_without_audio_is_answered() -> None:
    peer = opened().say(CLEAR)
    assert kinds(peer.texts()) == [f"{BUFFER}.cleared"]
    assert peer.kinds == []


# Failures.


def test_failed_stream_fails_its_items_and_keeps_the_session_open() -> None:
    peer = manual().say(append(SECOND), COMMIT)
    peer.take()
    peer.reply(Failure(INTERNAL, "a bug"))
    failed, error = peer.texts()
    assert failed["type"] == f"{TRANSCRIPTION}.failed"
    assert failed["error"]["code"] == "internal"
    assert (error["error"]["type"], error["error"]["code"]) == ("server_error", "internal")
    peer.say(append(SECOND), COMMIT)
    assert peer.kinds == ["Begin", "Commit", "Begin", "Commit"]


def test_rejected_stream_is_an_error_and_the_session_stays_open() -> None:
    peer = session(accepts=False)
    peer.say(append(SECOND))
    peer.take()
    peer.reply(Failure(BAD_FIELD, "language: no"))
    (error,) = peer.texts()
    assert error["error"]["type"] == "invalid_request_error"
    assert not peer.ended


def test_busy_node_tells_so_and_closes() -> None:
    peer = session(accepts=False)
    peer.say(append(SECOND))
    peer.take()
    peer.reply(Failure(BUSY, "later"))
    error, last = peer.take()
    assert error.json["error"]["code"] == "busy"
    assert last.code == 1013


# Hostile and unknown events.


@pytest.mark.parametrize(
    "kind",
    ["response.create", "conversation.item.create", "output_audio_buffer.clear", "x" * 500],
)
def test_unknown_event_is_an_error(kind: str) -> None:
    peer = opened().say({"type": kind, "event_id": "e1"})
    (error,) = peer.texts()
    assert error["error"]["code"] == "invalid_value"
    assert error["error"]["param"] == "type"
    assert error["error"]["event_id"] == "e1"
    assert "'input_audio_buffer.append'" in error["error"]["message"]
    assert not peer.ended


@pytest.mark.parametrize("value", [[], 7, None, "text", {}, {"type": 5}, {"type": None}])
def test_json_that_is_no_event_is_an_error(value: Any) -> None:
    peer = opened().feed(text(json.dumps(value)))
    (error,) = peer.texts()
    assert error["type"] == "error"
    assert not peer.ended


@pytest.mark.parametrize("words", ["", "{", "hello", "{'type': 1}", "[" * 60_000, "1" * 60_000])
def test_invalid_json_closes_with_1007(words: str) -> None:
    error, last = opened().feed(text(words)).take()
    assert error.json["error"]["code"] == "invalid_json"
    assert last.code == 1007


def test_binary_message_closes_with_1003() -> None:
    peer = opened().feed(frame(BINARY, bytes(100)))
    assert peer.take()[-1].code == 1003
    assert peer.kinds == []


@pytest.mark.parametrize(
    "words",
    [
        "[" + "{}," * 300_000 + "1]",
        '{"type": "session.update", "session": {"a": [' + "[]," * 300_000 + "1]}}",
    ],
)
def test_large_event_that_is_not_audio_is_refused_unread(words: str) -> None:
    peer = opened().feed(text(words))
    (error,) = peer.texts()
    assert str(MAX_EVENT_BYTES) in error["error"]["message"]
    assert not peer.ended


def test_large_audio_is_taken() -> None:
    samples = bytes(700_000)
    peer = opened().say(append(samples))
    assert peer.audio == samples


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                re.findall(
                    r"\w+",
                    "type session audio input format rate transcription language languages keywords"
                    " prompt turn_detection threshold eagerness silence_duration_ms model event_id"
                    " prefix_padding_ms input_audio_format input_audio_transcription x",
                )
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "session.update",
                    "transcription_session.update",
                    *(f"{BUFFER}.{verb}" for verb in ("append", "commit", "clear")),
                    "other",
                ]
            ),
            JSON,
            JSON,
        ),
        max_size=6,
    )
)
def test_any_event_is_answered_or_followed(events: list[tuple[str, Any, Any]]) -> None:
    peer = session(MANY)
    for kind, inner, audio in events:
        peer.say(json.dumps({"type": kind, "session": inner, "audio": audio}))
    assert not peer.ended
    for event in peer.texts():
        validate(event)


REPORTS = st.one_of(
    st.builds(SpeechBegan, st.floats(0, 30)),
    st.builds(SpeechEnded, st.floats(0, 30)),
    st.builds(Partial, st.sampled_from(["", "a", "a b", "a b c"]), st.just("x")),
    st.builds(Committed, st.floats(0, 30)),
    st.builds(utterance, st.sampled_from(["", "a b", "q"]), st.floats(0, 15), st.floats(15, 30)),
)
SERVER_EVENTS: dict[str, Any] = {
    get_args(model.model_fields["type"].annotation)[0]: model
    for model in get_args(get_args(RealtimeServerEvent)[0])
}


def validate(event: dict[str, Any]) -> None:
    """Check an event against OpenAI's types, which allow one rate of PCM only."""
    if ".updated" not in event["type"]:
        SERVER_EVENTS[event["type"]].model_validate(event)


@settings(max_examples=400)
@given(st.booleans(), st.lists(st.sampled_from([COMMIT, CLEAR, append(SECOND)]) | REPORTS))
def test_events_are_valid_and_deltas_append_in_any_order(turns: bool, story: list[Any]) -> None:
    """Whatever the order of reports, each item completes once, and after it nothing follows."""
    peer = opened() if turns else manual()
    peer.say(append(SECOND))
    for step in story:
        peer.say(step) if isinstance(step, dict) else peer.reply(step)
    peer.say(update(format={"type": "audio/pcm", "rate": 16_000})).reply(STREAMED)
    events = peer.texts()
    texts: dict[str, str] = {}
    done: list[str] = []
    committed: list[str] = []
    for event in events:
        validate(event)
        item = event.get("item_id")
        if event["type"].endswith(".delta"):
            assert item not in done
            texts[item] = texts.get(item, "") + event["delta"]
        elif event["type"].endswith(".completed"):
            assert item in committed
            assert item not in done
            done.append(item)
        elif event["type"].endswith(".committed"):
            assert event["previous_item_id"] == (committed[-1] if committed else None)
            committed.append(item)
    assert sorted(done) == sorted(committed)


def test_session_ends_with_the_clients_close() -> None:
    peer = opened().say(append(SECOND)).feed(close())
    assert peer.kinds == ["Begin", "Clear", "End"]
    assert isinstance(peer.events[1], Clear)


def test_base64_of_the_helper_is_standard() -> None:
    assert base64.b64decode(append(b"ab")["audio"]) == b"ab"
