"""What goes to stdout: one line an outcome, from a thread of its own."""

from __future__ import annotations

import io
import json
import threading
from datetime import datetime

import pytest
from fakes import PATIENCE, eventually, transcript_of

from app.messages import Failure, Origin
from app.sinks import StdoutSink, json_line, text_line

ORIGIN = Origin("127.0.0.1:4711", 1_700_000_000.25)
TRANSCRIPT = transcript_of("Größe 日本", audio_seconds=3.0, processing_seconds=0.5)


def sink_of(stream: io.TextIOBase, broken: threading.Event | None = None) -> StdoutSink:
    event = broken or threading.Event()
    sink = StdoutSink(stream, json_line, event.set)  # type: ignore[arg-type]
    sink.start()
    return sink


def test_lines_are_written_in_order_and_flushed() -> None:
    class Counting(io.StringIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    stream = Counting()
    sink = sink_of(stream)
    for number in range(20):
        sink.put(str(number), ORIGIN, TRANSCRIPT)
    assert sink.close(PATIENCE)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["id"] for line in lines] == [str(number) for number in range(20)]
    assert stream.flushes >= 20


def test_put_does_not_wait_for_a_reader_who_does_not_read() -> None:
    reading = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            assert reading.wait(PATIENCE)
            return super().write(text)

    stream = Stuck()
    sink = sink_of(stream)
    for _ in range(100):
        sink.put("r", ORIGIN, TRANSCRIPT)
    assert sink.backlog >= 99
    assert not sink.close(0.01)
    reading.set()
    eventually(lambda: len(stream.getvalue().splitlines()) == 100)
    assert sink.close(PATIENCE)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space")])
def test_a_stream_that_is_gone_is_told_once(error: OSError) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    broken = threading.Event()
    sink = sink_of(Gone(), broken)
    sink.put("r", ORIGIN, TRANSCRIPT)
    assert broken.wait(PATIENCE)
    sink.put("r", ORIGIN, TRANSCRIPT)
    assert sink.close(PATIENCE)


def test_a_closed_stream_is_gone() -> None:
    stream = io.StringIO()
    stream.close()
    broken = threading.Event()
    sink = sink_of(stream, broken)
    sink.put("r", ORIGIN, TRANSCRIPT)
    assert broken.wait(PATIENCE)
    assert sink.close(PATIENCE)


def test_a_json_line() -> None:
    line = json_line("r", ORIGIN, TRANSCRIPT)
    assert "\n" not in line
    assert "Größe 日本" in line
    fields = json.loads(line)
    assert list(fields)[:2] == ["id", "status"]
    assert fields["status"] == "ok"
    assert fields["received_at"] == "2023-11-14T22:13:20.250Z"
    assert fields["peer"] == "127.0.0.1:4711"


def test_a_json_line_of_a_failure_without_an_id() -> None:
    fields = json.loads(json_line(None, ORIGIN, Failure("bad_header", "no\nJSON")))
    assert (fields["id"], fields["status"]) == (None, "error")
    assert fields["error"] == {"code": "bad_header", "message": "no\nJSON"}


def test_a_json_line_stays_one_line_whatever_was_said() -> None:
    line = json_line("r", ORIGIN, transcript_of("a\nb\rc\x1b[2J"))
    assert "\n" not in line
    assert "\r" not in line
    assert "\x1b" not in line
    assert json.loads(line)["text"] == "a\nb\rc\x1b[2J"


def test_a_text_line() -> None:
    local = datetime.fromtimestamp(ORIGIN.received_at).strftime("%H:%M:%S")
    line = text_line("r", ORIGIN, TRANSCRIPT)
    assert line.startswith(f"{local}  127.0.0.1:4711  Größe 日本  ")
    assert "3.0 s" in line
    assert "6.0 x" in line


def test_a_text_line_of_a_failure() -> None:
    line = text_line(None, ORIGIN, Failure("bad_audio", "the body is empty"))
    assert line.endswith("127.0.0.1:4711  bad_audio: the body is empty")


def test_a_text_line_without_processing_time() -> None:
    assert "x real time" in text_line("r", ORIGIN, transcript_of("", audio_seconds=0.0))


@pytest.mark.parametrize("said", ["a\nb", "a\x1b[2Jb", "a\rb", "a\x9bb", "a\u202eb"])
def test_a_text_line_holds_nothing_that_a_terminal_would_obey(said: str) -> None:
    for outcome in (transcript_of(said), Failure("internal", said)):
        line = text_line("r", ORIGIN, outcome)
        assert line.isprintable()
        assert "a" in line.split("  ")[2]
