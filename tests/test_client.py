"""scripts/client.py as a process, against a small fake node.

The fake node implements the framing of docs/protocol.md without `app`, so that the tests notice a
mistake that client and node have in common.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pty
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates

CLIENT = Path(__file__).resolve().parent.parent / "scripts" / "client.py"
MIB = 1024 * 1024
HANG = 180.0
"""Seconds until a test gives up; no test measures time with it."""

OK: dict[str, Any] = {
    "id": "r1",
    "status": "ok",
    "text": "Größe <b> & Co. At last.",
    "language": "en",
    "segments": [
        {
            "start": 0.0,
            "end": 2.3456,
            "text": " Größe <b>\n& Co.",
            "confidence": 0.9,
            "words": [
                {"start": 0.0, "end": 0.5, "text": " Größe", "confidence": 0.9},
                {"start": 0.5, "end": 2.34, "text": "<b>", "confidence": 0.8},
            ],
        },
        {"start": 2.5, "end": 2.6, "text": " ", "confidence": 0.1, "words": []},
        {
            "start": 3661.9996,
            "end": 360000.0,
            "text": " At last.",
            "confidence": 0.7,
            "words": [{"start": 3661.9996, "end": 360000.0, "text": " last.", "confidence": 0.7}],
        },
    ],
    "audio_seconds": 4.0,
    "queue_seconds": 0.0,
    "processing_seconds": 0.1,
    "model": "tiny.en-q8_0",
    "truncated": False,
}


def failure(code: str, message: str, **more: Any) -> dict[str, Any]:
    error = {"code": code, "message": message, **more}
    return {"id": None, "status": "error", "error": error}


def framed(reply: dict[str, Any]) -> bytes:
    body = json.dumps(reply).encode()
    header = json.dumps(
        {
            "byteorder": sys.byteorder,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "content-length": len(body),
        }
    ).encode()
    return struct.pack("!H", len(header)) + header + body


def read_exactly(peer: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        block = peer.recv(min(count - len(data), MIB))
        if not block:
            break
        data += block
    return bytes(data)


def read_header(peer: socket.socket) -> dict[str, Any]:
    (length,) = struct.unpack("!H", read_exactly(peer, 2))
    header: dict[str, Any] = json.loads(read_exactly(peer, length))
    return header


@dataclass
class Node:
    """A fake node's port and records. `errors` is empty unless the fake node itself failed."""

    port: int
    received: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    refused: list[str | None] = field(default_factory=list)
    """The TLS errors of failed handshakes, one for each connection."""


def shake_hands(peer: ssl.SSLSocket, node: Node) -> bool:
    try:
        peer.do_handshake()
    except OSError as error:
        node.refused.append(getattr(error, "reason", None) or str(error))
        # A close with unread input sends a reset, which could overtake our alert.
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_WR)
            while socket.socket.recv(peer, MIB):
                pass
        return False
    return True


Answer = Callable[[socket.socket, Node], None]


def answers(reply: dict[str, Any] | Callable[[bytes], dict[str, Any]]) -> Answer:
    """A handler that reads the whole message and sends a reply."""

    def answer(peer: socket.socket, node: Node) -> None:
        header = read_header(peer)
        body = read_exactly(peer, header["content-length"])
        node.received.append((header, body))
        peer.sendall(framed(reply(body) if callable(reply) else reply))

    return answer


