"""The child process that decodes: its confinement, hostile files, and children that misbehave."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import http.server
import io
import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import RATE, eventually
from hypothesis import given
from hypothesis import strategies as st
from media import Decoded, av, box, clip, recorded
from node import HANG, ROOT
from test_media import children, running

from app.audio.media import confinement, process, wire
from app.audio.media.formats import CODECS, DEMUXERS
from app.audio.media.opener import MediaOpener
from app.audio.stream import AudioStream
from app.storage.body import in_memory

# Confinement.


def test_allow_lists_hold_only_names_that_ffmpeg_knows() -> None:
    from av.codec.codec import codecs_available
    from av.format import formats_available

    demuxers = {name for entry in formats_available for name in entry.split(",")}
    assert set(DEMUXERS.values()) <= demuxers
    assert not set(DEMUXERS.values()) & {"hls", "dash", "concat", "image2", "subfile", "rtsp"}
    assert codecs_available >= CODECS
    assert all(av.Codec(name, "r").type == "audio" for name in CODECS)


@pytest.fixture
def child() -> Iterator[Path]:
    """/proc of a child that has sent its first block and waits until more is read."""
    body = in_memory(recorded("m4a AAC", np.tile(clip(), 6)))
    stream = AudioStream(body.fileno(), body.size, None, 600.0, media=MediaOpener().open)
    stream.read()
    yield Path(f"/proc/{running(stream)}")
    stream.close()
    body.close()


def test_child_has_the_body_and_a_pipe_and_nothing_else(child: Path) -> None:
    links = {int(path.name): os.readlink(path) for path in (child / "fd").iterdir()}
    assert links.keys() == {0, 1, 2}
    assert "node-whisper-body" in links[0]
    assert links[1].startswith("pipe:")
    assert links[2] == "/dev/null"
    flags = dict(line.split(":\t") for line in (child / "fdinfo" / "0").read_text().splitlines())[
        "flags"
    ]
    assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY
    environment = (child / "environ").read_bytes().split(b"\0")
    assert {entry.partition(b"=")[0] for entry in environment} <= {b"", b"LD_LIBRARY_PATH"}
    assert os.readlink(child / "cwd") == "/"


def test_child_has_limits(child: Path) -> None:
    rows = {
        line[:26].strip(): line[26:].split() for line in (child / "limits").read_text().splitlines()
    }
    for name, most in (
        ("Max address space", 512 << 20),
        ("Max open files", 16),
        ("Max processes", 0),
        ("Max file size", 0),
        ("Max core file size", 0),
        ("Max cpu time", 20 + 0.2 * 600 + 1),
    ):
        assert rows[name][:2] == [str(int(most))] * 2, name
    status = dict(line.split(":\t", 1) for line in (child / "status").read_text().splitlines())
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    # Where memory runs out, the kernel ends the child and not the node.
    assert (child / "oom_score_adj").read_text() == "1000\n"


ESCAPES = {
    "fork": "os.fork()",
    "thread": "import _thread; _thread.start_new_thread(print, ())",
    "exec": "os.execv('/bin/true', ['true'])",
    "open": "os.open('/etc/passwd', os.O_RDONLY)",
    "create": "os.open('/tmp/made-by-a-child', os.O_CREAT | os.O_WRONLY)",
    "socket": "import _socket; _socket.socket()",
    "kill": "os.kill(os.getppid(), 0)",
    "stat": "os.stat('/etc')",
    "executable": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "memory": "bytearray(600 << 20)",
    "limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (15, 15))",
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_compromised_child_cannot_escape(escape: str) -> None:
    code = (
        "import os, sys, mmap, resource, _thread, _socket\n"
        f"sys.path.append({str(ROOT)!r})\n"
        "from app.audio.media import confinement\n"
        "confinement.limit(100)\n"
        "confinement.seal()\n"
        "try:\n"
        f"    {ESCAPES[escape]}\n"
        "except (OSError, MemoryError, RuntimeError, ValueError) as error:\n"
        "    os.write(1, type(error).__name__.encode())\n"
        "    os._exit(0)\n"
        "os.write(1, b'escaped')\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, check=False, timeout=HANG
    )
    # A fork that succeeded would write twice.
    assert done.stdout in (b"PermissionError", b"MemoryError", b"RuntimeError", b"ValueError")


def test_system_calls_have_the_numbers_of_both_architectures() -> None:
    path = ctypes.util.find_library("seccomp")
    if path is None:
        pytest.skip("there is no libseccomp to ask")
    resolve = ctypes.CDLL(path).seccomp_syscall_resolve_name_arch
    for name, numbers in (confinement.CALLS | confinement.MAPPING_CALLS).items():
        found = [
            resolve(ctypes.c_uint32(token), name.encode()) for token in (0xC000003E, 0xC00000B7)
        ]
        assert found == list(numbers), name


def test_child_of_another_parent_ends() -> None:
    """The node died between the start of the child and its request for a death signal."""
    code = (
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "from app.audio.media import confinement\n"
        "confinement.bind_to_parent(1 << 22)\n"
        "print('lives')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


# Files that name other files.


class Listener:
    """A local HTTP server that counts its requests."""

    def __init__(self) -> None:
        asked: list[str] = []
        self.asked = asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def with_reference(url: bytes) -> bytes:
    """A QuickTime file whose samples are in another file: its `dref` has an alias to it."""
    data = recorded("mov PCM", clip(1.0))
    inner = box(b"url ", b"\0\0\0\1")
    assert data.count(inner) + data.count(box(b"alis", b"\0\0\0\1")) == 1
    old = inner if inner in data else box(b"alis", b"\0\0\0\1")
    # An alias: volume, folder and file names in fixed fields, then the path as a tagged record.
    path = url if len(url) % 2 == 0 else url + b"\0"
    alias = bytes(4 + 2 + 2 + 2) + b"\x06volume".ljust(28, b"\0") + bytes(4 + 2 + 2 + 4)
    alias += b"\x04file".ljust(64, b"\0") + bytes(4 + 4 + 4 + 4 + 2 + 2 + 4 + 2 + 10)
    alias += struct.pack(">HH", 2, len(path)) + path + struct.pack(">H", 0xFFFF)
    new = box(b"alis", b"\0\0\0\0", alias)
    grown = len(new) - len(old)
    at = data.index(old)
    data = data[:at] + new + data[at + len(old) :]
    for name in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = data.rindex(name, 0, at) - 4
        (length,) = struct.unpack(">I", data[start : start + 4])
        data = data[:start] + struct.pack(">I", length + grown) + data[start + 4 :]
    return data


def test_reference_to_another_file_is_not_followed(listener: Listener, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((tone := np.full(RATE, 12345, "<i2")).tobytes())
    unsafe = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(io.BytesIO(with_reference(str(secret).encode())), options=unsafe) as container:
        assert next(container.decode(audio=0)).to_ndarray()[0, 0] == tone[0]
    for url in (f"http://127.0.0.1:{listener.port}/a", str(secret), f"file://{secret}"):
        data = with_reference(url.encode())
        decoded = Decoded(data)
        if not decoded.code:
            assert np.abs(decoded.samples).max() < tone[0] / 32768 * 0.9
    assert listener.asked == []


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{url}'\n",
    "dash": "<?xml version='1.0'?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlist_is_not_recognised(kind: str, listener: Listener) -> None:
    text = PLAYLISTS[kind].format(url=f"http://127.0.0.1:{listener.port}/a.m4a").encode()
    assert Decoded(text).code == "unsupported_media_type"
    # Behind the first bytes of a container only that container's demuxer sees it.
    for magic in (b"\0\0\0\x10ftypM4A \0\0\0\0", b"\x1aE\xdf\xa3", b"OggS", b"caff\0\1\0\0"):
        assert Decoded(magic + text).code in ("bad_audio", "unsupported_media_type")
    # Any bytes are frames of AMR.
    assert not Decoded(b"#!AMR\n" + text).code
    assert listener.asked == []


def test_demuxer_of_playlists_is_refused_by_its_options(listener: Listener, tmp_path: Path) -> None:
    """The options alone, without the system call filter, keep FFmpeg from other files."""
    text = PLAYLISTS["hls"].format(url=f"http://127.0.0.1:{listener.port}/a.m4a")
    code = (
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "from app.audio.media.track import open_container\n"
        "for data, demuxer in eval(sys.stdin.read()):\n"
        "    import io\n"
        "    try:\n"
        "        container = open_container(io.BytesIO(data), demuxer)\n"
        "        print(sum(frame.samples for frame in container.decode(audio=0)))\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__)\n"
    )
    reference = with_reference(f"http://127.0.0.1:{listener.port}/b".encode())
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=repr([(text.encode(), "hls"), (reference, "mov")]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert len(done.stdout.split()) == 2
    assert listener.asked == []


# Files that are too much.


def test_compressed_silence_ends_at_the_limit() -> None:
    data = recorded("mkv FLAC", np.zeros(1200 * RATE, np.float32))
    assert len(data) < 1_000_000
    assert Decoded(data, seconds=600.0).code == "audio_too_long"


def test_index_that_unpacks_to_gigabytes_is_bad_audio() -> None:
    bomb = zlib.compress(bytes(64 << 20), 9)
    packed = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", 0x7FFFFFFF), bomb))
    data = box(b"ftyp", b"qt  ", bytes(4)) + box(b"moov", packed)
    assert len(data) < 100_000
    assert Decoded(data).code == "bad_audio"


@pytest.mark.parametrize("name", [b"stts", b"stsz", b"stco", b"stsc"])
def test_table_with_billions_of_entries_is_bad_audio(name: bytes) -> None:
    data = bytearray(recorded("m4a AAC", clip(1.0)))
    at = data.index(name) + (12 if name == b"stsz" else 8)
    data[at : at + 4] = b"\x7f\xff\xff\xff"
    assert Decoded(bytes(data)).code in ("bad_audio", "")


# Children that misbehave, as a compromised decoder could.

OPENED = "os.write(1, wire.opened(16000, 1, None))\n"
MISBEHAVIOUR = {
    "ends at once": "os._exit(0)",
    "fails": "os._exit(3)",
    "kills itself": "os.kill(os.getpid(), 9)",
    "sends nothing": "time.sleep(600)",
    "computes for ever": "while True: pass",
    "stops after its first message": OPENED + "time.sleep(600)",
    "sends noise": "os.write(1, os.urandom(100_000)); time.sleep(600)",
    "sends a length of gigabytes": "os.write(1, b'S' + b'\\xff' * 4 + bytes(9)); time.sleep(600)",
    "sends parts of a message": "while not time.sleep(0.01): os.write(1, b'O\\xff\\xff\\0\\0')",
    "sends no samples": OPENED
    + "while True: os.write(1, wire.frame_head(0, 0, 0, 16000, 1, 'flt', 0))",
    "sends wrong samples": OPENED
    + "os.write(1, wire.frame_head(0, 0, 9, 16000, 1, 'flt', 8) + bytes(8))",
    "opens twice": OPENED + OPENED + "time.sleep(600)",
    "sends a strange failure": "os.write(1, wire.failed('\\u2028' * 99, '\\x1b[2J' * 99))",
    "forks": "os.fork(); os.fork(); os._exit(0)",
}


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the child's program. The limits of its time are short."""
    monkeypatch.setattr(process, "_BASE_SECONDS", 0.5)

    def replace(code: str) -> None:
        start = f"import os, sys, time; sys.path.append({str(ROOT)!r})\n"
        start += "from app.audio.media import wire, confinement\n"
        start += "confinement.bind_to_parent(os.getppid())\n"
        command = [sys.executable, "-I", "-S", "-c", start + code]
        monkeypatch.setattr(process, "_interpreter", lambda: command)

    return replace


