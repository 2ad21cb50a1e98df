"""`/docs`, the page that shows the routes, in Chromium on a node with a fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find
from fakes import Node
from http_node import TOKEN, http_node

from app.protocols.http.openapi.document import Port, document

CHROMIUM = find()

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    silence = Path(__file__).parent / "audio" / "jfk.flac"
    with Browser(CHROMIUM, silence) as browser:
        yield browser


def opened(browser: Browser, node: Node, path: str = "docs") -> None:
    browser.screen(900, 900)
    browser.open(f"http://127.0.0.1:{node.port}/{path}")


def wait_for_routes(browser: Browser) -> None:
    browser.wait("document.querySelector('#routes').getAttribute('aria-busy') === 'false'")


def shown(browser: Browser) -> list[str]:
    found = browser.evaluate(
        "[...document.querySelectorAll('#routes summary code')].map(s => s.innerText)"
    )
    assert isinstance(found, list)
    return found


def test_page_shows_every_route(make_node: Any, browser: Browser) -> None:
    node = http_node(make_node, token=False)
    opened(browser, node)
    wait_for_routes(browser)
    paths = document(Port("1", ["/", "/docs", "/x.js"], [], False, frozenset()))["paths"]
    assert set(shown(browser)) >= set(paths)
    text = str(browser.evaluate("document.querySelector('#routes').textContent"))
    for part in ("timestamp_granularities", "curl http://127.0.0.1", "0.5 to 3600", "415"):
        assert part in text, part
    assert "TOKEN" not in text
    # Nothing of the document is taken for markup.
    assert browser.evaluate("document.querySelectorAll('#routes script, #routes img').length") == 0
    assert browser.complaints == []


def test_route_in_the_fragment_is_open(make_node: Any, browser: Browser) -> None:
    opened(browser, http_node(make_node, token=False), "docs#get_healthz")
    wait_for_routes(browser)
    opened_ids = "[...document.querySelectorAll('#routes details[open]')].map(one => one.id)"
    assert browser.evaluate(opened_ids) == ["get_healthz"]


def test_page_asks_for_the_token(make_node: Any, browser: Browser) -> None:
    opened(browser, http_node(make_node))
    browser.wait("!document.querySelector('#token-form').hidden")
    assert shown(browser) == []
    browser.evaluate(
        f"""(() => {{
            document.querySelector("#token").value = "{TOKEN}";
            document.querySelector("#token-form").requestSubmit();
        }})()"""
    )
    wait_for_routes(browser)
    assert "/status" in shown(browser)
    assert "$TOKEN" in str(browser.evaluate("document.querySelector('pre').textContent"))
    locks = "document.querySelectorAll('#routes .lock').length"
    assert browser.evaluate(locks) > 5


def test_page_is_moved_to_its_address_without_a_slash(make_node: Any, browser: Browser) -> None:
    opened(browser, http_node(make_node, token=False), "docs/")
    wait_for_routes(browser)
    assert str(browser.evaluate("location.pathname")) == "/docs"
