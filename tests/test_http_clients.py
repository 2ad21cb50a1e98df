"""HTTP on a real node with real clients: OpenAI's package, and curl as in docs/http.md."""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from node import HANG, JFK, ROOT, Node, stopped_cleanly
from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent

WORDS = "ask not what your country can do for you"
DOCS = ROOT / "docs" / "http.md"
PLACE = "http://127.0.0.1:8080"
G729 = struct.pack(
    *("<4sI4s4sIHHIIHH4sI", b"RIFF", 3036, b"WAVE", b"fmt ", 16, 0x0083, 1, 8000, 1000, 10, 0),
    *(b"data", 3000),
) + bytes(3000)
"""A WAV file with a codec that is recognised and not read."""

# The example with a token needs a node with a token.
EXAMPLES = [
    command.replace("\\\n", "")
    for block in re.findall(r"^```sh\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    for command in re.findall(r"^curl .*?(?<!\\)$", block, re.DOTALL | re.MULTILINE)
]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(Node("--http-port", "0", "--max-message-bytes", str(1 << 26))) as node:
        yield node


@pytest.fixture(scope="module")
def place(node: Node) -> str:
    return str(node.listening["http"]).rstrip("/")


@pytest.fixture(scope="module")
def client(place: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{place}/v1", api_key="none", timeout=HANG, max_retries=0) as one:
        yield one


def transcribe(client: openai.OpenAI, **fields: Any) -> Any:
    with JFK.open("rb") as file:
        return client.audio.transcriptions.create(file=file, **{"model": "whisper-1", **fields})


# The client of OpenAI's package.


@pytest.mark.parametrize("form", ["json", "text", "srt", "verbose_json", "vtt"])
def test_openai_client_gets_every_format(client: openai.OpenAI, node: Node, form: str) -> None:
    more: dict[str, Any] = {}
    if form == "verbose_json":
        more["timestamp_granularities"] = ["word", "segment"]
    answer = transcribe(client, response_format=form, language="en", **more)
    if form in ("text", "srt", "vtt"):
        lines = (line for line in answer.splitlines() if "-->" not in line and not line.isdigit())
        assert WORDS in " ".join(" ".join(lines).split())
        beginning = {"text": "And so", "srt": "1\n00:00:00,", "vtt": "WEBVTT\n\n00:00:00."}[form]
        assert answer.startswith(beginning)
        return
    assert WORDS in answer.text
    if form == "verbose_json":
        assert (answer.language, answer.duration) == ("english", 11.0)
        assert " ".join(segment.text for segment in answer.segments) == answer.text
        assert [segment.id for segment in answer.segments] == list(range(len(answer.segments)))
        assert " ".join(word.word for word in answer.words) == answer.text
        for timed in (*answer.segments, *answer.words):
            assert 0 <= timed.start <= timed.end <= 11.0
        type(answer).model_validate(answer.model_dump(), strict=True)


def test_openai_client_gets_a_stream(client: openai.OpenAI) -> None:
    *deltas, done = transcribe(client, stream=True)
    assert deltas
    assert all(isinstance(event, TranscriptionTextDeltaEvent) for event in deltas)
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert "".join(event.delta for event in deltas) == done.text
    assert WORDS in done.text


def test_openai_client_gets_the_probabilities_of_tokens(client: openai.OpenAI) -> None:
    answer = transcribe(client, include=["logprobs"])
    assert WORDS in answer.text
    type(answer).model_validate(answer.model_dump(), strict=True)
    data = b"".join(bytes(int(byte) for byte in token.bytes) for token in answer.logprobs)
    assert data.decode() == answer.text
    assert "".join(token.token for token in answer.logprobs) == answer.text
    assert all(-10 < token.logprob <= 0 for token in answer.logprobs)
    assert sum(token.logprob for token in answer.logprobs) / len(answer.logprobs) > -1
    *deltas, done = transcribe(client, stream=True, include=["logprobs"])
    whole = [token.model_dump() for token in done.logprobs]
    assert [token.model_dump() for delta in deltas for token in delta.logprobs] == whole
    assert "".join(token.token for token in done.logprobs) == done.text
    for delta in deltas:
        assert "".join(token.token for token in delta.logprobs) == delta.delta


def test_openai_client_may_name_any_model(client: openai.OpenAI, node: Node) -> None:
    for _ in range(2):
        answer = transcribe(client, model="gpt-4o-transcribe", response_format="verbose_json")
        assert WORDS in answer.text
        assert answer.model == "tiny.en-q8_0"
    asked = [line for line in node.log.all() if "another model was asked for" in line]
    assert len([line for line in asked if "gpt-4o-transcribe" in line]) == 1


# OpenAI has deprecated the endpoint, so the package warns.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_openai_client_gets_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as english, JFK.open("rb") as file:
        client.audio.translations.create(file=file, model="whisper-1")
    assert english.value.code == "bad_field"
    assert "cannot translate" in str(english.value)
    with pytest.raises(openai.BadRequestError) as noise:
        client.audio.transcriptions.create(file=("a.wav", b"no audio"), model="tiny.en")
    assert noise.value.code == "unsupported_media_type"
    assert noise.value.type == "invalid_request_error"
    with pytest.raises(openai.APIStatusError) as codec:
        client.audio.transcriptions.create(file=("a.wav", G729), model="tiny.en")
    assert (codec.value.status_code, codec.value.code) == (415, "unsupported_media_type")
    assert "G.729 in WAV" in str(codec.value)


def test_openai_client_lists_the_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["tiny.en", "tiny.en-q8_0", "whisper-1"]
    assert client.models.retrieve("tiny.en-q8_0").object == "model"


# curl, as in the docs.


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", EXAMPLES, ids=lambda command: str(command)[-50:])
def test_examples_in_the_docs_work(place: str, command: str, tmp_path: Path) -> None:
    shutil.copy(JFK, tmp_path / "recording.flac")
    assert PLACE in command
    done = subprocess.run(
        ["bash", "-c", command.replace(PLACE, place).replace("curl", "curl -sS", 1)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if "translations" in command:
        assert json.loads(done.stdout)["error"]["code"] == "bad_field"
    elif "-F" in command:
        assert "your country" in done.stdout
    else:
        assert done.stdout


def test_docs_have_examples() -> None:
    assert len(EXAMPLES) >= 12


# Behaviour of the process.


def settled_bytes(node: Node) -> int:
    """Resident memory once it stays the same: after a request with words the engine loads the model
    again, which frees 44 MB for a moment."""
    before = node.resident_bytes()
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = node.resident_bytes()
        if abs(now - before) < 1 << 20:
            return now
        before = now
    raise AssertionError("the node's memory does not settle")


def test_large_upload_is_not_held_in_memory(node: Node, place: str) -> None:
    """50 MiB that are not audio; the node reads all of them before it can reject them."""
    size, piece = 50 << 20, b"x" * (1 << 20)
    before = settled_bytes(node)
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    tail = b"\r\n--b--\r\n"
    host, port = place.removeprefix("http://").split(":")
    most = before
    with socket.create_connection((host, int(port)), HANG) as upload:
        upload.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % (len(head) + size + len(tail)) + head
        )
        for _ in range(size // len(piece)):
            upload.sendall(piece)
            most = max(most, node.resident_bytes())
        upload.sendall(tail)
        answer = b"".join(iter(lambda: upload.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert most - before < 16 << 20


def test_page_is_served_with_its_content_security_policy(place: str, client: openai.OpenAI) -> None:
    import urllib.request

    with urllib.request.urlopen(f"{place}/", timeout=HANG) as page:
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "unsafe" not in page.headers["Content-Security-Policy"]
        assert b"<html" in page.read()


def test_http_port_auto_starts_without_http_if_the_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        except OSError:
            pass  # another process has the port, which is just as good
        with stopped_cleanly(Node("--http-port", "auto")) as node:
            assert "http" not in node.listening
            node.wait_for_log(
                "HTTP is off: port in use; choose another with --http-port", port=8080
            )