@pytest.fixture
def start() -> Iterator[Callable[..., Node]]:
    """Start fake nodes: `start(answer)` calls `answer` in a thread for each connection. With `tls`,
    a server's context, the TLS handshake comes first."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []
    nodes: list[Node] = []

    def start_node(
        answer: Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> Node:
        listener = socket.create_server((host, 0))
        listeners.append(listener)
        node = Node(listener.getsockname()[1])
        nodes.append(node)

        def serve(peer: socket.socket) -> None:
            try:
                peer.settimeout(HANG)
                if tls is not None:
                    peer = tls.wrap_socket(peer, server_side=True, do_handshake_on_connect=False)
                with peer:
                    if not isinstance(peer, ssl.SSLSocket) or shake_hands(peer, node):
                        answer(peer, node)
            except BaseException as error:
                node.errors.append(error)

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=serve, args=(peer,))
                threads.append(thread)
                thread.start()

        thread = threading.Thread(target=accept)
        threads.append(thread)
        thread.start()
        return node

    yield start_node
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(HANG)
        assert not thread.is_alive()
    assert [node.errors for node in nodes] == [[] for _ in nodes]


def command(*arguments: str | Path, port: int | None = None) -> list[str]:
    # -W error: a socket or file left open is a failure, as in the tests themselves.
    start = [sys.executable, "-I", "-W", "error", str(CLIENT)]
    where = [] if port is None else ["--port", str(port)]
    return start + where + [str(argument) for argument in arguments]


def client(
    *arguments: str | Path, port: int | None = None, stdin: bytes = b"", token: str = ""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*arguments, port=port),
        input=stdin,
        capture_output=True,
        timeout=HANG,
        check=False,
        env={**os.environ, "NODE_WHISPER_TOKEN": token},
    )


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.flac"
    path.write_bytes(b"fLaC" + os.urandom(200_000))
    return path


def test_client_prints_the_text_and_sends_the_file_unchanged(start, clip):
    node = start(answers(OK))
    done = client(clip, port=node.port)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "Größe <b> & Co. At last.\n"
    ((header, body),) = node.received
    assert body == clip.read_bytes()
    assert header == {
        "byteorder": sys.byteorder,
        "content-type": "binary/flac",
        "content-encoding": "flac",
        "content-length": 200_004,
        "connection": "close",
    }


def test_options_become_header_fields(start, clip):
    node = start(answers(OK))
    done = client(
        *("--language", "en-GB", "--task", "transcribe", "--prompt", "Größe, ü", "--words", clip),
        port=node.port,
    )
    assert done.returncode == 0
    ((header, _),) = node.received
    assert header["language"] == "en-GB"
    assert header["task"] == "transcribe"
    assert header["prompt"] == "Größe, ü"
    assert header["word-timestamps"] is True


def test_languages_and_split_channels_become_header_fields(start, clip):
    node = start(answers(OK))
    client("--languages", "en, de", "--split-channels", clip, port=node.port)
    ((header, _),) = node.received
    assert (header["languages"], header["channel-mode"]) == (["en", "de"], "split")


CALL = [
    {"start": 0.0, "end": 2.0, "text": "Hello", "confidence": 0.9, "channel": 1},
    {"start": 1.0, "end": 3.0, "text": "<Hi>", "confidence": 0.9, "channel": 2},
]
for segment in CALL:
    segment["words"] = [{key: segment[key] for key in ("start", "end", "text", "confidence")}]


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ((), "Channel 1: Hello\nChannel 2: <Hi>\n"),
        (("--words",), "0.00\t2.00\tHello\t1\n1.00\t3.00\t<Hi>\t2\n"),
        (
            ("--srt",),
            "1\n00:00:00,000 --> 00:00:02,000\nChannel 1: Hello\n\n"
            "2\n00:00:01,000 --> 00:00:03,000\nChannel 2: <Hi>\n\n",
        ),
        (
            ("--vtt", "--words"),
            "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n<v Channel 1>Hello\n\n"
            "00:00:01.000 --> 00:00:03.000\n<v Channel 2>&lt;Hi&gt;\n\n",
        ),
    ],
    ids=" ".join,
)
def test_every_output_names_the_channels(start, clip, flags, shown):
    node = start(answers({**OK, "text": "Hello <Hi>", "segments": CALL}))
    done = client("--split-channels", *flags, clip, port=node.port)
    assert done.stdout.decode() == shown


def test_json_option_prints_the_whole_reply_on_one_line(start, clip):
    node = start(answers(OK))
    done = client("--json", clip, port=node.port)
    assert done.returncode == 0
    (line,) = done.stdout.decode().splitlines()
    assert json.loads(line) == {"file": str(clip), **OK}


def test_srt_option_prints_subrip(start, clip):
    node = start(answers(OK))
    done = client("--srt", clip, port=node.port)
    assert done.returncode == 0
    assert done.stdout.decode() == (
        "1\n00:00:00,000 --> 00:00:02,346\nGröße <b> & Co.\n\n"
        "2\n01:01:02,000 --> 100:00:00,000\nAt last.\n\n"
    )


def test_vtt_option_prints_webvtt(start, clip):
    node = start(answers(OK))
    done = client("--vtt", clip, port=node.port)
    assert done.returncode == 0
    assert done.stdout.decode() == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:02.346\nGröße &lt;b&gt; &amp; Co.\n\n"
        "01:01:02.000 --> 100:00:00.000\nAt last.\n\n"
    )


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        (("--srt",), {"max-line-width": 42}),
        (("--vtt", "--max-line-count", "1"), {"max-line-width": 42, "max-line-count": 1}),
        (("--srt", "--max-line-width", "0"), {"max-line-width": 0}),
        (("--json", "--max-cue-seconds", "2.5"), {"max-cue-seconds": 2.5}),
        (("--json",), {}),
        (("--srt", "--words"), {}),
        ((), {}),
    ],
    ids=" ".join,
)
def test_size_of_cues_is_sent_for_subtitles(start, clip, flags, fields):
    node = start(answers(OK))
    assert client(*flags, clip, port=node.port).returncode == 0
    ((header, _),) = node.received
    assert {name: value for name, value in header.items() if name.startswith("max-")} == fields


@pytest.mark.parametrize(("flag", "shown"), [("--srt", "a <b>\nc"), ("--vtt", "a &lt;b&gt;\nc")])
def test_cue_is_printed_in_its_lines(start, clip, flag, shown):
    segment = {"start": 0.0, "end": 2.0, "text": "a <b> c", "confidence": 0.9}
    node = start(answers({**OK, "segments": [{**segment, "lines": ["a <b>", " ", "c\n"]}]}))
    done = client(flag, clip, port=node.port)
    assert done.stdout.decode().endswith(f"02{',' if flag == '--srt' else '.'}000\n{shown}\n\n")


def test_words_option_prints_a_line_for_each_word(start, clip):
    node = start(answers(OK))
    done = client("--words", clip, port=node.port)
    assert done.stdout.decode() == (
        "0.00\t0.50\tGröße\n0.50\t2.34\t<b>\n3662.00\t360000.00\tlast.\n"
    )
    subtitles = client("--words", "--srt", clip, port=node.port).stdout.decode()
    assert "2\n00:00:00,500 --> 00:00:02,340\n<b>\n\n3\n" in subtitles


@pytest.mark.parametrize(("flag", "end"), [("--srt", "00:00:07,980"), ("--vtt", "00:00:07.980")])
def test_cue_of_a_word_without_length_is_extended(start, clip, flag, end):
    word = {"start": 7.88, "end": 7.88, "text": "ask", "confidence": 0.8}
    segment = {"start": 7.6, "end": 10.6, "text": "ask", "confidence": 0.8, "words": [word]}
    node = start(answers({**OK, "segments": [segment]}))
    assert f"--> {end}\nask\n" in client("--words", flag, clip, port=node.port).stdout.decode()
    # --words alone prints the original times.
    assert client("--words", clip, port=node.port).stdout == b"7.88\t7.88\task\n"


def test_output_is_utf8_in_any_locale(start, clip):
    node = start(answers(OK))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
    arguments = [sys.executable, str(CLIENT), "--port", str(node.port), str(clip)]
    done = subprocess.run(
        arguments, capture_output=True, timeout=HANG, check=False, env=environment
    )
    assert done.stdout.decode("utf-8") == "Größe <b> & Co. At last.\n"


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [
        (">&-", 0, b""),
        (">/dev/full", 1, b"client.py: the output cannot be written: No space left on device\n"),
        ("- <&-", 1, b"stdin: cannot be read: stdin is closed\n"),
    ],
)
def test_closed_or_full_stream_gives_one_line(start, clip, redirection, code, told):
    node = start(answers(OK))
    command = f'exec "$@" {redirection}'
    arguments = [sys.executable, str(CLIENT), "--port", str(node.port), str(clip)]
    done = subprocess.run(
        ["sh", "-c", command, "sh", *arguments], capture_output=True, timeout=HANG, check=False
    )
    assert (done.returncode, done.stderr) == (code, told)


def test_error_reply_is_printed_on_stderr(start, clip):
    node = start(answers(failure("busy", "the queue is full", retry_after_seconds=2.5)))
    done = client(clip, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"{clip}: busy: the queue is full (retry in 2.5 s)\n"


def test_truncated_audio_is_reported_on_stderr(start, clip):
    node = start(answers({**OK, "truncated": True}))
    done = client(clip, port=node.port)
    assert done.returncode == 0
    assert done.stdout.decode() == "Größe <b> & Co. At last.\n"
    assert "is truncated" in done.stderr.decode()


@pytest.mark.parametrize("then", ["drain", "close", "hold"])
def test_early_error_during_a_large_upload_is_printed(start, tmp_path, then):
    """The node rejects the header and then reads a little more, or resets, or does nothing."""
    client_gone = threading.Event()

    def answer(peer: socket.socket, node: Node) -> None:
        node.received.append((read_header(peer), b""))
        peer.sendall(framed(failure("too_large", "at most 1 MiB")))
        if then == "drain":
            peer.shutdown(socket.SHUT_WR)
            read_exactly(peer, MIB)
        elif then == "hold":
            assert client_gone.wait(2 * HANG)

    node = start(answer)
    big = tmp_path / "big.wav"
    with big.open("wb") as file:
        file.truncate(300 * MIB)
    try:
        done = client(big, port=node.port)
    finally:
        client_gone.set()
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"{big}: too_large: at most 1 MiB\n"
    assert node.received[0][0]["content-length"] == 300 * MIB


def test_large_file_is_never_whole_in_memory(start, tmp_path):
    big = tmp_path / "big.wav"
    with big.open("wb") as file:
        file.truncate(300 * MIB)
    counted = []

    def answer(peer: socket.socket, node: Node) -> None:
        left = read_header(peer)["content-length"]
        while left:
            left -= len(peer.recv(min(left, MIB)))
        counted.append(left)
        peer.sendall(framed(OK))

    node = start(answer)
    # The limit is on address space, so a copy of the file would fail at its allocation.
    measured = ["bash", "-c", 'ulimit -v 262144; exec "$@"', "-", *command(big, port=node.port)]
    done = subprocess.run(measured, capture_output=True, timeout=HANG, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert counted == [0]


def test_parallel_files_are_printed_in_order(start, tmp_path):
    both_here = threading.Barrier(2, timeout=HANG)
    second_done = threading.Event()

    def answer(peer: socket.socket, node: Node) -> None:
        header = read_header(peer)
        body = read_exactly(peer, header["content-length"])
        both_here.wait()
        if body == b"first":
            assert second_done.wait(HANG)
        peer.sendall(framed({**OK, "text": body.decode()}))
        if body == b"second":
            second_done.set()

    node = start(answer)
    names = []
    for name in ("first", "second"):
        names.append(tmp_path / f"{name}.wav")
        names[-1].write_bytes(name.encode())
    done = client("--parallel", "2", *names, port=node.port)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"first\nsecond\n"


def test_files_are_sent_one_by_one_and_a_failure_does_not_stop_them(start, tmp_path):
    # Counted between request and reply, because a connection may end after the next one begins.
    asked, at_once = [], []

    def reply(body: bytes) -> dict[str, Any]:
        asked.append(body)
        time.sleep(0.1)
        at_once.append(len(asked))
        asked.remove(body)
        return failure("bad_audio", "no") if body == b"2" else {**OK, "text": body.decode()}

    node = start(answers(reply))
    names = [tmp_path / f"{number}.wav" for number in (1, 2, 3)]
    for name in names:
        name.write_bytes(name.stem.encode())
    done = client(*names, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"1\n3\n")
    assert done.stderr.decode() == f"{names[1]}: bad_audio: no\n"
    assert at_once == [1, 1, 1]


def test_stdin_is_sent_as_a_file(start):
    node = start(answers(OK))
    sound = os.urandom(MIB)
    done = client("-", port=node.port, stdin=sound)
    assert (done.returncode, done.stderr) == (0, b"")
    ((header, body),) = node.received
    assert body == sound
    assert header["content-length"] == MIB


def test_stdin_is_read_from_its_current_position(start, clip):
    node = start(answers(OK))
    with clip.open("rb") as file:
        os.lseek(file.fileno(), 4, os.SEEK_SET)
        done = subprocess.run(
            command("-", port=node.port), stdin=file, capture_output=True, timeout=HANG, check=False
        )
    assert done.returncode == 0
    assert node.received[0][1] == clip.read_bytes()[4:]


def test_raw_samples_are_sent_with_their_format(start, tmp_path):
    node = start(answers(OK))
    raw = tmp_path / "voice.PCM"
    raw.write_bytes(bytes(320))
    form = ("--encoding", "s16", "--sample-rate", "8000", "--channels", "2")
    for done in (client(*form, raw, port=node.port), client(*form, "-", port=node.port)):
        assert (done.returncode, done.stderr) == (0, b"")
    for header, _ in node.received:
        assert header["content-type"] == "audio/pcm"
        assert header["content-encoding"] == "s16"
        assert header["sample-rate"] == 8000
        assert header["channels"] == 2
        assert header["byteorder"] == sys.byteorder
    incomplete = client("--encoding", "s16", raw, port=node.port)
    assert incomplete.returncode == 1
    assert b"add --sample-rate and --channels" in incomplete.stderr
    assert len(node.received) == 2


@pytest.mark.parametrize(
    ("name", "flags", "form"),
    [
        ("a.ulaw", (), ("ulaw", 8000, 1)),
        ("a.AL", (), ("alaw", 8000, 1)),
        ("a.gsm", (), ("gsm", 8000, 1)),
        ("a.g722", (), ("g722", 16000, 1)),
        ("a.sln", (), ("s16", 8000, 1)),
        ("a.sln44", (), ("s16", 44100, 1)),
        ("a.sln192", (), ("s16", 192000, 1)),
        ("a.raw", ("--encoding", "ulaw"), ("ulaw", 8000, 1)),
        ("-", ("--encoding", "g722"), ("g722", 16000, 1)),
        ("a.ulaw", ("--channels", "2", "--sample-rate", "16000"), ("ulaw", 16000, 2)),
        ("a.ulaw", ("--encoding", "alaw"), ("alaw", 8000, 1)),
    ],
)
def test_telephony_file_is_sent_with_its_format(start, tmp_path, name, flags, form):
    node = start(answers(OK))
    path = tmp_path / name
    path.write_bytes(bytes(330))
    with path.open("rb") as file:
        done = subprocess.run(
            command(*flags, "-" if name == "-" else path, port=node.port),
            stdin=file,
            capture_output=True,
            timeout=HANG,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    ((header, _),) = node.received
    assert header["content-type"] == "audio/pcm"
    names = ("content-encoding", "sample-rate", "channels")
    assert tuple(header[name] for name in names) == form


def test_fire_and_forget_prints_that_it_was_accepted(start, clip):
    node = start(answers({"id": "r7", "status": "accepted"}))
    done = client("--fire-and-forget", clip, port=node.port)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"accepted r7\n", b"")
    assert node.received[0][0]["reply"] == "accepted"


def test_empty_file_is_sent(start, tmp_path):
    node = start(answers(failure("bad_audio", "the message holds no audio")))
    empty = tmp_path / "empty.wav"
    empty.touch()
    done = client(empty, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"{empty}: bad_audio: the message holds no audio\n"
    ((header, body),) = node.received
    assert (header["content-length"], body) == (0, b"")


def test_reply_may_arrive_byte_by_byte(start, clip):
    def answer(peer: socket.socket, node: Node) -> None:
        read_exactly(peer, read_header(peer)["content-length"])
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed({**OK, "segments": []}):
            peer.sendall(bytes([byte]))

    node = start(answer)
    done = client(clip, port=node.port)
    assert (done.returncode, done.stderr) == (0, b"")


def test_closed_port_is_reported_with_advice(clip):
    with socket.socket() as bound:
        bound.bind(
            ("127.0.0.1", 0)
        )  # bound but not listening: the port is refused and stays reserved
        done = client(clip, port=bound.getsockname()[1])
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert "nothing listens on 127.0.0.1 port" in line
    assert "scripts/run" in line


def test_unknown_host_is_reported(clip):
    done = client("--host", "no-such-host.invalid", clip)
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert "no-such-host.invalid" in line
    assert "--host" in line


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", "closed the connection without a reply"),
        (framed(OK)[:-1], "in the middle of its reply"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a node-whisper node"),
        (framed({"status": "ok"}), "not a node-whisper node"),
        (framed({"status": "strange"}), "not a node-whisper node"),
    ],
    ids=["nothing", "half", "http", "fields missing", "unknown status"],
)
def test_invalid_reply_is_reported(start, clip, sent, expected):
    def answer(peer: socket.socket, node: Node) -> None:
        read_exactly(peer, read_header(peer)["content-length"])
        peer.sendall(sent)

    node = start(answer)
    done = client(clip, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert expected in line


def test_unreadable_file_does_not_stop_the_others(start, clip, tmp_path):
    node = start(answers(OK))
    done = client(tmp_path / "missing.wav", tmp_path, clip, port=node.port)
    assert done.returncode == 1
    assert done.stdout.decode() == "Größe <b> & Co. At last.\n"
    first, second = done.stderr.decode().splitlines()
    assert "missing.wav: cannot be opened: No such file" in first
    assert f"{tmp_path}: is a folder: add --output-dir" in second


def test_file_that_shrinks_during_the_upload_is_reported(start, tmp_path):
    shrinking = tmp_path / "shrinking.wav"
    with shrinking.open("wb") as file:
        file.truncate(64 * MIB)

    def answer(peer: socket.socket, node: Node) -> None:
        header = read_header(peer)
        os.truncate(shrinking, 0)
        body = read_exactly(peer, header["content-length"])
        node.received.append((header, body[:0]))
        assert len(body) < header["content-length"]

    node = start(answer)
    done = client(shrinking, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "became shorter during the upload" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--srt", "a.wav", "b.wav"), "take one FILE"),
        (("--srt", "--json", "a.wav"), "not allowed with"),
        (("--fire-and-forget", "--vtt", "a.wav"), "prints no text"),
        (("-", "-"), "only once"),
        (("--port", "70000", "a.wav"), "not within 1 to 65535"),
        (("--parallel", "0", "a.wav"), "not within 1 to 256"),
        (("--channels", "1", "a.wav"), ".pcm, .raw and telephony files"),
        (("--key", "a.key", "a.wav"), "add --cert"),
        (("--ca", "no-such.pem", "a.wav"), "no TLS with no-such.pem: No such file"),
        (("--cert", "no-such.pem", "a.wav"), "no TLS with no-such.pem: No such file"),
        (("--token-file", "no-such", "a.wav"), "--token-file no-such: No such file"),
        (("--token-file", os.devnull, "a.wav"), "the first line is empty"),
        (("--languages", "en,", "a.wav"), "codes separated by commas"),
        (("--max-line-width", "20", "a.wav"), "are for --srt and --vtt"),
        (("--srt", "--words", "--max-line-count", "1", "a.wav"), "without --words"),
        (("--srt", "--max-line-width", "1001", "a.wav"), "not within 0 to 1000"),
        (("--srt", "--max-cue-seconds", "0.1", "a.wav"), "not within 0.5 to 3600"),
        ((), "FILE"),
    ],
)
def test_wrong_arguments_exit_with_status_2(arguments, expected):
    done = client(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert expected in done.stderr.decode()


def test_interrupt_resets_the_connection(start, clip):
    waiting = threading.Event()
    seen = []

    def answer(peer: socket.socket, node: Node) -> None:
        read_exactly(peer, read_header(peer)["content-length"])
        waiting.set()
        try:
            seen.append(peer.recv(1))
        except ConnectionResetError:
            seen.append("reset")

    node = start(answer)
    with subprocess.Popen(
        command(clip, port=node.port),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell that runs the tests in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert waiting.wait(HANG)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=HANG)
    assert (process.returncode, output) == (130, b"")
    assert errors == b"client.py: interrupted\n"
    deadline = time.monotonic() + HANG
    while not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen == ["reset"]


def test_interrupt_works_at_every_line(clip, monkeypatch, capsys):
    """Raises KeyboardInterrupt at each line that the main thread reaches, in one run for each."""
    spec = importlib.util.spec_from_file_location("client_under_test", CLIENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(module, "leave", leave)
    monkeypatch.setattr(module.signal, "signal", lambda number, action: None)
    monkeypatch.delenv("NODE_WHISPER_TOKEN", raising=False)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setattr(sys, "argv", ["client.py", "--port", f"{bound.getsockname()[1]}", clip])
        monkeypatch.setattr(sys, "argv", [str(part) for part in sys.argv])

        def run(line: int) -> tuple[int, bool]:
            """Return the exit code, and whether line number `line` was reached."""
            left, within = line, False

            def trace(frame: Any, event: str, _argument: object) -> Any:
                nonlocal left, within
                name = frame.f_code.co_name
                if frame.f_code.co_filename != str(CLIENT) or name == "interrupted":
                    return None
                # Count from the first call within the `try` of main(); nothing before is protected.
                within = within or name == "parse_arguments"
                if event == "line" and within:
                    left -= 1
                    if left == 0:
                        raise KeyboardInterrupt
                return trace

            before = sys.gettrace()
            sys.settrace(trace)
            try:
                code = module.main()
            except SystemExit as exit:
                code = exit.code
            finally:
                sys.settrace(before)
            return code, left <= 0

        lines = 0
        while True:
            lines += 1
            code, reached = run(lines)
            said = capsys.readouterr().err
            if not reached:
                break
            assert code == 130, f"at line {lines}"
            assert said.endswith("client.py: interrupted\n")
    assert lines > 50
    assert code == 1
    assert "nothing listens" in said


# TLS and the token.


@pytest.fixture
def tls(certificates: Certificates) -> ssl.SSLContext:
    """The TLS context of a node."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.node)
    return context


