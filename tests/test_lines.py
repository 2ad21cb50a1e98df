"""The line of an outcome on stdout, for programs and for people."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import pytest
from fakes import transcript_of

from app.messages import Failure, Origin, Segment, Streamed
from app.output.lines import json_line, text_line

ORIGIN = Origin("127.0.0.1:4711", 1_700_000_000.25)
TRANSCRIPT = transcript_of("Größe 日本", audio_seconds=3.0, processing_seconds=0.5)


def test_json_line_has_the_replys_fields_with_time_and_peer() -> None:
    line = json_line("r", ORIGIN, TRANSCRIPT)
    assert "\n" not in line
    assert "Größe 日本" in line
    fields = json.loads(line)
    assert list(fields)[:2] == ["id", "status"]
    assert fields["status"] == "ok"
    assert fields["received_at"] == "2023-11-14T22:13:20.250Z"
    assert fields["peer"] == "127.0.0.1:4711"


def test_json_line_marks_a_recovered_request() -> None:
    recovered = json.loads(json_line("r", replace(ORIGIN, recovered=True), TRANSCRIPT))
    assert recovered.pop("recovered") is True
    assert recovered == json.loads(json_line("r", ORIGIN, TRANSCRIPT))


def test_json_line_of_a_failure_has_no_id_if_none_was_read() -> None:
    fields = json.loads(json_line(None, ORIGIN, Failure("bad_header", "no\nJSON")))
    assert (fields["id"], fields["status"]) == (None, "error")
    assert fields["error"] == {"code": "bad_header", "message": "no\nJSON"}


def test_json_line_stays_one_line_for_any_text() -> None:
    line = json_line("r", ORIGIN, transcript_of("a\nb\rc\x1b[2J"))
    assert "\n" not in line
    assert "\r" not in line
    assert "\x1b" not in line
    assert json.loads(line)["text"] == "a\nb\rc\x1b[2J"


def test_text_line_has_time_peer_text_and_speed() -> None:
    local = datetime.fromtimestamp(ORIGIN.received_at).strftime("%H:%M:%S")
    line = text_line("r", ORIGIN, TRANSCRIPT)
    assert line.startswith(f"{local}  127.0.0.1:4711  Größe 日本  ")
    assert "3.0 s" in line
    assert "6.0 x" in line


def test_lines_of_a_streams_segment_have_its_text_and_time() -> None:
    segment = Segment(61.25, 63.5, "turn on the light", 0.9)
    fields = json.loads(json_line("r", ORIGIN, segment))
    assert (fields["id"], fields["status"]) == ("r", "segment")
    assert fields["segment"]["text"] == "turn on the light"
    assert (fields["segment"]["start"], fields["segment"]["end"]) == (61.25, 63.5)
    assert fields["received_at"] == "2023-11-14T22:13:20.250Z"
    assert fields["peer"] == "127.0.0.1:4711"
    spoken = datetime.fromtimestamp(ORIGIN.received_at + 63.5).strftime("%H:%M:%S")
    line = text_line("r", ORIGIN, segment)
    assert line == f"{spoken}  127.0.0.1:4711  turn on the light  (61.2 to 63.5 s)"


def test_text_line_of_a_streams_end_has_the_time_of_its_end() -> None:
    ended = datetime.fromtimestamp(ORIGIN.received_at + 100).strftime("%H:%M:%S")
    line = text_line("r", ORIGIN, Streamed("en", 3, 4, 100.0, 10.0, "m", False))
    assert line.startswith(f"{ended}  127.0.0.1:4711  end of the stream, utterances: 3  ")
    assert line.endswith("(100.0 s, 10.0 x real time)")


def test_text_line_of_a_failure_has_code_and_message() -> None:
    line = text_line(None, ORIGIN, Failure("bad_audio", "the body is empty"))
    assert line.endswith("127.0.0.1:4711  bad_audio: the body is empty")


def test_text_line_has_a_speed_without_processing_time() -> None:
    assert "x real time" in text_line("r", ORIGIN, transcript_of("", audio_seconds=0.0))


@pytest.mark.parametrize("said", ["a\nb", "a\x1b[2Jb", "a\rb", "a\x9bb", "a\u202eb"])
def test_text_line_has_no_control_characters(said: str) -> None:
    for outcome in (transcript_of(said), Failure("internal", said)):
        line = text_line("r", ORIGIN, outcome)
        assert line.isprintable()
        assert "a" in line.split("  ")[2]
