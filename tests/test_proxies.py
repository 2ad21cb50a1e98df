"""The node behind nginx, Caddy and Traefik, with exactly the configurations in docs/proxies.md.

Only ports, the certificate and the node's port are replaced. A proxy that is not installed is
skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import browser as browsers
import numpy as np
import pytest
import soundfile
import soxr
from fakes import RATE, FakeEngine, encoded, tone
from fakes import Node as FakeNode
from forms import BOUNDARY, TRANSCRIPTIONS, Answer, answers, form, post, request
from http_peer import SITE
from node import HANG, JFK, Node, eventually, stopped_cleanly
from test_haproxy import free_ports
from websockets.asyncio.client import connect
from websockets.typing import Origin

from app.network.ports import Proxies
from app.protocols.http.protocol import HttpProtocol

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "docs" / "proxies.md").read_text(encoding="utf-8")
WORDS = "ask not what your country can do for you"
PATHS = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:" + sysconfig.get_path("scripts")
KINDS = ("nginx", "caddy", "traefik")
ROOT_HOST, BELOW_HOST = "asr.example.org", "www.example.org"


def blocks(language: str) -> list[str]:
    """The blocks of a language in the document, without the first line, which is their path."""
    found = re.findall(
        rf"^```{language}\n# /etc/[^\n]*\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL
    )
    assert found
    return [str(block) for block in found]


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text, f"the document has no {old!r} any more"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of both hosts, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to make certificates with")
    folder = tmp_path_factory.mktemp("certificate")
    names = f"subjectAltName=DNS:{ROOT_HOST},DNS:{BELOW_HOST}"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-config", "/dev/null", "-noenc", "-days", "2"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=test"),
            *("-addext", names, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


class Proxy:
    """A running proxy, configured by the document, before the node at `node_port`."""

    def __init__(
        self, kind: str, folder: Path, certificate: tuple[Path, Path], node_port: int
    ) -> None:
        program = shutil.which(kind, path=PATHS)
        if program is None:
            pytest.skip(f"{kind} is not installed here")
        (self.port,) = free_ports(1)
        self._folder = folder
        self._files = (
            ("/etc/ssl/example.org.pem", str(certificate[0])),
            ("/etc/ssl/example.org.key", str(certificate[1])),
            ("127.0.0.1:8080", f"127.0.0.1:{node_port}"),
        )
        self._trust = ssl.create_default_context(cafile=str(certificate[0]))
        command = {"nginx": self._nginx, "caddy": self._caddy, "traefik": self._traefik}[kind]()
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, *command],
                env=dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            eventually(lambda: self.get(ROOT_HOST, "/healthz").status == 200)
        except BaseException:
            self.close()
            print((folder / "log").read_text(errors="replace")[-3000:])
            raise

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(HANG)

    def _nginx(self) -> list[str]:
        (site,) = blocks("nginx")
        listen = ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl")
        (self._folder / "site.conf").write_text(replaced(site, listen, *self._files))
        places = "".join(
            f"{kind}_temp_path {self._folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        main = self._folder / "nginx.conf"
        main.write_text(
            f"daemon off; pid {self._folder}/pid; error_log stderr; worker_processes 1;\n"
            f"events {{}}\nhttp {{ access_log off;\n{places}include {self._folder}/site.conf; }}\n"
        )
        return ["-p", str(self._folder), "-e", "stderr", "-c", str(main)]

    def _caddy(self) -> list[str]:
        (site,) = blocks("caddyfile")
        site = replaced(
            site,
            *self._files,
            *((f"{host} {{", f"{host}:{self.port} {{") for host in (ROOT_HOST, BELOW_HOST)),
        )
        file = self._folder / "Caddyfile"
        file.write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + site)
        return ["run", "--adapter", "caddyfile", "--config", str(file)]

    def _traefik(self) -> list[str]:
        static, dynamic = blocks("yaml")
        file = self._folder / "node-whisper.yml"
        file.write_text(replaced(dynamic, *self._files))
        static = replaced(
            static,
            ('address: ":443"', f'address: "127.0.0.1:{self.port}"'),
            ("/etc/traefik/node-whisper.yml", str(file)),
        )
        (self._folder / "traefik.yml").write_text(static)
        return ["--configFile", str(self._folder / "traefik.yml")]

    # Clients.

    def dial(self, host: str, source: str = "127.0.0.1") -> ssl.SSLSocket:
        """Connect from the address `source`."""
        plain = socket.create_connection(("127.0.0.1", self.port), HANG, (source, 0))
        return self._trust.wrap_socket(plain, server_hostname=host)

    def authority(self, host: str) -> str:
        return f"{host}:{self.port}"

    def exchange(self, host: str, data: bytes, source: str = "127.0.0.1") -> Answer:
        """Send one request and read its answer."""
        with self.dial(host, source) as client:
            client.sendall(data)
            return received(client)

    def get(self, host: str, path: str) -> Answer:
        with contextlib.suppress(OSError, AssertionError):
            return self.exchange(host, request("GET", path, Host=self.authority(host)))
        return Answer(0, {}, b"")

    def upload(self, audio: bytes, source: str = "127.0.0.1", **headers: str) -> Answer:
        headers = {"Host": self.authority(ROOT_HOST), **headers}
        data = post(TRANSCRIPTIONS, ("file", audio), **headers)
        return self.exchange(ROOT_HOST, data, source)

    def socket(self, host: str, path: str) -> connect:
        # With asyncio: a thread that reads while another writes is not safe with TLS in Python.
        plain = socket.create_connection(("127.0.0.1", self.port), HANG)
        plain.setblocking(False)
        place = self.authority(host)
        # The node's page of this port is allowed by the forwarded host alone.
        origin = Origin(f"https://{place}")
        return connect(f"wss://{place}{path}", sock=plain, ssl=self._trust, origin=origin)


def received(client: socket.socket) -> Answer:
    """Read one whole answer."""
    data = b""
    while more := client.recv(65_536):
        data += more
        with contextlib.suppress(AssertionError):
            found = answers(data)
            if found:
                return found[0]
    return answers(data, closed=True)[0]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    (port,) = free_ports(1)
    origins = f"https://{ROOT_HOST},https://{BELOW_HOST}"
    options = ("--http-port", str(port), "--trusted-proxy", "127.0.0.1", "--cors-origin", origins)
    with stopped_cleanly(Node(*options)) as node:
        yield node


def port_of(node: Node) -> int:
    return int(re.search(r":(\d+)/", node.listening["http"])[1])  # type: ignore[index]


@pytest.fixture(scope="module", params=KINDS)
def proxy(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificate: tuple[Path, Path],
    node: Node,
) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp(str(request.param))
    with contextlib.closing(Proxy(request.param, folder, certificate, port_of(node))) as proxy:
        yield proxy


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+", text.lower()))


def large_wav(folder: Path) -> bytes:
    """The recording in a WAV file of over 20 MB: 32-bit samples at 192 kHz, stereo."""
    wave, rate = soundfile.read(JFK, dtype="float32")
    wave = soxr.resample(wave if wave.ndim == 1 else wave.mean(axis=1), rate, 192_000)
    wave = np.concatenate([wave, np.zeros(192_000 * 3, np.float32)])
    soundfile.write(folder / "large.wav", np.stack([wave, wave], 1), 192_000, subtype="FLOAT")
    return (folder / "large.wav").read_bytes()


def unfinished(node: Node) -> int:
    """The requests that the node has begun, by its own port."""
    with socket.create_connection(("127.0.0.1", port_of(node)), HANG) as client:
        client.sendall(request("GET", "/status"))
        return int(received(client).json["queue"]["unfinished"])


def test_upload_of_20_mb_reaches_the_node_while_it_is_sent(
    proxy: Proxy, node: Node, tmp_path: Path
) -> None:
    wav = large_wav(tmp_path)
    assert len(wav) > 20_000_000
    data = post(TRANSCRIPTIONS, ("file", wav), Host=proxy.authority(ROOT_HOST))
    with proxy.dial(ROOT_HOST) as client:
        client.sendall(data[: len(data) // 2])
        eventually(lambda: unfinished(node) == 1)
        client.sendall(data[len(data) // 2 :])
        answer = received(client)
    assert answer.status == 200
    assert WORDS in plain(answer.json["text"])


def test_client_has_its_own_address_and_no_other(proxy: Proxy, node: Node) -> None:
    wav = encoded(tone(1600))
    for source in ("127.0.0.2", "127.0.0.3"):
        spoofed = {"X_Forwarded_For": "203.0.113.7", "Forwarded": "for=203.0.113.8"}
        answer = proxy.upload(wav, source, **spoofed)
        assert answer.status == 200
        assert node.outcome(answer.headers["x-request-id"])["peer"] == source


def test_page_of_the_host_may_send_audio_and_other_pages_may_not(proxy: Proxy) -> None:
    wav = encoded(tone(1600))
    origin = f"https://{proxy.authority(ROOT_HOST)}"
    assert proxy.upload(wav, Origin=origin).status == 200
    assert proxy.upload(wav, Origin=origin.replace("https", "http")).status == 403
    assert proxy.upload(wav, Origin=f"https://{proxy.authority('other.example')}").status == 403
    spoofed = {"Origin": "https://other.example", "X_Forwarded_Host": "other.example"}
    assert proxy.upload(wav, **spoofed).status == 403


def test_page_is_below_a_path(proxy: Proxy) -> None:
    moved = proxy.get(BELOW_HOST, "/asr")
    assert moved.status in (301, 308)
    assert (
        moved.headers["location"].removeprefix(f"https://{proxy.authority(BELOW_HOST)}") == "/asr/"
    )
    page = proxy.get(BELOW_HOST, "/asr/")
    assert page.status == 200
    assert b"<!doctype html>" in page.body.lower()
    script = proxy.get(BELOW_HOST, "/asr/page.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert proxy.get(BELOW_HOST, "/asr/v1/models").json["object"] == "list"
    # The rest of that host is not the node's.
    assert proxy.get(BELOW_HOST, "/v1/models").body[:1] != b"{"


def test_live_audio_over_a_websocket_below_a_path(proxy: Proxy) -> None:
    wave, rate = soundfile.read(JFK, dtype="float32")
    mono = soxr.resample(wave if wave.ndim == 1 else wave.mean(axis=1), rate, 16_000)
    data = (mono[: int(3.2 * 16_000)] * 32767).astype("<i2").tobytes()

    async def texts() -> list[str]:
        found = []
        async with proxy.socket(BELOW_HOST, "/asr/vosk") as client:
            await client.send(json.dumps({"config": {"sample_rate": 16_000}}))
            for at in range(0, len(data), 8_000):
                await client.send(data[at : at + 8_000])
                found.append(json.loads(await client.recv()).get("text", ""))
            await client.send(json.dumps({"eof": 1}))
            found.append(json.loads(await client.recv())["text"])
        return found

    heard = asyncio.run(asyncio.wait_for(texts(), HANG))
    assert "my fellow americans" in plain(" ".join(heard))


# With a fake engine, which waits until the test lets it go on.


@pytest.fixture(params=KINDS)
def slow(
    request: pytest.FixtureRequest,
    make_node: Callable[..., FakeNode],
    tmp_path: Path,
    certificate: tuple[Path, Path],
) -> Iterator[tuple[Proxy, FakeEngine, FakeNode]]:
    networks = (ip_network("127.0.0.1"),)
    origins = frozenset({f"https://{ROOT_HOST}"})
    site = replace(SITE, proxies=networks, origins=origins, max_body=1 << 24)
    numbers = iter(range(1000))

    def new_protocol(proxied: bool = False) -> HttpProtocol:
        return HttpProtocol(site, lambda: f"made-{next(numbers)}", proxied)

    engine = FakeEngine()
    port: dict[str, Any] = {"name": "http"}
    port["proxies"] = Proxies(networks, lambda: new_protocol(proxied=True))
    node = make_node(engine, new_protocol=new_protocol, port=port, queue_size=4)
    with contextlib.closing(Proxy(request.param, tmp_path, certificate, node.port)) as proxy:
        try:
            yield proxy, engine, node
        finally:
            engine.release()


def test_event_passes_before_the_next_window(
    slow: tuple[Proxy, FakeEngine, FakeNode],
) -> None:
    proxy, engine, _ = slow
    engine.hold()
    audio = encoded(tone(50 * RATE))
    parts = (("stream", "true"), ("file", audio))
    with proxy.dial(ROOT_HOST) as client:
        client.sendall(post(TRANSCRIPTIONS, *parts, Host=proxy.authority(ROOT_HOST)))
        engine.step()
        data = b""
        while b"transcript.text.delta" not in data:
            more = client.recv(65_536)
            assert more, data
            data += more
        assert b"transcript.text.done" not in data
        engine.release()
        while b"transcript.text.done" not in data:
            data += client.recv(65_536)


def test_two_clients_share_fairly(slow: tuple[Proxy, FakeEngine, FakeNode]) -> None:
    proxy, engine, node = slow
    engine.hold()
    head = {"Host": proxy.authority(ROOT_HOST)}
    data = post(TRANSCRIPTIONS, ("file", encoded(tone(1600))), **head)
    quota = node.server.pipeline.quota
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            greedy = stack.enter_context(proxy.dial(ROOT_HOST, "127.0.0.2"))
            greedy.sendall(data)
        eventually(lambda: quota.admitted + quota.waiting == 6)
        assert quota.admitted == 3
        other = stack.enter_context(proxy.dial(ROOT_HOST, "127.0.0.3"))
        other.sendall(data)
        eventually(lambda: quota.admitted == 4)
        engine.release()
        assert received(other).status == 200


def test_early_rejection_reaches_the_client(slow: tuple[Proxy, FakeEngine, FakeNode]) -> None:
    """The node answers before the end of the body, which the proxy must not turn into an error."""
    proxy, _, _ = slow
    body = form(("response_format", "braille"), ("file", encoded(tone(60 * RATE))))
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    target = f"{TRANSCRIPTIONS}?response_format=braille"
    head = {"Host": proxy.authority(ROOT_HOST), "Content_Type": kind}
    answer = proxy.exchange(ROOT_HOST, request("POST", target, body, **head))
    assert answer.status == 400
    assert answer.error["param"] == "response_format"


# The page.

CHROMIUM = browsers.find()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no browser (Debian: apt install chromium)")
@pytest.mark.slow
def test_page_below_a_path_works_in_a_browser(
    tmp_path: Path, certificate: tuple[Path, Path], node: Node
) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    stereo, rate = soundfile.read(JFK, dtype="float32")
    mono = soxr.resample(stereo if stereo.ndim == 1 else stereo.mean(axis=1), rate, 48_000)
    words = np.concatenate([np.zeros(48_000), mono, np.zeros(96_000)])
    soundfile.write(tmp_path / "microphone.wav", words, 48_000, subtype="PCM_16")
    assert CHROMIUM is not None
    hosts = f"--host-resolver-rules=MAP {BELOW_HOST} 127.0.0.1"
    flags = (hosts, "--ignore-certificate-errors")
    with contextlib.ExitStack() as stack:
        proxy = Proxy("nginx", folder, certificate, port_of(node))
        stack.callback(proxy.close)
        page = stack.enter_context(browsers.Browser(CHROMIUM, tmp_path / "microphone.wav", *flags))
        page.open(f"https://{proxy.authority(BELOW_HOST)}/asr/")
        page.wait_for_text("#state", "ready")
        page.choose_file("#file", JFK)
        page.until(lambda: WORDS in plain(page.text("#segments")), "the words of the file")
        page.click("#live")
        page.wait_for_text("#live", "Stop")
        page.until(lambda: "fellow americans" in plain(page.text("#segments")), "live captions")
        page.click("#live")
        page.wait_for_text("#live", "Live captions")
        assert page.complaints == []
