"""Live audio with the real model: the words of a clip as a stream, a file and a command.

One node serves the module. Audio at the pace of speech is a single short command.
"""

from __future__ import annotations

import io
import itertools
import json
import socket
import subprocess
import sys
import time
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from fakes import RATE, RAW, frame
from live_worker import END, framed
from node import HANG, JFK, ROOT, Node, stopped_cleanly

SECOND = RATE * 2
"""Bytes of a second of samples."""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(Node("--http-port", "0", "--wyoming-port", "0")) as node:
        yield node


@pytest.fixture(scope="module")
def speech() -> bytes:
    """The clip as 16-bit samples at 16 kHz, with a second of silence."""
    samples, rate = soundfile.read(JFK, dtype="float32")
    mono = soxr.resample(samples.mean(axis=1), rate, RATE)
    return bytes((mono * 32767).astype("<i2").tobytes()) + bytes(SECOND)


@pytest.fixture(scope="module")
def command(speech: bytes) -> bytes:
    """Its first words, and a second of silence."""
    return speech[: int(2.6 * SECOND) // 2 * 2] + bytes(SECOND)


def words(text: str) -> str:
    kept = "".join(letter for letter in text.lower() if letter.isalpha() or letter == " ")
    return " ".join(kept.split())


def stream(node: Node, data: bytes, size: int, **fields: Any) -> list[dict[str, Any]]:
    with node.connect() as client:
        header = {**RAW, "live": True, "reply": "segments", **fields}
        client.socket.sendall(frame(header) + framed(data, size) + END)
        return list(iter(client.receive, None))


def ask_raw(node: Node, data: bytes, **fields: Any) -> dict[str, Any]:
    """Send a message of raw samples at full speed."""
    raw = {name.replace("-", "_"): value for name, value in RAW.items()}
    return node.ask(data, **{**raw, **fields})


def counts(node: Node) -> dict[str, float]:
    """The metrics of live audio."""
    address = f"{node.listening['http']}metrics"
    with urllib.request.urlopen(address, timeout=HANG) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_stream_has_the_words_of_its_audio_at_any_split(node: Node, speech: bytes) -> None:
    replies = stream(node, speech, 65_534, id="s")
    segments = [reply["segment"] for reply in replies[:-1]]
    assert len(segments) >= 3
    said = words(" ".join(segment["text"] for segment in segments))
    assert "and so my fellow americans" in said
    assert said.endswith("ask what you can do for your country")
    starts = [segment["start"] for segment in segments]
    assert starts == sorted(starts)
    last = replies[-1]
    assert (last["status"], last["segment_count"], last["truncated"]) == (
        "ok",
        len(segments),
        False,
    )
    assert last["audio_seconds"] == pytest.approx(12.0, abs=0.01)
    other = stream(node, speech, 640)
    assert [reply["segment"] for reply in other[:-1]] == segments
    node.outcome("s")
    lines = [line for line in node.outcomes() if line["id"] == "s"]
    assert [line.get("segment") for line in lines if line["status"] == "segment"] == segments


def test_transcript_of_a_stream_has_the_text_of_its_segments(node: Node, command: bytes) -> None:
    segments = [reply["segment"]["text"] for reply in stream(node, command, 4_096)[:-1]]
    (reply,) = stream(node, command, 4_096, reply="transcript")
    assert words(reply["text"]) == words(" ".join(segments))


def test_raw_file_at_full_speed_has_the_segments_of_any_file(node: Node, speech: bytes) -> None:
    before = counts(node)["node_whisper_live_finals_total"]
    twice = speech * 2
    raw = ask_raw(node, twice)
    file = wav(twice)
    same = node.ask(file, content_type="audio/wav", content_encoding="wav")
    assert raw["segments"] == same["segments"]
    assert counts(node)["node_whisper_live_finals_total"] == before


def wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(samples, "<i2"), RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def wyoming(kind: str, data: dict[str, Any], payload: bytes = b"") -> bytes:
    head = {"type": kind, "data": data, "payload_length": len(payload)}
    return json.dumps(head).encode() + b"\n" + payload


def test_wyoming_command_at_the_pace_of_speech_has_the_text_of_its_file(
    node: Node, command: bytes
) -> None:
    """The packets of Home Assistant, each sent at the time of its last sample."""
    form = {"rate": RATE, "width": 2, "channels": 1}
    before = counts(node)
    address = ("127.0.0.1", node.listening["wyoming_port"])
    with socket.create_connection(address, HANG) as sock, sock.makefile("rb") as answers:
        sock.sendall(wyoming("audio-start", form))
        began = time.monotonic()
        for at in range(0, len(command), 320):
            due = began + (at + 320) / SECOND
            time.sleep(max(0.0, due - time.monotonic()))
            sock.sendall(wyoming("audio-chunk", form, command[at : at + 320]))
        sock.sendall(wyoming("audio-stop", {}))
        head = json.loads(answers.readline())
        data = head.get("data") or json.loads(answers.read(head["data_length"]))
    after = counts(node)
    assert head["type"] == "transcript"
    assert words(data["text"]) == words(ask_raw(node, command)["text"]) != ""
    finals = "node_whisper_live_finals_total"
    assert after[finals] == before[finals] + 1


def run_client(node: Node, *arguments: str | Path, stdin: bytes = b"") -> str:
    done = subprocess.run(
        [sys.executable, "scripts/client.py", "--port", str(node.port), "--live", *arguments],
        input=stdin,
        cwd=ROOT,
        capture_output=True,
        timeout=HANG,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def test_client_prints_the_words_of_a_pipe_and_of_a_file(
    node: Node, command: bytes, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.wav"
    with wave.open(str(clip), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(command)
    piped = run_client(node, "-", stdin=command)
    assert words(piped) == "and so my fellow americans"
    assert run_client(node, clip) == piped


def test_partials_grow_into_the_segments_of_an_utterance(node: Node, command: bytes) -> None:
    with node.connect() as client:
        client.socket.sendall(frame({**RAW, "live": True, "reply": "partials"}))
        # At the speed of speech, so that there is an open utterance to decode.
        began = time.monotonic()
        for at in range(0, len(command), SECOND // 10):
            time.sleep(max(0.0, began + at / SECOND - time.monotonic()))
            client.socket.sendall(framed(command[at : at + SECOND // 10], 65_534))
        client.socket.sendall(END)
        replies = list(iter(client.receive, None))
    shown = [reply for reply in replies if reply["status"] == "partial"]
    assert shown, [reply["status"] for reply in replies]
    stable = [reply["stable"] for reply in shown]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(stable))
    assert "and so" in words(shown[-1]["stable"] + shown[-1]["rest"])
    assert [reply["status"] for reply in replies if reply["status"] != "partial"] == [
        "segment",
        "ok",
    ]