@pytest.mark.parametrize("kind", MISBEHAVIOUR)
def test_misbehaving_child_is_bad_audio(kind: str, misbehave: Any) -> None:
    misbehave(MISBEHAVIOUR[kind])
    decoded = Decoded(recorded("m4a AAC", clip(1.0)))
    assert decoded.code == "bad_audio"
    assert decoded.message.isprintable()
    eventually(lambda: children() == [], "the end of the children")


def test_endless_sound_ends_at_the_limit(misbehave: Any) -> None:
    head = "wire.frame_head(0, 0, 16000, 16000, 1, 's16', 32000)"
    misbehave(f"{OPENED}while True: os.write(1, {head} + bytes(32000))")
    decoded = Decoded(recorded("m4a AAC", clip(1.0)), seconds=60.0)
    assert decoded.code == "audio_too_long"
    assert len(np.concatenate(decoded.blocks)) <= 60 * RATE


@given(st.binary(max_size=200))
def test_messages_of_any_bytes_give_values_or_one_exception(data: bytes) -> None:
    read_all(data)


@given(st.lists(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), max_size=4))
def test_messages_of_any_values_give_values_or_one_exception(values: list[Any]) -> None:
    read_all(json.dumps(values).encode())


def read_all(data: bytes) -> None:
    readers: list[Any] = [wire.read_opened, wire.read_frame, wire.read_silence, wire.read_failed]
    for read in readers:
        with contextlib.suppress(wire.WireError):
            read(data)
