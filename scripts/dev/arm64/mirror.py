"""Models that are on this machine, served to the build as a mirror of Hugging Face would.

So that the Dockerfile's own way of fetching is what runs, and runs without Hugging Face. A missing
file is answered with 404, and the build continues with the next source.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_PORT = 28788
"""Always the same one: the address is an argument of the build, and another is another layer. Below
those that Linux hands out to connections (32768 and up)."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The files in `folder`, by HTTP on this machine; the address is for HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Only what the catalogue names: .../resolve/main/ggml-tiny.en-q8_0.bin
            path = folder / Path(self.path).name
            if not (path.match("ggml-*.bin") and path.is_file()):
                self.send_error(404)
                return
            with path.open("rb") as file:
                self.send_response(200)
                self.send_header("Content-Length", str(path.stat().st_size))
                self.end_headers()
                shutil.copyfileobj(file, self.wfile)

        def log_message(self, *_: object) -> None:
            """The build's own log says what it fetches."""

    with ThreadingHTTPServer(("127.0.0.1", _PORT), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{_PORT}"
        finally:
            server.shutdown()
            thread.join()
