"""deploy/node-whisper.service: systemd's checks of the unit, and a node under its restrictions.

systemd does not run in a test environment. systemd-analyze checks the unit. MemoryDenyWriteExecute,
the only setting that could break a decoder, is applied like systemd does it (helpers/mdwe.py) to a
real node with a real model, and the test itself listens at NOTIFY_SOCKET.
"""

from __future__ import annotations

import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import node as processes
import pytest
import soundfile
import soxr
from certificates import Certificates
from fakes import RATE, encoded, tone
from node import HANG, JFK, ROOT, Client, Node
from test_audio import FORMATS

from app.settings import settings as config

UNIT = ROOT / "deploy" / "node-whisper.service"
MDWE = ROOT / "tests" / "helpers" / "mdwe.py"
TOKEN = "a-token-for-the-tests"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze"
)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


def settings(name: str) -> list[str]:
    """All values of a setting of the unit, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


@needs_systemd
def test_unit_has_a_low_exposure() -> None:
    done = analyze("security", "--offline=true", "--threshold=30", UNIT)
    if "Unknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("this systemd-analyze does not know --offline")
    found = re.search(r"exposure level for node-whisper.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) < 3.0
    assert done.returncode == 0


@needs_systemd
def test_unit_has_only_lines_that_systemd_knows(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    assert "/opt/node-whisper/.venv/bin/python" in text
    copy.write_text(text.replace("/opt/node-whisper/.venv/bin/python", sys.executable))
    done = analyze("verify", "--man=no", copy)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert complaints == []
    wrong = tmp_path / "wrong" / UNIT.name
    wrong.parent.mkdir()
    wrong.write_text(copy.read_text().replace("PrivateTmp=yes", "PrivateTemp=yes"))
    assert "PrivateTemp" in analyze("verify", "--man=no", wrong).stderr


def test_settings_of_the_unit_are_valid(tmp_path: Path) -> None:
    state = tmp_path / "node-whisper"
    for name in ("models", "spool", "journal"):
        (state / name).mkdir(parents=True)
    words = " ".join(settings("Environment")).replace("%S", str(tmp_path)).split()
    environment = dict(word.split("=", 1) for word in words)
    ours = {name for name in environment if name.startswith("NODE_WHISPER_")}
    read = config.read([], environment)
    assert ours == {f"NODE_WHISPER_{name}" for name in NAMES}
    assert read.journal == state / "journal"
    assert read.spool_dir == state / "spool"
    assert read.models_dir == state / "models"
    # A drain ends before systemd's timeout.
    assert read.drain_seconds + 2 < float(settings("TimeoutStopSec")[0])


NAMES = ("LOG_FORMAT", "OUTPUT", "MODELS_DIR", "SPOOL_DIR", "JOURNAL", "DRAIN_SECONDS")


# MemoryDenyWriteExecute.

CONTROL = """
import ctypes, mmap, sys
page = mmap.mmap(-1, mmap.PAGESIZE)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
gained = ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, 1 | 4) == 0
try:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    gained = True
except OSError:
    pass
import soundfile
try:
    soundfile.SoundFile(open(sys.argv[1], "rb"))
    by_object = True
except MemoryError:
    by_object = False
with open(sys.argv[1], "rb") as file:
    by_descriptor = len(soundfile.SoundFile(file.fileno(), closefd=False).read()) > 0
print(gained, by_object, by_descriptor)
"""


def denying(how: str) -> list[str]:
    """The first words of a command that runs under MemoryDenyWriteExecute."""
    start = [sys.executable, str(MDWE), how]
    tried = subprocess.run([*start, "true"], capture_output=True, text=True, check=False)
    if tried.returncode == 77:
        pytest.skip(f"the kernel does not do that: {tried.stderr.strip()}")
    assert tried.returncode == 0, tried.stderr
    return start


@pytest.mark.parametrize("how", ["prctl", "seccomp"])
def test_mdwe_denies_executable_memory(how: str) -> None:
    """The setting is in force in these tests. It also breaks soundfile with a Python file object,
    which is the reason that bodies are opened by descriptor."""
    done = subprocess.run(
        [*denying(how), sys.executable, "-c", CONTROL, str(JFK)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("False False True\n", "")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that receives the node's notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(HANG)
        yield end


DECODE = """
import os, sys
from app.audio.stream import AudioStream
for path in sys.argv[1:]:
    descriptor = os.open(path, os.O_RDWR)
    stream = AudioStream(descriptor, os.fstat(descriptor).st_size, None, 60.0)
    count = 0
    while (block := stream.read()) is not None:
        count += len(block)
    print(count)
