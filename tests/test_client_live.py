"""scripts/client.py --live as a process, against a small fake node; see tests/test_client.py."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import pty
import signal
import ssl
import struct
import subprocess
import sys
import threading
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from certificates import Certificates
from test_client import (
    CLIENT,
    HANG,
    Node,
    client,
    command,
    failure,
    framed,
    read_exactly,
    read_header,
    start,
)

__all__ = ["start"]

SAMPLES = bytes(range(256)) * 50
"""0.4 s of 16-bit samples at 16 kHz."""


def segment(text: str, begin: float = 0.0, end: float = 1.0, **more: Any) -> dict[str, Any]:
    said = {"start": begin, "end": end, "text": text, "confidence": 0.9, **more}
    return {"id": "r1", "status": "segment", "segment": said}


LAST = {
    "id": "r1",
    "status": "ok",
    "language": "en",
    "utterances": 2,
    "segment_count": 2,
    "audio_seconds": 2.0,
    "processing_seconds": 0.1,
    "model": "tiny.en-q8_0",
    "truncated": False,
}


def read_frames(peer: Any) -> Iterator[bytes]:
    """The frames of a stream up to its end; ends early if the connection does."""
    while head := read_exactly(peer, 2):
        (length,) = struct.unpack("!H", head)
        if length == 0:
            return
        yield read_exactly(peer, length)


def hears(*replies: dict[str, Any]) -> Callable[[Any, Node], None]:
    """A handler that reads a whole stream and sends `replies`."""

    def answer(peer: Any, node: Node) -> None:
        header = read_header(peer)
        node.received.append((header, b"".join(read_frames(peer))))
        for reply in replies:
            peer.sendall(framed(reply))

    return answer


def wav(samples: bytes, channels: int = 1, width: int = 2, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(samples)
    return file.getvalue()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    path.write_bytes(wav(SAMPLES))
    return path


def test_samples_on_stdin_are_streamed_in_the_usual_format(start) -> None:
    node = start(hears(segment("one"), segment(" two\n"), LAST))
    done = client("--live", "-", port=node.port, stdin=SAMPLES)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"one\ntwo\n"
    ((header, audio),) = node.received
    assert audio == SAMPLES
    assert header == {
        "live": True,
        "reply": "segments",
        "byteorder": sys.byteorder,
        "content-type": "audio/pcm",
        "content-encoding": "s16",
        "sample-rate": 16_000,
        "channels": 1,
        "connection": "close",
    }


def test_text_appears_while_the_audio_goes_on(start) -> None:
    heard = threading.Event()

    def answer(peer: Any, node: Node) -> None:
        read_header(peer)
        frames = read_frames(peer)
        next(frames)
        peer.sendall(framed(segment("early")))
        node.received.append(({}, b"".join(frames)))
        heard.set()
        peer.sendall(framed(LAST))

    node = start(answer)
    with subprocess.Popen(
        command("--live", "-", port=node.port),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(SAMPLES)
        assert process.stdout.readline() == b"early\n"
        assert not heard.is_set()
        process.stdin.write(SAMPLES)
        process.stdin.close()
        assert process.wait(HANG) == 0
    # The first frame may have held any part of the first samples.
    assert (2 * SAMPLES).endswith(node.received[0][1])
    assert len(node.received[0][1]) >= len(SAMPLES)


def test_options_become_header_fields(start) -> None:
    node = start(hears(LAST))
    options = ("--language", "en", "--prompt", "Iro", "--words", "--languages", "en,de")
    raw = ("--encoding", "f32", "--sample-rate", "48000", "--channels", "2")
    done = client("--live", *options, *raw, "-", port=node.port, stdin=SAMPLES, token="hush")
    assert done.returncode == 0
    ((header, _),) = node.received
    assert (header["language"], header["prompt"], header["languages"]) == (
        "en",
        "Iro",
        ["en", "de"],
    )
    assert header["word-timestamps"] is True
    assert header["token"] == "hush"
    assert (header["content-encoding"], header["sample-rate"], header["channels"]) == (
        "f32",
        48_000,
        2,
    )


def test_one_option_for_stdin_leaves_the_others_as_usual(start) -> None:
    node = start(hears(LAST))
    assert client("--live", "--channels", "2", "-", port=node.port, stdin=SAMPLES).returncode == 0
    ((header, _),) = node.received
    assert (header["content-encoding"], header["sample-rate"], header["channels"]) == (
        "s16",
        16_000,
        2,
    )


# Files.


def test_wav_file_is_played_in_small_pieces(start, clip) -> None:
    pieces: list[bytes] = []

    def answer(peer: Any, node: Node) -> None:
        node.received.append((read_header(peer), b""))
        pieces.extend(read_frames(peer))
        peer.sendall(framed(LAST))

    node = start(answer)
    assert client("--live", clip, port=node.port).returncode == 0
    assert b"".join(pieces) == SAMPLES
    assert {len(piece) for piece in pieces} == {640}
    ((header, _),) = node.received
    assert (header["content-encoding"], header["sample-rate"]) == ("s16", 16_000)


def live_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("client_under_test", CLIENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_file_is_played_by_absolute_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is sent at the time of its last sample, and a delay is not added to later ones."""
    module = live_module()

    class Time:
        now = 100.0
        slept: list[float] = []  # noqa: RUF012

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.slept.append(round(seconds, 3))
            self.now += seconds

    time = Time()
    monkeypatch.setattr(module, "time", time)
    blocks = iter([b"a" * 640] * 5 + [b""])

    def read() -> bytes:
        if len(time.slept) == 2:
            time.now += 0.03  # slow once
        return next(blocks)

    source = module.LiveSource(read, lambda count: count / 32_000)
    source.run()
    assert time.slept == [0.02, 0.02, 0.0, 0.01, 0.02, 0.0]
    taken = [source.take() for _ in range(6)]
    assert taken == [b"a" * 640] * 5 + [b""]
    source.close()