def demanding(certificates: Certificates, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The TLS context of a node that requires a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.node)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    return context


def test_client_over_tls(start, clip, tls, certificates):
    long = {**OK, "text": "long " * 100_000}
    node = start(answers(long), tls)
    done = client("--tls", "--ca", certificates.ca, clip, port=node.port)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == long["text"].strip() + "\n"
    assert node.received[0][1] == clip.read_bytes()
    assert client("--ca", certificates.ca, clip, port=node.port).returncode == 0


def test_large_file_over_tls(start, tmp_path, tls, certificates):
    node = start(answers(lambda body: {**OK, "text": str(len(body))}), tls)
    big = tmp_path / "big.wav"
    with big.open("wb") as file:
        file.truncate(20 * MIB)
    done = client("--ca", certificates.ca, big, port=node.port)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"20971520\n", b"")


def test_reply_in_tiny_tls_records(start, clip, tls, certificates):
    def answer(peer: socket.socket, node: Node) -> None:
        read_exactly(peer, read_header(peer)["content-length"])
        for byte in framed({**OK, "segments": []}):
            peer.sendall(bytes([byte]))

    node = start(answer, tls)
    done = client("--ca", certificates.ca, clip, port=node.port)
    assert (done.returncode, done.stderr) == (0, b"")


