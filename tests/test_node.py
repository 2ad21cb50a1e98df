"""The promises of README and docs/protocol.md, with the real process and the real model."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from node import (
    HANG,
    JFK,
    ROOT,
    SHARED,
    Fields,
    Node,
    clean_environment,
    command,
    message,
    needs_shared_audio,
    run,
    shared_clips,
    stopped_cleanly,
)

JFK_WORDS = (
    "and so my fellow americans ask not what your country can do for you "
    "ask what you can do for your country"
)
MODEL = ROOT / "models" / "ggml-tiny.en-q8_0.bin"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(Node()) as node:
        yield node


@pytest.fixture(scope="module")
def jfk() -> bytes:
    return JFK.read_bytes()


@pytest.fixture(scope="module")
def short() -> bytes:
    """The first words of the clip, for quick tests that do not depend on the length."""
    return as_file(jfk_samples()[: 3 * 16000], format="FLAC")


def jfk_samples() -> Any:
    """The clip as mono float32 at 16 kHz."""
    samples, rate = soundfile.read(JFK, dtype="float32")
    return soxr.resample(samples.mean(axis=1), rate, 16000)


def as_file(samples: Any, rate: int = 16000, **how: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **how)
    return file.getvalue()


def words(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def code(reply: Fields) -> str:
    assert reply["status"] == "error", reply
    assert reply["error"]["message"], "an error says what is wrong"
    return str(reply["error"]["code"])


# The first steps of a new user.


def test_clip_gives_its_words(node: Node, jfk: bytes) -> None:
    reply = node.ask(jfk)
    assert words(reply["text"]) == JFK_WORDS
    assert set(reply) >= {
        "id",
        "status",
        "text",
        "language",
        "segments",
        "audio_seconds",
        "queue_seconds",
        "processing_seconds",
        "model",
        "truncated",
    }
    assert reply["status"] == "ok"
    assert reply["language"] == "en"
    assert reply["model"] == "tiny.en-q8_0"
    assert reply["truncated"] is False
    assert reply["audio_seconds"] == pytest.approx(11.0, abs=0.01)
    assert reply["queue_seconds"] >= 0
    assert reply["processing_seconds"] > 0
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", reply["id"])


def test_segments_lie_in_order_within_the_audio(node: Node, jfk: bytes) -> None:
    reply = node.ask(jfk)
    assert reply["segments"]
    before = 0.0
    for segment in reply["segments"]:
        assert set(segment) == {"start", "end", "text", "confidence"}
        assert before <= segment["start"] <= segment["end"] <= reply["audio_seconds"]
        assert 0 < segment["confidence"] <= 1
        before = segment["end"]
    assert " ".join(segment["text"] for segment in reply["segments"]) == reply["text"]


def test_original_client_works_unchanged(node: Node, jfk: bytes) -> None:
    # It sends four fields and the body at once, keeps its side open, and reads until the end.
    with socket.create_connection(("127.0.0.1", node.port), HANG) as client:
        client.sendall(message(jfk))
        received = b""
        while data := client.recv(4096):
            received += data
    (length,) = struct.unpack("!H", received[:2])
    header = json.loads(received[2 : 2 + length])
    body = received[2 + length :]
    assert header["content-type"] == "application/json"
    assert header["content-length"] == len(body)
    assert words(json.loads(body)["text"]) == JFK_WORDS


def test_stdout_line_equals_the_reply(node: Node, short: bytes) -> None:
    before = datetime.now(timezone.utc).timestamp()
    with node.connect() as client:
        client.send(short, id="stdout-1")
        reply = client.receive()
        peer = client.peer
    line = node.outcome("stdout-1")
    received_at = line.pop("received_at")
    assert line.pop("peer") == peer
    assert line == reply
    assert received_at.endswith("Z")
    moment = datetime.fromisoformat(received_at.replace("Z", "+00:00")).timestamp()
    # The time is truncated to milliseconds, so it can be one earlier.
    assert before - 0.001 <= moment <= datetime.now(timezone.utc).timestamp()


def test_failure_is_written_to_stdout(node: Node) -> None:
    reply = node.ask(b"this is no audio", id="failed-1")
    line = node.outcome("failed-1")
    assert line["status"] == "error"
    assert line["error"] == reply["error"]


# The fields of a request.


def test_reply_segments_sends_each_segment(node: Node, jfk: bytes) -> None:
    with node.connect() as client:
        client.send(jfk, id="s1", reply="segments")
        replies = []
        while (reply := client.receive()) is not None:
            replies.append(reply)
    *segments, final = replies
    assert segments
    assert final["status"] == "ok"
    assert {reply["status"] for reply in segments} == {"segment"}
    assert {reply["id"] for reply in replies} == {"s1"}
    assert [reply["segment"] for reply in segments] == final["segments"]


def test_reply_accepted_comes_before_the_work(node: Node, short: bytes) -> None:
    assert node.ask(short, id="a1", reply="accepted") == {"id": "a1", "status": "accepted"}
    assert node.outcome("a1")["status"] == "ok"


def test_reply_none_gets_no_reply(node: Node, short: bytes) -> None:
    with node.connect() as client:
        client.send(short, id="n1", reply="none")
        assert client.receive() is None
    assert node.outcome("n1")["status"] == "ok"


def test_reply_none_gets_no_error(node: Node) -> None:
    for number, fields in enumerate(({}, {"language": "de"}, {"task": "sing"})):
        with node.connect() as client:
            client.send(b"no audio", id=f"silent-{number}", reply="none", **fields)
            assert client.receive() is None
        assert node.outcome(f"silent-{number}")["status"] == "error"


def test_word_timestamps_give_words_with_times(node: Node, jfk: bytes) -> None:
    reply = node.ask(jfk, word_timestamps=True)
    assert words(reply["text"]) == JFK_WORDS
    for segment in reply["segments"]:
        assert " ".join(word["text"] for word in segment["words"]) == segment["text"]
        before = segment["start"]
        for word in segment["words"]:
            assert set(word) == {"start", "end", "text", "confidence"}
            assert before <= word["start"] <= word["end"] <= segment["end"]
            assert 0 < word["confidence"] <= 1
            before = word["start"]


def test_keep_alive_allows_pipelined_requests(node: Node, short: bytes) -> None:
    with node.connect() as client:
        client.socket.sendall(
            message(short, id="k1", connection="keep-alive", reply="segments")
            + message(b"junk", id="k2", connection="keep-alive")
            + message(b"refused", id="k3", connection="keep-alive", language="xx")
            + message(short, id="k4", connection="keep-alive", reply="accepted")
            + message(short, id="k5", connection="close")
        )
        replies = []
        while (reply := client.receive()) is not None:
            replies.append(reply)
    ids = [reply["id"] for reply in replies]
    assert ids == sorted(ids), "replies came out of order"
    final = {reply["id"]: reply for reply in replies}
    assert [final[f"k{n}"]["status"] for n in range(1, 6)] == [
        "ok",
        "error",
        "error",
        "accepted",
        "ok",
    ]
    assert code(final["k2"]) == "unsupported_media_type"
    assert code(final["k3"]) == "bad_field"
    assert final["k1"]["text"] == final["k5"]["text"] != ""


def test_kept_connection_stays_usable_between_messages(node: Node, short: bytes) -> None:
    with node.connect() as client:
        texts = []
        for _ in range(2):
            client.send(short, connection="keep-alive")
            reply = client.receive()
            assert reply is not None
            texts.append(reply["text"])
        client.socket.shutdown(socket.SHUT_WR)
        assert client.receive() is None
    assert texts[0] == texts[1] != ""


def test_half_closed_connection_is_answered(node: Node, short: bytes) -> None:
    with node.connect() as client:
        client.send(short)
        client.socket.shutdown(socket.SHUT_WR)
        reply = client.receive()
    assert reply is not None
    assert reply["status"] == "ok"


def test_closed_connection_is_transcribed(node: Node, short: bytes) -> None:
    with node.connect() as client:
        client.send(short, id="gone-1")
    assert node.outcome("gone-1")["text"] != ""


def test_invalid_header_gets_its_code(node: Node) -> None:
    assert code(node.ask(b"", content_length=None)) == "missing_field"
    assert code(node.ask(b"", content_length=True)) == "bad_header"
    assert code(node.ask(b"", content_length="5")) == "bad_header"
    assert code(node.ask(b"", content_length=-1)) == "bad_header"
    assert code(node.ask(b"", content_length=1 << 50)) == "too_large"
    assert code(node.ask(b"", byteorder=None)) == "missing_field"
    assert code(node.ask(b"", id="no spaces")) == "bad_field"
    with node.connect() as client:
        client.socket.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(20_000))
        reply = client.receive()
        assert client.receive() is None
    assert reply is not None
    assert reply["id"] is None
    assert code(reply) == "bad_header"


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"language": "de"}, "language"), ({"task": "translate"}, "task"), ({"reply": 3}, "reply")],
)
def test_unsupported_request_is_rejected_at_the_header(
    node: Node, fields: Fields, field: str
) -> None:
    # The body is never sent. The reply must not wait for it.
    with node.connect() as client:
        client.socket.sendall(message(b"", content_length=1000, **fields))
        reply = client.receive()
    assert reply is not None
    assert code(reply) == "bad_field"
    assert field in reply["error"]["message"]


def test_regional_language_counts_as_its_language(node: Node, short: bytes) -> None:
    assert node.ask(short, language="en-GB")["language"] == "en"


# Audio.


def test_files_without_samples_are_bad_audio(node: Node, jfk: bytes) -> None:
    wav = as_file(np.zeros(16000, dtype=np.float32), format="WAV")
    assert code(node.ask(b"")) == "bad_audio"
    assert code(node.ask(wav[:44])) == "bad_audio"
    assert code(node.ask(jfk[:30])) == "bad_audio"


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_streamed_wav_runs_to_the_end_of_the_body(node: Node, length: int) -> None:
    wav = bytearray(as_file(jfk_samples(), format="WAV"))
    assert wav[36:40] == b"data"
    struct.pack_into("<I", wav, 4, length)
    struct.pack_into("<I", wav, 40, length)
    reply = node.ask(bytes(wav))
    assert words(reply["text"]) == JFK_WORDS
    assert reply["truncated"] is False


def test_truncated_file_is_transcribed_as_far_as_it_goes(node: Node, jfk: bytes) -> None:
    reply = node.ask(jfk[: len(jfk) // 2])
    assert reply["truncated"] is True
    assert words(reply["text"]).startswith("and so my fellow americans")
    assert 4 < reply["audio_seconds"] < 7


@pytest.mark.parametrize(("encoding", "kind"), [("s16", "<i2"), ("f32", "<f4")])
def test_raw_samples_give_the_words(node: Node, encoding: str, kind: str) -> None:
    samples = jfk_samples()
    scaled = samples if encoding == "f32" else np.round(samples * 32767)
    for order, dtype in (("little", kind), ("big", kind.replace("<", ">"))):
        reply = node.ask(
            scaled.astype(dtype).tobytes(),
            content_type="audio/pcm",
            content_encoding=encoding,
            byteorder=order,
            sample_rate=16000,
            channels=1,
        )
        assert words(reply["text"]) == JFK_WORDS
        assert reply["audio_seconds"] == pytest.approx(11.0, abs=0.01)


def test_raw_samples_need_their_rate(node: Node) -> None:
    reply = node.ask(bytes(100), content_type="audio/pcm", content_encoding="s16", channels=1)
    assert code(reply) == "missing_field"
    assert "sample-rate" in reply["error"]["message"]


def test_samples_that_are_not_finite_are_rejected(node: Node) -> None:
    samples = jfk_samples()
    samples[::50] = math.nan
    samples[1::999] = math.inf
    reply = node.ask(as_file(samples, format="WAV", subtype="FLOAT"))
    assert reply["status"] == "ok"
    samples[:] = math.nan
    assert node.ask(as_file(samples, format="WAV", subtype="FLOAT"))["text"] == ""


def test_every_rate_and_number_of_channels_gives_the_words(node: Node, jfk: bytes) -> None:
    samples = jfk_samples()
    six = np.repeat(soxr.resample(samples, 16000, 96000)[:, None], 6, axis=1)
    eight = soxr.resample(samples, 16000, 8000) * 0.5 + 0.4  # with a DC offset
    for audio, rate in ((six, 96000), (eight, 8000)):
        reply = node.ask(as_file(audio, rate, format="FLAC"))
        assert "country can do for you" in words(reply["text"])


@needs_shared_audio
@pytest.mark.parametrize("clip", shared_clips("nonspeech"), ids=lambda clip: clip["id"])
def test_no_speech_gives_no_text(node: Node, clip: Fields) -> None:
    reply = node.ask_file(SHARED / clip["file"])
    assert (reply["status"], reply["text"], reply["segments"]) == ("ok", "", [])


@needs_shared_audio
@pytest.mark.parametrize("clip", shared_clips("format"), ids=lambda clip: clip["id"])
def test_every_container_gives_the_words_or_is_named(node: Node, clip: Fields) -> None:
    reply = node.ask_file(SHARED / clip["file"])
    kind = Path(clip["file"]).suffix[1:]
    if kind in ("webm", "mp4") and importlib.util.find_spec("av") is None:
        assert code(reply) == "unsupported_media_type"
        assert kind in reply["error"]["message"]
    elif "123" in clip["id"]:
        assert words(reply["text"]) in ("one two three", "1 2 3")
    else:
        assert "from fairest creatures we desire increase" in words(reply["text"])


# Streams and options.


def test_text_output_is_readable(short: bytes) -> None:
    with Node(output="text") as node:
        with node.connect() as client:
            client.send(short)
            reply = client.receive()
            peer = client.peer
        assert reply is not None
        assert node.ask(b"junk", id="bad")["status"] == "error"
        assert node.stop() == 0
        assert node.out is not None
        good, bad = node.out.all()
    assert re.match(r"\d\d:\d\d:\d\d  ", good)
    assert peer in good
    assert reply["text"] in good
    assert re.search(r"3\.0 s, \d+\.\d x real time", good)
    assert "unsupported_media_type" in bad


def test_verbose_log_has_the_engine_and_no_transcript(jfk: bytes) -> None:
    with Node("-lv") as node:
        text = node.ask(jfk, prompt="Wordsworth")["text"]
        assert node.stop() == 0
        log = "\n".join(node.log.all())
    assert "whisper.cpp" in log
    assert "whisper_" in log
    assert "Wordsworth" not in log
    for segment in (text, "fellow Americans", "your country"):
        assert segment.lower() not in log.lower()


def test_stdout_has_only_outcomes(short: bytes) -> None:
    with Node("-lv") as node:
        node.ask(short, id="only")
        assert node.stop() == 0
        assert [outcome["id"] for outcome in node.outcomes()] == ["only"]


def test_transcript_is_written_in_every_locale(short: bytes) -> None:
    with Node(environment={"PYTHONIOENCODING": "ascii"}) as node:
        node.ask("\N{SNOWMAN}".encode(), id="x", content_type="ä")
        node.ask(short, id="y")
        assert node.stop() == 0
        assert [outcome["id"] for outcome in node.outcomes()] == ["x", "y"]


def test_help_and_version_are_printed() -> None:
    status, out, err = run("-h")
    assert (status, err) == (0, "")
    for option in ("--model", "-lv", "--host", "--port", "--drain-seconds", "--spool-dir"):
        assert option in out
    status, out, err = run("--version")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"node-whisper \d+\.\d+\.\d+(\.dev\d+)?\n", out)


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["--port", "123456"], {}, "--port"),
        (["--threads", "none"], {}, "--threads"),
        (["--vad-threshold", "nan"], {}, "--vad-threshold"),
        (["--language", "de"], {}, "--language"),
        (["--output", "xml"], {}, "--output"),
        (["--spool-dir", "/does/not/exist"], {}, "--spool-dir"),
        ([], {"NODE_WHISPER_QUEUE_SIZE": "0"}, "NODE_WHISPER_QUEUE_SIZE"),
        (["--no-such-option"], {}, "--no-such-option"),
    ],
)
def test_wrong_value_is_one_clear_line(
    arguments: list[str], environment: dict[str, str], named: str
) -> None:
    status, out, err = run("--port", "0", "--offline", *arguments, environment=environment)
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    assert named in err.splitlines()[-1]


def test_port_in_use_is_reported(node: Node) -> None:
    status, out, err = run("--port", str(node.port), "--offline")
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert str(node.port) in err


def test_unknown_model_is_reported(tmp_path: Path) -> None:
    for model in ("no-such-model", str(tmp_path / "missing.bin")):
        status, out, err = run("--port", "0", "--offline", "-m", model)
        assert (status, out) == (1, "")
        assert "Traceback" not in err
        assert Path(model).name in err


@pytest.mark.parametrize("damage", ["truncated", "header", "tensor", "empty", "text"])
def test_damaged_model_is_rejected(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "mine.bin"
    shutil.copyfile(MODEL, path)
    with open(path, "r+b") as file:
        if damage == "truncated":
            file.truncate(MODEL.stat().st_size - 1_000_000)
        elif damage == "header":
            file.seek(4)
            file.write(struct.pack("<i", 0x7FFFFFFF))
        elif damage == "tensor":
            # The name of the first tensor, which follows the vocabulary.
            at = MODEL.read_bytes().index(b"decoder.positional_embedding")
            file.seek(at - 12)
            file.write(b"\xff" * 12)
        else:
            file.truncate(0)
            file.write(b"" if damage == "empty" else b"Not a model.\n" * 1000)
    status, out, err = run("--port", "0", "--offline", "-m", str(path))
    assert (status, out) == (1, "")
    assert "Traceback" not in err
    assert "mine.bin" in err


def test_model_file_of_the_user_is_used(tmp_path: Path, short: bytes) -> None:
    path = tmp_path / "mine.bin"
    path.symlink_to(MODEL)
    with Node("-m", str(path)) as node:
        reply = node.ask(short)
        assert node.stop() == 0
    assert reply["text"] != ""
    assert reply["model"]


def test_ctrl_c_during_the_start_is_no_crash() -> None:
    # Python itself must have started; a slow machine gives later moments as well.
    process = subprocess.Popen(
        command("-lv"), cwd=ROOT, env=clean_environment(), stderr=subprocess.PIPE
    )
    with process:
        assert process.stderr is not None
        # The first debug line is the engine's: the model is being loaded.
        process.stderr.readline()
        process.send_signal(2)
        rest = process.stderr.read()
        status = process.wait(HANG)
    assert status in (-2, 130, 0)
    assert b"Traceback" not in rest