def extensible(samples: bytes) -> bytes:
    """A WAV as newer programs write it, with chunks before and after its samples."""
    form = struct.pack("<HHIIHH", 0xFFFE, 2, 48_000, 0, 8, 32) + struct.pack("<HHI", 22, 32, 3)
    form += struct.pack("<H", 3) + b"\x00" * 14
    parts = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in (
            (b"fmt ", form),
            (b"LIST", b"abc"),
            (b"data", samples),
            (b"id3 ", b"xyz"),
        )
    )
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WAVE" + parts


@pytest.mark.parametrize(
    ("data", "samples", "form"),
    [
        (wav(SAMPLES, 2, 1, 8_000), SAMPLES, ("u8", 8_000, 2)),
        (wav(SAMPLES[:6_000], 1, 3), SAMPLES[:6_000], ("s24", 16_000, 1)),
        (wav(SAMPLES, 1, 4), SAMPLES, ("s32", 16_000, 1)),
        (extensible(SAMPLES), SAMPLES, ("f32", 48_000, 2)),
        # A length that was not known when the header was written, as of a recorder's pipe.
        (wav(SAMPLES)[:40] + b"\0\0\0\0" + SAMPLES, SAMPLES, ("s16", 16_000, 1)),
        (wav(SAMPLES)[:40] + b"\xff\xff\xff\xff" + SAMPLES, SAMPLES, ("s16", 16_000, 1)),
    ],
    ids=["u8", "s24", "s32", "extensible", "length 0", "no length"],
)
def test_format_of_a_wav_on_stdin_is_in_its_header(start, data, samples, form) -> None:
    node = start(hears(LAST))
    done = client("--live", "-", port=node.port, stdin=data)
    assert (done.returncode, done.stderr) == (0, b"")
    ((header, audio),) = node.received
    assert audio == samples
    assert (header["content-encoding"], header["sample-rate"], header["channels"]) == form
    assert header["byteorder"] == "little"


