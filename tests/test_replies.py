"""The JSON form of replies, in addition to the tests of the framing."""

from __future__ import annotations

import json

import pytest
from fakes import transcript_of

from app.live import Committed, SpeechBegan, SpeechEnded
from app.messages import Accepted, Failure, Reply, Segment, Streamed, Utterance
from app.protocols.native.replies import all_fields, reply_fields

SEGMENT = Segment(1.0, 2.0, "x", 0.5)
SILENCE = transcript_of()


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (SILENCE, "ok"),
        (SEGMENT, "segment"),
        (Accepted(), "accepted"),
        (Failure("busy", "later"), "error"),
        (Streamed("en", 1, 2, 3.0, 0.1, "tiny.en-q8_0", False), "ok"),
    ],
)
@pytest.mark.parametrize("request_id", ["r", None])
def test_every_reply_begins_with_id_and_status(
    reply: Reply, status: str, request_id: str | None
) -> None:
    fields = reply_fields(request_id, reply)
    assert list(fields)[:2] == ["id", "status"]
    assert (fields["id"], fields["status"]) == (request_id, status)


def test_transcript_of_silence_has_all_fields() -> None:
    fields = reply_fields("r", SILENCE)
    assert fields["text"] == ""
    assert fields["segments"] == []
    assert fields.keys() == {
        "id",
        "status",
        "text",
        "language",
        "language_probability",
        "segments",
        "audio_seconds",
        "queue_seconds",
        "processing_seconds",
        "model",
        "truncated",
        "encoder_context",
        "passes",
    }


def test_inapplicable_fields_are_omitted() -> None:
    assert "words" not in reply_fields("r", SEGMENT)["segment"]
    assert reply_fields("r", Segment(0, 1, "x", 1, ()))["segment"]["words"] == []
    assert "retry_after_seconds" not in reply_fields("r", Failure("busy", "later"))["error"]
    assert reply_fields("r", Failure("busy", "later", 0.0))["error"]["retry_after_seconds"] == 0.0


def test_numbers_are_rounded_and_remain_numbers() -> None:
    third = Segment(1 / 3, 2 / 3, "x", 1 / 3)
    transcript = transcript_of(
        "x",
        segments=(third,),
        audio_seconds=1 / 3,
        queue_seconds=1 / 3,
        processing_seconds=2 / 3,
        language_probability=2 / 3,
    )
    fields = json.loads(json.dumps(reply_fields("r", transcript)))
    assert fields["segments"] == [{"start": 0.333, "end": 0.667, "text": "x", "confidence": 0.333}]
    assert fields["audio_seconds"] == 0.333
    assert fields["queue_seconds"] == 0.3333
    assert fields["processing_seconds"] == 0.6667
    assert fields["language_probability"] == 0.667


def test_no_segment_ends_after_the_audio() -> None:
    """Both are rounded in the same way: 3.095 s of audio have no segment up to 3.1 s."""
    transcript = transcript_of(
        "x", segments=(Segment(0.0, 3.0954, "x", 1.0),), audio_seconds=3.0954
    )
    fields = reply_fields("r", transcript)
    assert fields["segments"][0]["end"] <= fields["audio_seconds"]


def test_utterance_is_one_reply_for_each_segment() -> None:
    said = Utterance(1.0, 3.0, (SEGMENT, Segment(2.0, 3.0, "y", 0.5)))
    assert all_fields("r", said) == [reply_fields("r", one) for one in said.segments]
    assert all_fields("r", Utterance(1.0, 3.0, ())) == []
    assert all_fields("r", SILENCE) == [reply_fields("r", SILENCE)]


def test_native_form_has_no_reports_of_speech() -> None:
    for report in (SpeechBegan(1.0), SpeechEnded(2.0), Committed(3.0)):
        assert all_fields("r", report) == []