def test_early_error_during_a_large_upload_over_tls_is_printed(start, tmp_path, tls, certificates):
    def answer(peer: socket.socket, node: Node) -> None:
        read_header(peer)
        peer.sendall(framed(failure("too_large", "at most 1 MiB")))
        read_exactly(peer, 2 * MIB)

    node = start(answer, tls)
    big = tmp_path / "big.wav"
    with big.open("wb") as file:
        file.truncate(64 * MIB)
    done = client("--ca", certificates.ca, big, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"{big}: too_large: at most 1 MiB\n"


def test_node_with_an_unknown_authority_is_rejected(start, clip, tls, strangers):
    node = start(answers(OK), tls)
    for arguments in (("--tls",), ("--ca", strangers.ca)):
        done = client(*arguments, clip, port=node.port)
        assert (done.returncode, done.stdout) == (1, b"")
        assert "the certificate of 127.0.0.1 port" in done.stderr.decode()
        assert "give its authority with --ca" in done.stderr.decode()
    assert node.received == []


def test_certificate_of_another_name_is_rejected(start, clip, tls, certificates):
    node = start(answers(OK), tls, "127.0.0.2")
    done = client("--host", "127.0.0.2", "--ca", certificates.ca, clip, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "the certificate of 127.0.0.2 port" in done.stderr.decode()
    assert node.received == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_certificate_is_sent(start, clip, certificates, strangers, version):
    node = start(answers(OK), demanding(certificates, version))
    ours, theirs = certificates.client, strangers.client
    ca = ("--ca", certificates.ca)
    done = client(*ca, "--cert", ours[0], "--key", ours[1], clip, port=node.port)
    assert (done.returncode, done.stderr) == (0, b"")
    done = client(*ca, clip, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "the node requires a client certificate: give --cert and --key" in done.stderr.decode()
    done = client(*ca, "--cert", theirs[0], "--key", theirs[1], clip, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "the node rejects the certificate of --cert" in done.stderr.decode()
    assert len(node.received) == 1
    assert len(node.refused) == 2


def test_client_certificate_may_be_in_one_file_with_its_key(start, tmp_path, clip, certificates):
    node = start(answers(OK), demanding(certificates, ssl.TLSVersion.TLSv1_3))
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in certificates.client))
    done = client("--ca", certificates.ca, "--cert", both, clip, port=node.port)
    assert (done.returncode, done.stderr) == (0, b"")


def test_tls_option_on_a_plain_port_is_reported(start, clip):
    def answer(peer: socket.socket, node: Node) -> None:
        peer.recv(MIB)
        peer.sendall(framed(failure("bad_header", "that is no header")))

    node = start(answer)
    done = client("--tls", clip, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "remove --tls" in done.stderr.decode()


def test_missing_tls_option_is_reported(start, clip, tls):
    node = start(answers(OK), tls)
    done = client(clip, port=node.port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "if it uses TLS, add --tls" in done.stderr.decode()
    assert len(node.refused) == 1


def test_missing_tls_option_is_reported_from_an_alert(start, clip):
    def answer(peer: socket.socket, node: Node) -> None:
        peer.sendall(b"\x15\x03\x01\x00\x02\x02\x46")  # fatal, protocol version
        read_exactly(peer, MIB)

    done = client(clip, port=start(answer).port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "the port uses TLS: add --tls" in done.stderr.decode()


def test_token_comes_from_file_or_variable(start, tmp_path, clip):
    node = start(answers(OK))
    file = tmp_path / "token"
    file.write_text("from-the-file\nanother line\n")
    assert client(clip, port=node.port).returncode == 0
    assert client(clip, port=node.port, token="from-the-variable").returncode == 0
    assert client("--token-file", file, clip, port=node.port, token="other").returncode == 0
    shown = [header.get("token") for header, _ in node.received]
    assert shown == [None, "from-the-variable", "from-the-file"]


@pytest.mark.parametrize(("size", "shown"), [(8 * MIB, True), (MIB, False)])
def test_progress_is_shown_for_large_uploads_on_a_terminal(start, tmp_path, size, shown):
    node = start(answers(OK))
    big = tmp_path / "big.wav"
    with big.open("wb") as file:
        file.truncate(size)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(big, port=node.port), stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        output, _ = process.communicate(timeout=HANG)
    said = b""
    try:
        while block := os.read(ours, 65536):
            said += block
    except OSError:  # Linux reports this once the other side is closed
        pass
    finally:
        os.close(ours)
    assert (process.returncode, output.decode()) == (0, "Größe <b> & Co. At last.\n")
    if shown:
        assert b"big.wav: sent 8.0 of 8.0 MiB (all; waiting for the reply)" in said
        assert said.endswith(b" \r")  # erased before the text
    else:
        assert said == b""