def test_raw_file_needs_its_format_and_is_then_played(start, tmp_path: Path) -> None:
    path = tmp_path / "clip.raw"
    path.write_bytes(SAMPLES)
    done = client("--live", path, port=1)
    assert done.returncode == 1
    assert b"--sample-rate" in done.stderr
    node = start(hears(LAST))
    form = ("--encoding", "s16", "--sample-rate", "16000", "--channels", "1")
    assert client("--live", *form, path, port=node.port).returncode == 0
    assert node.received[0][1] == SAMPLES


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"fLaC" + bytes(100), b"ffmpeg"),
        (b"RIFF\0\0\0\0AVI LIST", b"not a WAV"),
        (wav(SAMPLES)[:30], b"without samples"),
        (b"", b"ffmpeg"),
        (wav(SAMPLES).replace(b"\x01\0\x01\0", b"\x11\0\x01\0", 1), b"16 bits"),
    ],
    ids=["flac", "avi", "cut", "empty", "adpcm"],
)
def test_file_that_cannot_be_played_is_named_with_a_way_out(tmp_path: Path, data, word) -> None:
    path = tmp_path / "clip.bin"
    path.write_bytes(data)
    done = client("--live", path, port=1)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(str(path).encode())
    assert word in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_missing_file_is_one_line() -> None:
    done = client("--live", "no/such/file.wav", port=1)
    assert done.returncode == 1
    assert done.stderr == b"no/such/file.wav: cannot be opened: No such file or directory\n"


# Output.


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (
            ("--srt",),
            "1\n00:00:00,000 --> 00:00:01,000\none\n\n2\n00:00:01,500 --> 00:00:02,000\ntwo\n\n",
        ),
        (
            ("--vtt",),
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\none\n\n"
            "00:00:01.500 --> 00:00:02.000\ntwo\n\n",
        ),
        (("--words",), "0.00\t0.40\tone\n1.50\t2.00\ttwo\n"),
    ],
    ids=" ".join,
)
def test_forms_of_output_are_those_of_files(start, flags, shown) -> None:
    def words(text: str, begin: float, end: float) -> list[dict[str, Any]]:
        return [{"start": begin, "end": end, "text": text, "confidence": 0.9}]

    one = segment("one", words=words("one", 0.0, 0.4))
    two = segment("two", 1.5, 2.0, words=words("two", 1.5, 2.0))
    node = start(hears(one, two, LAST))
    done = client("--live", *flags, "-", port=node.port, stdin=SAMPLES)
    assert (done.returncode, done.stdout.decode()) == (0, shown)


def test_json_prints_every_reply(start) -> None:
    node = start(hears(segment("one"), LAST))
    done = client("--live", "--json", "-", port=node.port, stdin=SAMPLES)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"file": "-", **segment("one")},
        {"file": "-", **LAST},
    ]


# Ends.


def test_error_of_the_node_is_printed_after_the_text(start) -> None:
    node = start(hears(segment("one"), failure("timeout", "too late", retry_after_seconds=3.0)))
    done = client("--live", "-", port=node.port, stdin=SAMPLES)
    assert (done.returncode, done.stdout) == (1, b"one\n")
    assert done.stderr == b"stdin: timeout: too late (retry in 3 s)\n"


def test_node_without_live_audio_is_reported(start, clip) -> None:
    def answer(peer: Any, node: Node) -> None:
        read_header(peer)
        peer.sendall(framed(failure("missing_field", "content-length is missing")))

    done = client("--live", clip, port=start(answer).port)
    assert done.returncode == 1
    assert b"missing_field: content-length is missing" in done.stderr


def test_node_that_ends_the_stream_is_reported(start, clip) -> None:
    def answer(peer: Any, node: Node) -> None:
        read_header(peer)
        peer.sendall(framed(segment("one")) + framed({**LAST, "truncated": True}))

    done = client("--live", clip, port=start(answer).port)
    assert (done.returncode, done.stdout) == (1, b"one\n")
    assert done.stderr.endswith(b": the node ended the stream: it is shutting down\n")


def test_lost_connection_is_reported(start, clip) -> None:
    def answer(peer: Any, node: Node) -> None:
        read_header(peer)
        peer.sendall(framed(segment("one")))

    done = client("--live", clip, port=start(answer).port)
    assert (done.returncode, done.stdout) == (1, b"one\n")
    assert b"closed the connection" in done.stderr


def test_peer_that_is_no_node_is_reported(start, clip) -> None:
    def answer(peer: Any, node: Node) -> None:
        read_header(peer)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    done = client("--live", clip, port=start(answer).port)
    assert done.returncode == 1
    assert b"not a node-whisper node" in done.stderr


