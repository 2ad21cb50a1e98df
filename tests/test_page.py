"""The page that the HTTP port serves, in Chromium with a fake microphone, on a real node with the
real model."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from browser import Browser, find
from node import HANG, JFK, Node, eventually, stopped_cleanly
from page_view import address, pasted, plain, shown_words, wait_for_end

from app.page import files as pages
from app.protocols.http.routes import ROUTES

CHROMIUM = find()
TOKEN = "correct-horse-battery-staple"
WORDS = "and so my fellow americans"
"""The words in the first 3.2 seconds of the clip."""

ELSEWHERE = "192.0.2.1"
"""A host name that browsers do not treat as local, although here it resolves to this machine."""

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"
)


# Without a browser.


def test_every_file_of_the_page_is_served() -> None:
    served = pages.load()
    files = {path.name for path in pages.FOLDER.iterdir() if path.is_file()}
    assert files - {"__init__.py", "files.py"} == {
        {"/": "index.html", "/docs": "docs.html"}.get(path, path.removeprefix("/"))
        for path in served
    }
    assert served["/"].content_type == "text/html; charset=utf-8"
    assert served["/page.js"].content_type == "text/javascript; charset=utf-8"
    assert served["/page.css"].content_type == "text/css; charset=utf-8"


@pytest.mark.parametrize("path", sorted(pages.load()))
def test_page_loads_only_its_own_existing_files(path: str) -> None:
    served = pages.load()
    text = served[path].body.decode()
    elsewhere = set(re.findall(r"""["'(](?:https?:)?//[^"')]*""", text))
    assert elsewhere <= {'"http://www.w3.org/2000/svg'}, "only the name of a namespace is allowed"
    wanted = re.findall(r"""(?:from|href=|src=)\s*"([^"]+)""", text)
    assert wanted or path not in ("/", "/page.js")
    for name in wanted:
        path_of = "/" + name.removeprefix("./")
        assert name == "data:," or path_of in served or path_of in ROUTES, name


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_has_no_inline_script_or_style(path: str) -> None:
    text = pages.load()[path].body.decode()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)


@pytest.mark.parametrize("path", sorted(pages.load()))
def test_page_has_no_address_from_the_root(path: str) -> None:
    """Below a path, `/status` would be an address of the proxy."""
    text = pages.load()[path].body.decode()
    assert re.findall(r"""(?<![<\w])["'`]/[\w$]""", text) == []
    assert re.findall(r"""url\(\s*["']?/""", text) == []


@pytest.mark.parametrize("path", sorted(pages.load()))
def test_page_makes_no_markup_from_text(path: str) -> None:
    """Names of files, messages and transcripts can hold anything."""
    text = pages.load()[path].body.decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_files_of_the_page_are_short() -> None:
    lines = {path: page.body.count(b"\n") for path, page in pages.load().items()}
    assert max(lines.values()) < 300, lines


