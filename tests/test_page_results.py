"""The results on the page, in Chromium: files to save, words, the language, the command of curl,
and the list of the last requests."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fakes
import pytest
import soundfile
from browser import Browser, find
from node import HANG, JFK, Node, stopped_cleanly
from page_view import address, plain, shown_words, wait_for_end

from app import messages
from app.decoding.transcriber import DecodeOptions
from app.messages import Segment
from app.model_files.catalog import ModelFile
from app.protocols.model_names import ModelNames
from app.protocols.subtitles import srt, vtt
from app.server import Reports
from app.startup.web import web

CHROMIUM = find()
TOKEN = "correct-horse-battery-staple"
WORDS = "and so my fellow americans"
"""The words in the first 3.2 seconds of the clip."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: install chromium)"),
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first words, in a file whose name needs quotes everywhere."""
    samples, rate = soundfile.read(JFK, dtype="float32")
    path = tmp_path_factory.mktemp("clip") / 'it\'s; a "$HOME", Größe.v2.wav'
    soundfile.write(path, samples[: int(3.2 * rate)], rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def browser(clip: Path) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM, clip) as browser:
        yield browser


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(
        Node("--http-port", "0", environment={"NODE_WHISPER_TOKEN": TOKEN})
    ) as node:
        yield node


class Below:
    """A proxy that serves a node below the path `/a/b/`, as nginx does."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://localhost:{self._listener.getsockname()[1]}/a/b/"
        self.outside: list[bytes] = []
        """The request lines of addresses that are not below the path."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                more = client.recv(65_536)
                if not more:
                    return
                head += more
            line, _, rest = head.partition(b"\r\n")
            method, path, version = line.split(b" ")
            if not path.startswith(b"/a/b/"):
                self.outside.append(line)
                return
            if b"upgrade: websocket" not in rest.lower():
                # Otherwise the next request would come on this connection with its whole path.
                rest = re.sub(rb"(?i)connection: [^\r]*", b"Connection: close", rest)
            with socket.create_connection(self._to) as upstream:
                upstream.sendall(b" ".join((method, path[4:], version)) + b"\r\n" + rest)
                back = threading.Thread(target=_copy, args=(upstream, client), daemon=True)
                back.start()
                _copy(client, upstream)
                back.join(HANG)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def below(node: Node) -> Iterator[Below]:
    proxy = Below(int(address(node).rstrip("/").rpartition(":")[2]))
    yield proxy
    proxy.close()


@pytest.fixture
def page(below: Below, browser: Browser) -> Iterator[Browser]:
    """The page below a path, of a node that requires a token, which it has."""
    browser.screen(1000, 900)
    browser.open(below.url)
    browser.evaluate(f"import('./node.js').then((n) => n.setToken({json.dumps(TOKEN)}))")
    browser.open(below.url)
    browser.wait_for_text("#state", "ready")
    yield browser
    assert browser.complaints == []
    assert below.outside == []


def test_transcript_is_saved_in_each_format_without_a_second_request(
    page: Browser, clip: Path, tmp_path: Path
) -> None:
    page.save_files_to(tmp_path)
    page.choose_file("#file", JFK)
    wait_for_end(page)
    count = "import('./node.js').then((n) => n.status()).then((seen) => seen.recent.length)"
    before = page.evaluate(count)
    saved = {}
    for kind in ("txt", "srt", "vtt", "json"):
        path = tmp_path / f"jfk.{kind}"
        page.click(f"#downloads [value={kind}]")
        page.until(lambda path=path: path.exists() and path.stat().st_size > 0, str(path))
        saved[kind] = path.read_text(encoding="utf-8")
    about = json.loads(saved["json"])
    assert (about["file"], about["task"], about["language"]) == ("jfk.flac", "transcribe", "en")
    assert about["model"] == "tiny.en-q8_0"
    assert 10.9 < about["duration"] < 11.1
    assert saved["txt"] == about["text"] + "\n"
    segments = [
        Segment(cue["start"], cue["end"], cue["text"], 1.0, lines=tuple(cue["lines"]))
        for cue in about["segments"]
    ]
    assert len(segments) >= 3
    # The same files as the node makes.
    assert saved["srt"] == srt(segments)
    assert saved["vtt"] == vtt(segments)
    assert page.evaluate(count) == before


def test_subtitles_of_any_text_are_those_of_the_node(page: Browser) -> None:
    segments = [
        Segment(0.0, 1.234, " a <b> & c\n\nd ", 1.0),
        Segment(1.234, 1.3, "  ", 1.0),
        Segment(3599.9996, 360000.0, "x y", 1.0, lines=("x", "", "y -->")),
    ]
    given = [
        {"start": one.start, "end": one.end, "text": one.text}
        | ({"lines": one.lines} if one.lines else {})
        for one in segments
    ]
    for name, expected in (("asSrt", srt(segments)), ("asVtt", vtt(segments))):
        made = page.evaluate(
            f"import('./transcript.js').then((t) => t.{name}({{segments: {json.dumps(given)}}}))"
        )
        assert made == expected


def test_words_have_times_and_play_from_there(page: Browser, clip: Path) -> None:
    page.evaluate("document.querySelector('#options').open = true")
    page.click("label[for=words]")
    page.choose_file("#file", clip)
    wait_for_end(page)
    assert shown_words(page).startswith(WORDS)
    words = "[...document.querySelectorAll('#segments .word')]"
    spoken, titles, stops = page.evaluate(
        f"[{words}.map(w => w.innerText), {words}.map(w => w.title), {words}.map(w => w.tabIndex)]"
    )
    assert [plain(word) for word in spoken[:5]] == WORDS.split()
    starts = []
    for title in titles:
        found = re.fullmatch(r"0:(\d\d\.\d\d) to 0:(\d\d\.\d\d)", title)
        assert found, title
        assert float(found[1]) <= float(found[2])
        starts.append(float(found[1]))
    assert starts == sorted(starts)
    assert stops.count(0) == page.evaluate("document.querySelectorAll('#segments li').length")
    # By keyboard: the arrow goes to the second word, Enter plays from it.
    page.evaluate(f"{words}[0].focus()")
    page.press("ArrowRight", 39)
    assert page.evaluate("document.activeElement.innerText") == spoken[1]
    page.press("Enter", 13, "\r")
    page.wait("!document.querySelector('#player').paused")
    assert page.evaluate("document.querySelector('#player').currentTime") >= starts[1] - 0.01
    page.evaluate("document.querySelector('#player').pause()")
    saved = page.evaluate("document.querySelector('#curl').textContent")
    assert "'timestamp_granularities[]=word'" in saved


def test_curl_command_repeats_the_request(page: Browser, clip: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl here")
    prompt = "Zoë's; <b> $(id) @home"
    page.evaluate(f"document.querySelector('#prompt').value = {json.dumps(prompt)}")
    page.choose_file("#file", clip)
    wait_for_end(page)
    line = page.evaluate("document.querySelector('#curl').textContent")
    assert TOKEN not in line
    assert "$TOKEN" in line
    done = subprocess.run(
        ["sh", "-c", f"{line} --silent --show-error"],
        cwd=clip.parent,
        env={"TOKEN": TOKEN, "PATH": str(Path(curl).parent)},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert plain(json.loads(done.stdout)["text"]).startswith(WORDS), done
    page.evaluate("document.querySelector('#request').open = true")
    page.click("#copy-curl")
    page.wait_for_text("#copied-curl", "Command copied.")


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("talk.mp3", {}, ["file=@talk.mp3"]),
        ("-", {}, ["file=@./-"]),
        ("a b.mp3", {"language": "de"}, ["file=@a b.mp3", "language=de"]),
        ('a"b\\c.mp3', {}, ['file=@"a\\"b\\\\c.mp3"']),
    ],
)
def test_curl_command_is_quoted_for_the_shell(
    page: Browser, name: str, options: dict[str, str], parts: list[str]
) -> None:
    line = page.evaluate(
        "import('./curl.js').then((c) => c.curlLine(new URL('https://a.example/b/?x#y'),"
        f" {json.dumps(name)}, {json.dumps(options)}, false))"
    )
    done = subprocess.run(
        ["sh", "-c", f"set -- {line.removeprefix('curl ')}; printf '%s\\0' \"$@\""],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    words = done.stdout.split("\0")
    assert words[0] == "https://a.example/b/v1/audio/transcriptions"
    assert [word for word in words[1:] if word not in ("-F", "--form-string", "")] == parts


def test_failed_request_has_its_file_code_message_and_the_next_step(
    page: Browser, node: Node, tmp_path: Path
) -> None:
    letter = tmp_path / "letter <1>.txt"
    letter.write_text("Dear node, this is a letter and no sound.\n" * 20)
    page.choose_file("#file", letter)
    page.wait_for_text("#rows .failed", "letter <1>.txt: unsupported_media_type")
    shown = page.text("#rows .failed")
    assert "Convert the file" in shown
    assert "The node says: the audio was not recognised" in shown
    page.complaints.clear()  # Chromium reports the status 415
    # A request of another client: its file is not known here.
    assert node.ask(b"no audio", token=TOKEN)["error"]["code"] == "unsupported_media_type"
    page.wait(
        "document.querySelector('#rows .failed strong').innerText === 'unsupported_media_type'"
    )
    assert "browser" not in page.text("#rows .failed")
    page.screen(360, 740)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_each_code_of_the_node_has_a_next_step(page: Browser) -> None:
    codes = [
        value for name, value in vars(messages).items() if name.isupper() and isinstance(value, str)
    ]
    assert len(codes) > 15
    unknown = page.evaluate(
        "import('./failures.js').then((f) => f.adviceFor('no such code', true))"
    )
    for code, own in itertools.product(codes, ("true", "false")):
        call = f"f.adviceFor('{code}', {own})"
        advice = page.evaluate(f"import('./failures.js').then((f) => {call})")
        assert advice != unknown, code
        assert advice.count(".") >= 2, (
            f"{code}: a sentence for the cause, and one for the next step"
        )


def test_captions_below_a_path_with_a_token_are_saved_too(page: Browser, tmp_path: Path) -> None:
    page.save_files_to(tmp_path)
    page.click("#live")
    page.until(lambda: plain("and so my") in shown_words(page), "the words")
    page.click("#live")
    wait_for_end(page)
    page.click("#downloads [value=srt]")
    page.until(lambda: len(list(tmp_path.glob("captions *.srt"))) == 1, "the file")
    assert page.text("#request") == ""


@pytest.fixture
def multilingual(make_node: Callable[..., fakes.Node]) -> Callable[[str], str]:
    """Start a node with a fake multilingual engine that hears this language; return its address."""

    def start(language: str) -> str:
        def answer(samples: fakes.Samples, options: DecodeOptions) -> Any:
            text = "an English text" if options.translate else "ein deutscher Text"
            return fakes.hypothesis_of(text, len(samples) / fakes.RATE, language)

        parts = web(
            model=fakes.MULTILINGUAL,
            names=ModelNames("fake", frozenset({"fake"})),
            file=ModelFile(Path(__file__), "fake"),
            version="1",
            load=lambda: node.server.load,
            max_body=1 << 24,
            origins=(),
            local=True,
            sockets={},
            metrics_auth=False,
        )
        node = make_node(
            fakes.FakeEngine(answer),
            model=fakes.MULTILINGUAL,
            new_protocol=parts.new_protocol,
            port={"name": "http"},
            reports=Reports(parts.reports, parts.guarded),
            observers=parts.observers,
        )
        return f"http://localhost:{node.port}/"

    return start


def test_translation_and_the_language_found_need_a_multilingual_model(
    multilingual: Callable[[str], str], page: Browser, clip: Path
) -> None:
    assert not page.evaluate("document.querySelector('#translate-field').checkVisibility()")
    browser = page
    browser.open(multilingual("de"))
    browser.wait_for_text("#state", "ready")
    browser.evaluate("document.querySelector('#options').open = true")
    browser.evaluate("document.querySelector('#language').value = 'auto'")
    browser.choose_file("#file", clip)
    wait_for_end(browser)
    assert shown_words(browser) == "ein deutscher text"
    assert browser.text("#summary").startswith("Language: German. ")
    assert browser.evaluate("document.querySelector('#language').checkVisibility()")
    browser.click("label[for=translate]")
    browser.choose_file("#file", clip)
    wait_for_end(browser)
    assert shown_words(browser) == "an english text"
    assert browser.evaluate("document.querySelector('#segments span').lang") == "en"
    assert "/v1/audio/translations" in browser.evaluate(
        "document.querySelector('#curl').textContent"
    )


def test_new_controls_have_names_and_can_be_reached(page: Browser, clip: Path) -> None:
    """Each control has a name for screen readers, and fits a narrow, dark screen."""
    page.evaluate("document.querySelector('#options').open = true")
    page.choose_file("#file", clip)
    wait_for_end(page)
    page.evaluate("document.querySelector('#request').open = true")
    page.screen(320, 700, dark=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = {
        (one["role"]["value"], one.get("name", {}).get("value", ""))
        for one in nodes
        if not one["ignored"]
    }
    for role, name in (
        ("checkbox", "Times of words"),
        ("button", "Save as text"),
        ("button", "Save as SRT"),
        ("button", "Save as VTT"),
        ("button", "Save as JSON"),
        ("group", "Save as"),
        ("button", "Copy command"),
    ):
        assert (role, name) in named, (role, name)
    assert not [name for role, name in named if role in ("button", "checkbox") and not name]
    page.call("Accessibility.disable")