"""


@pytest.mark.parametrize("how", ["prctl", "seccomp"])
def test_every_format_is_decoded_under_mdwe(how: str, tmp_path: Path) -> None:
    for name, form in FORMATS.items():
        (tmp_path / name).write_bytes(encoded(tone(2 * RATE), RATE, **form))
    done = subprocess.run(
        [*denying(how), sys.executable, "-c", DECODE, *(str(tmp_path / name) for name in FORMATS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = dict(zip(FORMATS, map(int, done.stdout.split()), strict=True))
    # MP3 and ADPCM pad to whole blocks.
    assert {name: count for name, count in counts.items() if not 0 <= count - 2 * RATE < 3000} == {}


JOURNALLED = """
import sys
from pathlib import Path
from app.audio.stream import AudioStream
from app.storage.body import MEMORY_BYTES, load
from app.storage.disk import Disk
from app.storage.private_copy import PrivateCopies
path = Path(sys.argv[1])
before = path.read_bytes()
assert len(before) > MEMORY_BYTES
body, _ = load(path, Disk(lambda: None), PrivateCopies(path.parent, None, 1 << 30))
stream = AudioStream(body.fileno(), body.size, None, 3600.0, body.patch)
count = 0
while (block := stream.read()) is not None:
    count += len(block)
assert path.read_bytes() == before
print(count)
"""


@pytest.mark.parametrize("how", ["prctl", "seccomp"])
def test_journalled_file_is_repaired_in_a_copy_under_mdwe(how: str, tmp_path: Path) -> None:
    """A RF64 of unknown length, which libsndfile refuses without a patch."""
    count = 2_200_000
    data = bytearray(encoded(tone(count), RATE, format="RF64"))
    at = data.index(b"ds64") + 8
    data[at : at + 16] = b"\xff" * 16
    path = tmp_path / "body"
    path.write_bytes(data)
    done = subprocess.run(
        [*denying(how), sys.executable, "-c", JOURNALLED, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{count}\n", "")


@pytest.mark.parametrize("how", ["prctl", "seccomp"])
def test_node_runs_as_a_service_under_mdwe(
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    certificates: Certificates,
    systemd: socket.socket,
) -> None:
    """The node reports READY, feeds the watchdog, decodes one format of each decoder over TLS with
    a token, and reports STOPPING."""
    start = denying(how)
    command = processes.command
    monkeypatch.setattr(processes, "command", lambda *more: [*start, *command(*more)])
    stereo, rate = soundfile.read(JFK, frames=int(2.6 * 44_100), dtype="float32")
    # This rate exists in every format, including Opus.
    samples = soxr.resample(stereo.mean(axis=1), rate, RATE)
    (tmp_path / "token").write_text(TOKEN)
    cert, key = certificates.node
    arguments = ("--tls-cert", str(cert), "--tls-key", str(key))
    arguments += ("--tls-client-ca", str(certificates.ca))
    arguments += ("--token-file", str(tmp_path / "token"), "--journal", str(tmp_path / "journal"))
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    context = certificates.trusting(showing=certificates.client)
    with Node(*arguments, environment=environment) as node:
        ready = systemd.recv(4096).decode()
        assert ready == f"READY=1\nSTATUS=tiny.en-q8_0 on port {node.port}"
        assert systemd.recv(4096) == b"WATCHDOG=1"

        def ask(body: bytes, **fields: object) -> dict[str, object]:
            plain = socket.create_connection(("127.0.0.1", node.port), HANG)
            with Client(tls(context, plain)) as client:
                client.send(body, **fields)
                reply = client.receive()
            assert reply is not None
            return reply

        for name in ("WAV", "FLAC", "Opus", "MP3"):
            body = encoded(samples, RATE, **FORMATS[name])
            reply = ask(body, token=TOKEN, id=name.replace(" ", "-"))
            assert "fellow america" in str(reply.get("text", reply)).lower(), name
        wrong = ask(b"fLaC", token="not-the-token")
        assert "unauthorized" in str(wrong["error"])
        assert systemd.recv(4096) == b"WATCHDOG=1"
        # The socket queues ten messages and the node drops further ones: make room for STOPPING.
        while select.select([systemd], [], [], 0)[0]:
            assert systemd.recv(4096) == b"WATCHDOG=1"
        node.signal(signal.SIGTERM)
        while (said := systemd.recv(4096)) == b"WATCHDOG=1":
            pass
        assert said.startswith(b"STOPPING=1\n")
        assert node.wait() == 0
        assert TOKEN not in "\n".join(node.log.all())
        assert "fellow" not in "\n".join(node.log.all()).lower()


def tls(context: ssl.SSLContext, plain: socket.socket) -> ssl.SSLSocket:
    return context.wrap_socket(plain, server_hostname="localhost")
