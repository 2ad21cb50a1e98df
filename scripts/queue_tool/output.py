"""Results on stdout, failures and the progress of uploads on stderr."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import client

from queue_tool.broker import QueueError


class Output:
    """Prints one result after another. `failed` is true once a file has failed."""

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self.progress = client.Progress()
        self.failed = False

    def show(self, name: str, request_id: str, found: Mapping[str, Any] | QueueError) -> None:
        """Print a result (status ok or error), an acceptance, or a failure of the submission."""
        if isinstance(found, QueueError):
            error = {"code": found.code, "message": found.message}
            found = {"id": request_id, "status": "error", "error": error}
        self.progress.erase()
        ok = found["status"] in ("ok", "accepted")
        if ok or self._options.json:
            sys.stdout.write(client.render(name, dict(found), self._options))
            sys.stdout.flush()
        if not ok:
            self.failed = True
            label = "stdin" if name == "-" else name
            print(f"{label}: {client.explain(found)}", file=sys.stderr)
        elif found.get("truncated"):
            print(
                f"{name}: the file is truncated; the text covers the readable part",
                file=sys.stderr,
            )


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))