def test_closed_output_ends_the_client(start) -> None:
    node = start(hears(segment("one"), LAST))
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command("--live", "-", port=node.port),
        input=SAMPLES,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=HANG,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def interruptible(node: Node) -> subprocess.Popen[bytes]:
    """A client whose stdin stays open, as that of a recorder does."""
    process = subprocess.Popen(
        command("--live", "-", port=node.port),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin is not None
    process.stdin.write(SAMPLES)
    return process


def test_first_interrupt_ends_the_audio_and_waits_for_its_text(start) -> None:
    def answer(peer: Any, node: Node) -> None:
        node.received.append((read_header(peer), b""))
        frames = read_frames(peer)
        peer.sendall(framed(segment("one")))
        node.received.append(({}, b"".join(frames)))
        peer.sendall(framed(segment("two")) + framed(LAST))

    node = start(answer)
    with interruptible(node) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"two\n"
        assert process.wait(HANG) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_second_interrupt_resets_the_connection(start) -> None:
    ended, left = threading.Event(), threading.Event()

    def answer(peer: Any, node: Node) -> None:
        read_header(peer)
        peer.sendall(framed(segment("one")))
        b"".join(read_frames(peer))
        ended.set()
        try:
            assert peer.recv(1) == b"", "a reset is expected"
        except ConnectionResetError:
            left.set()

    node = start(answer)
    with interruptible(node) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        process.send_signal(signal.SIGINT)
        assert ended.wait(HANG)
        process.send_signal(signal.SIGINT)
        assert process.wait(HANG) == 130
    assert left.wait(HANG)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("-", "b.wav"), b"one FILE"),
        (("--fire-and-forget", "-"), b"--fire-and-forget"),
        (("--split-channels", "-"), b"--split-channels"),
    ],
)
def test_options_that_live_audio_cannot_have_are_rejected(arguments, word) -> None:
    done = client("--live", *arguments)
    assert done.returncode == 2
    assert word in done.stderr


def test_stream_over_tls(start, certificates: Certificates) -> None:
    """Enough audio in both directions that TLS has records pending."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.node)
    replies = [segment(f"{index} " + "x" * 20_000) for index in range(20)]
    node = start(hears(*replies, LAST), tls=context)
    done = client("--live", "--ca", certificates.ca, "-", port=node.port, stdin=SAMPLES * 40)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) == 20
    assert node.received[0][1] == SAMPLES * 40


def partial(stable: str, rest: str) -> dict[str, Any]:
    return {"id": "r1", "status": "partial", "stable": stable, "rest": rest}


def on_a_terminal(*arguments: Any, port: int, width: int) -> tuple[int, str]:
    """Run the client with a terminal of this width as stdout; its status and all that it wrote."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(*arguments, port=port),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": str(width)},
    ) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # Linux reports this once the other side is closed
            while block := os.read(ours, 65536):
                said += block
        os.close(ours)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    return process.returncode, said.decode()


def test_words_of_the_open_utterance_are_shown_on_a_terminal(start, clip) -> None:
    replies = (partial("", "one"), partial("one", " two\x1b[2J"), segment("one too"), LAST)
    node = start(hears(*replies))
    status, said = on_a_terminal("--live", clip, port=node.port, width=80)
    assert status == 0
    ((header, _),) = node.received
    assert header["reply"] == "partials"
    erase, dim, normal = "\r\x1b[K", "\x1b[2m", "\x1b[0m"
    assert said == (f"{erase}{dim}one{normal}{erase}one{dim} two [2J{normal}{erase}one too\r\n")


def test_long_words_of_the_open_utterance_stay_in_one_line(start, clip) -> None:
    node = start(hears(partial("a" * 30, "b" * 5), segment("end"), LAST))
    _, said = on_a_terminal("--live", clip, port=node.port, width=20)
    assert "\r\x1b[K" + "a" * 14 + "\x1b[2m" + "b" * 5 + "\x1b[0m" in said


@pytest.mark.parametrize("form", ["--srt", "--vtt", "--words", "--json"])
def test_partial_words_are_not_asked_for_in_other_forms(start, clip, form: str) -> None:
    node = start(hears(segment("one"), LAST))
    on_a_terminal("--live", form, clip, port=node.port, width=80)
    ((header, _),) = node.received
    assert header["reply"] == "segments"
