"""Serves models of this machine to the build, like a mirror of Hugging Face.

The build thus runs the Dockerfile's own download without Hugging Face. A missing file gets status
404, and the build continues with the next source.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_PORT = 28788
"""A fixed port: the address is an argument of the build, and another one would invalidate a layer.
It is below the ephemeral ports of Linux (32768 and up)."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the files in `folder` over HTTP on this machine; yield the address for HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Only paths of the catalogue: .../resolve/main/ggml-tiny.en-q8_0.bin
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
            """Write no log; the build logs its downloads."""

    with ThreadingHTTPServer(("127.0.0.1", _PORT), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{_PORT}"
        finally:
            server.shutdown()
            thread.join()
