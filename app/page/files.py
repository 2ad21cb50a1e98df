"""The files of the web page that the HTTP port serves, read once at start.

They are small and constant, so the loop thread sends them from memory and never reads the disk.
They refer to each other by relative addresses, so that a reverse proxy may serve the node below a
path.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

PATHS = {"index.html": "/", "docs.html": "/docs"}
"""The files that are not served by their names."""

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
"""Content types by suffix. Browsers run a module script only with a JavaScript type."""


@dataclass(frozen=True, slots=True)
class Page:
    """One file with its content type."""

    content_type: str
    body: bytes = field(repr=False)


def load() -> dict[str, Page]:
    """Return the files of the page by their URL paths (`/`, `/page.js`, ...).

    Raises `OSError` if the folder or a file cannot be read.
    """
    return {
        PATHS.get(path.name, f"/{path.name}"): Page(CONTENT_TYPES[path.suffix], path.read_bytes())
        for path in sorted(FOLDER.iterdir())
        if path.suffix in CONTENT_TYPES
    }