# With a browser.


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files: `microphone` has a second of silence and the first words; `words` has only these, in
    stereo at 44.1 kHz; `long` repeats the clip many times; `text` is not audio."""
    folder = tmp_path_factory.mktemp("sounds")
    stereo, rate = soundfile.read(JFK, dtype="float32")
    mono = soxr.resample(stereo.mean(axis=1), rate, 48000)
    silence = np.zeros(48000, np.float32)
    sounds: dict[str, tuple[Any, int]] = {
        "microphone": (np.concatenate([silence, mono[: int(3.2 * 48000)], silence]), 48000),
        "words": (stereo[: int(3.2 * rate)], rate),
        "long": (np.tile(soxr.resample(mono, 48000, 16000), 30), 16000),
    }
    paths = {name: folder / f"{name}.wav" for name in sounds}
    for name, (samples, rate) in sounds.items():
        soundfile.write(paths[name], samples, rate, subtype="PCM_16")
    paths["text"] = folder / "letter.txt"
    paths["text"].write_text("Dear node, this is a letter and no sound.\n" * 20)
    return paths


@pytest.fixture(scope="module")
def browser(sounds: dict[str, Path]) -> Iterator[Browser]:
    assert CHROMIUM is not None
    elsewhere = f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"
    with Browser(CHROMIUM, sounds["microphone"], elsewhere) as browser:
        yield browser


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(Node("--http-port", "0")) as node:
        yield node


@pytest.fixture
def page(node: Node, browser: Browser) -> Iterator[Browser]:
    """The browser with the page open. It must have reported no error at the end."""
    browser.screen(1000, 900)
    browser.open(address(node))
    browser.wait_for_text("#state", "ready")
    yield browser
    assert browser.complaints == []


@needs_chromium
@pytest.mark.slow
def test_recording_from_the_microphone_is_transcribed(page: Browser) -> None:
    """The test uses the mouse and then only the keyboard."""
    # The page records the loudest level, because the words may be over when the test looks.
    page.evaluate(
        """(() => {
            const bar = document.querySelector("#level-bar");
            window.loudest = 0;
            const look = () => { loudest = Math.max(loudest, bar.width.baseVal.value); };
            new MutationObserver(look).observe(bar, {attributes: true});
        })()"""
    )
    page.press("Tab", 9)
    assert page.evaluate("document.activeElement.id") == "record"
    page.press("Enter", 13, "\r")
    page.wait_for_text("#record", "Stop")
    page.until(lambda: page.text("#elapsed") >= "0:02", "the time since the beginning")
    page.wait("loudest > 0")
    page.until(lambda: page.text("#elapsed") >= "0:06", "the time of the words")
    page.press("Enter", 13, "\r")
    wait_for_end(page)
    assert WORDS in shown_words(page)
    assert re.search(r"\d s of audio in \d", page.text("#summary"))
    assert page.evaluate("document.activeElement.id") == "record"


@needs_chromium
@pytest.mark.slow
def test_live_captions_show_the_words_while_they_are_spoken(page: Browser) -> None:
    # Unstable words are shown only until they are stable, so the page records that there were some.
    page.evaluate(
        """(() => {
            window.unstable = "";
            const list = document.querySelector("#segments");
            const look = () => {
                unstable = list.querySelector("i")?.textContent || unstable;
            };
            new MutationObserver(look).observe(list, {childList: true, subtree: true});
        })()"""
    )
    page.click("#live")
    page.wait_for_text("#live", "Stop")
    page.until(lambda: WORDS in shown_words(page), "the words")
    # Nobody has stopped: a pause makes the words final.
    page.wait("document.querySelector('#segments small') !== null")
    assert page.text("#live") == "Stop"
    assert re.fullmatch(r"\d+\.\d s, \d+ % sure", page.text("#segments small"))
    assert page.evaluate("unstable") != ""
    page.click("#live")
    page.wait_for_text("#live", "Live captions")
    wait_for_end(page)
    page.click("#copy-srt")
    page.wait_for_text("#copied", "SRT copied.")
    cue = r"1 ?00:00:0\d,\d{3} --> 00:00:0\d,\d{3} ?and so"
    assert re.match(cue, pasted(page), re.IGNORECASE)


@needs_chromium
@pytest.mark.slow
def test_stopped_captions_wait_for_the_last_words(page: Browser) -> None:
    page.click("#live")
    page.wait_for_text("#live", "Stop")
    page.until(lambda: page.text("#elapsed") >= "0:03", "the middle of the words")
    page.click("#live")
    wait_for_end(page)
    assert shown_words(page).startswith("and so my")
    assert not page.evaluate("[...document.querySelectorAll('#segments i')].length")


@needs_chromium
@pytest.mark.slow
def test_page_without_a_websocket_records_instead(page: Browser) -> None:
    page.evaluate(
        """(() => {
            window.WebSocket = class {
                constructor() { setTimeout(() => this.onclose()); }
                close() {}
            };
        })()"""
    )
    page.click("#live")
    page.wait_for_text("#failure", "Live captions need a WebSocket")
    page.wait_for_text("#record", "Stop")
    assert page.text("#live") == ""
    page.click("#cancel")
    page.wait_for_text("#record", "Record")


@needs_chromium
@pytest.mark.slow
def test_discarded_recording_is_not_sent(page: Browser, node: Node) -> None:
    before = finished(node)
    page.click("#record")
    page.wait_for_text("#record", "Stop")
    page.click("#cancel")
    page.wait_for_text("#record", "Record")
    assert page.text("#result") == ""
    assert finished(node) == before


def finished(node: Node) -> float:
    """The number of finished requests, from the metrics: a line on stdout may be later."""
    with urllib.request.urlopen(f"{address(node)}metrics", timeout=HANG) as answer:
        counts = re.findall(r"(?m)^node_whisper_requests_total{.*} (.*)$", answer.read().decode())
    return sum(map(float, counts))


def last_outcome(node: Node) -> dict[str, Any]:
    return (node.outcomes() or [{}])[-1]


@needs_chromium
@pytest.mark.slow
def test_chosen_file_is_shown_with_times_and_copied(
    page: Browser, node: Node, sounds: dict[str, Path]
) -> None:
    page.choose_file("#file", sounds["words"])
    wait_for_end(page)
    assert page.text("#source-name") == "words.wav"
    assert shown_words(page).startswith(WORDS)
    assert re.fullmatch(r"0:0\d\.\d", page.text("#segments li:first-child button"))
    eventually(lambda: 3.1 < last_outcome(node).get("audio_seconds", 0) < 3.3)

    page.click("#copy-text")
    page.wait_for_text("#copied", "Text copied.")
    assert plain(pasted(page)) == shown_words(page)
    page.click("#copy-srt")
    page.wait_for_text("#copied", "SRT copied.")
    assert re.match(r"1 ?00:00:0\d,\d{3} --> 00:00:0\d,\d{3} ?And so", pasted(page))


@needs_chromium
@pytest.mark.slow
def test_copied_srt_has_short_cues(page: Browser) -> None:
    """The first sentence of the clip lasts 8 s, and is one segment without the fields for cues."""
    page.choose_file("#file", JFK)
    wait_for_end(page)
    page.click("#copy-srt")
    page.wait_for_text("#copied", "SRT copied.")
    times = re.findall(r"00:00:(\d\d),(\d{3}) --> 00:00:(\d\d),(\d{3})", pasted(page))
    assert len(times) >= 3
    for begin, begin_ms, end, end_ms in times:
        assert int(end + end_ms) - int(begin + begin_ms) <= 7000


@needs_chromium
@pytest.mark.slow
def test_dropped_file_is_shown_and_charted(page: Browser, sounds: dict[str, Path]) -> None:
    page.drop_file(sounds["words"])
    wait_for_end(page)
    assert shown_words(page).startswith(WORDS)
    page.wait_for_text("#rows tr:first-child td:first-child", "0:03")
    page.wait("document.querySelector('#rows .worked').width.baseVal.value > 0")
    assert re.search(r"\d \u00d7$", page.text("#rows tr:first-child"))


@needs_chromium
@pytest.mark.slow
def test_segments_appear_one_by_one_until_cancelled(
    page: Browser, node: Node, sounds: dict[str, Path]
) -> None:
    page.choose_file("#file", sounds["long"])
    page.until(lambda: WORDS in shown_words(page), "the first segment")
    assert page.evaluate("document.querySelector('#progress').value") < 1
    page.click("#cancel")
    page.wait_for_text("#step", "Cancelled.")
    wait_for_end(page)
    page.wait_for_text("#queue", "empty")
    page.wait_for_text("#rows", "cancelled")
    eventually(lambda: last_outcome(node).get("error", {}).get("code") == "cancelled")


@needs_chromium
@pytest.mark.slow
def test_invalid_file_shows_an_error_and_the_next_file_works(
    node: Node, page: Browser, sounds: dict[str, Path]
) -> None:
    page.choose_file("#file", sounds["text"])
    page.wait_for_text("#failure", "Neither this browser nor the node can read this file format.")
    assert "The node says:" in page.text("#failure")
    # Chromium reports every response that is not a success. Any other complaint is an error.
    (complaint,) = page.complaints
    assert "400" in complaint
    page.complaints.clear()
    page.choose_file("#file", sounds["words"])
    wait_for_end(page)
    assert shown_words(page).startswith(WORDS)
    assert page.text("#failure") == ""


@needs_chromium
@pytest.mark.slow
def test_page_without_a_secure_context_offers_only_files(
    node: Node, page: Browser, sounds: dict[str, Path]
) -> None:
    page.open(address(node, ELSEWHERE))
    page.wait_for_text("#no-microphone", "only over HTTPS or on the same machine")
    assert page.evaluate("document.querySelector('#record').disabled")
    page.choose_file("#file", sounds["words"])
    wait_for_end(page)
    assert shown_words(page).startswith(WORDS)
    page.click("#copy-text")  # without navigator.clipboard
    page.wait_for_text("#copied", "Text copied.")
    assert plain(pasted(page)) == shown_words(page)


@needs_chromium
@pytest.mark.slow
def test_page_fits_a_phone_and_dark_mode(page: Browser, sounds: dict[str, Path]) -> None:
    page.choose_file("#file", sounds["words"])
    wait_for_end(page)
    page.wait_for_text("#rows", "0:03")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.screen(360, 740, dark=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


@needs_chromium
@pytest.mark.slow
def test_page_asks_for_the_token_and_reports_a_lost_node(
    browser: Browser, sounds: dict[str, Path]
) -> None:
    with Node("--http-port", "0", environment={"NODE_WHISPER_TOKEN": TOKEN}) as node:
        browser.open(address(node))
        # The page asks at once, before anything is sent.
        browser.wait_for_text("#token-form", "This node requires a token")
        browser.choose_file("#file", sounds["words"])
        browser.wait_for_text("#step", "Waiting for the token.")
        browser.wait("document.activeElement.id === 'token'")
        # The first token cannot be sent at all, because a header cannot contain such dashes.
        for wrong in ("wrong\u2013horse\u2013battery\u2013staple", "wrong-horse-battery-staple"):
            browser.evaluate("document.querySelector('#token-text').textContent = ''")
            browser.type(wrong)
            browser.press("Enter", 13, "\r")
            browser.wait_for_text("#token-form", "rejected the token")
            browser.wait("document.activeElement.id === 'token'")
        browser.type(TOKEN)
        browser.press("Enter", 13, "\r")
        wait_for_end(browser)  # from the file chosen before
        assert shown_words(browser).startswith(WORDS)
        assert browser.text("#token-form") == ""

        browser.open(address(node))  # The token is kept while the tab is open.
        browser.wait_for_text("#state", "ready")
        browser.choose_file("#file", sounds["words"])
        wait_for_end(browser)
        assert browser.text("#token-form") == ""

        assert node.stop() == 0
        browser.wait_for_text("#state", "Not reachable")
        browser.choose_file("#file", sounds["words"])
        browser.wait_for_text("#failure", "The node cannot be reached.")


@needs_chromium
@pytest.mark.slow
def test_denied_microphone_shows_an_error(page: Browser) -> None:
    page.allow_microphone(False)
    page.click("#record")
    page.wait_for_text("#failure", "denied this page the microphone")
    assert page.text("#record") == "Record"
    page.allow_microphone(True)
    page.click("#record")
    page.wait_for_text("#record", "Stop")
    assert page.text("#failure") == ""
    page.click("#cancel")
    page.wait_for_text("#record", "Record")
