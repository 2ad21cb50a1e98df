"""The web page as a person sees it in the browser, for the tests of the page."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from browser import Browser
from node import Node


def address(node: Node, host: str = "localhost") -> str:
    number = urlsplit(node.listening["http"]).port
    return f"http://{host}:{number}/"


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def shown_words(page: Browser) -> str:
    """The text of the segments without their times."""
    found = page.evaluate(
        "[...document.querySelectorAll('#segments li span')].map(s => s.innerText)"
    )
    return plain(" ".join(found))


def wait_for_end(page: Browser) -> None:
    """Wait until the page shows a finished transcription."""
    page.wait(
        "document.querySelector('#cancel').hidden && !document.querySelector('#copies').hidden"
    )


def pasted(page: Browser) -> str:
    """The content of the clipboard, pasted into a field, as one line."""
    page.evaluate(
        """(() => {
            document.querySelector("#options").open = true;
            const field = document.querySelector("#prompt");
            field.value = "";
            field.focus();
        })()"""
    )
    page.call("Input.dispatchKeyEvent", type="rawKeyDown", key="v", commands=["paste"])
    page.wait("document.querySelector('#prompt').value !== ''")
    return str(page.evaluate("document.querySelector('#prompt').value"))
