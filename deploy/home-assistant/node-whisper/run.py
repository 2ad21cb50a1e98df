#!/usr/bin/env python3
"""Starts the node with the options of the add-on, and announces it to Home Assistant.

The options are in /data/options.json; each becomes a variable of the node. The announcement is a
second process, because the node takes the place of this one. Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATA = Path("/data")
WYOMING_PORT = 10300
NODE = (sys.executable, "-m", "app")
PATIENCE_SECONDS = 3600.0
"""Time until the announcement gives up: fetching a large model takes a while."""

VARIABLES = {
    "model": "NODE_WHISPER_MODEL",
    "language": "NODE_WHISPER_LANGUAGE",
    "languages": "NODE_WHISPER_LANGUAGES",
    "prompt": "NODE_WHISPER_PROMPT",
    "task": "NODE_WHISPER_TASK",
    "wyoming_streaming": "NODE_WHISPER_WYOMING_STREAMING",
    "threads": "NODE_WHISPER_THREADS",
    "engines": "NODE_WHISPER_ENGINES",
    "token": "NODE_WHISPER_TOKEN",
    "log_verbose": "NODE_WHISPER_LOG_VERBOSE",
}


def variables(options: Mapping[str, Any], data: Path = DATA) -> dict[str, str]:
    """Return the node's variables for the add-on's options; its files are in `data`."""
    found = {
        "NODE_WHISPER_HOST": "0.0.0.0",
        "NODE_WHISPER_HTTP_PORT": "8080",
        "NODE_WHISPER_WYOMING_PORT": str(WYOMING_PORT),
        "NODE_WHISPER_MODELS_DIR": str(data / "models"),
        "NODE_WHISPER_SPOOL_DIR": str(data),
        "NODE_WHISPER_OUTPUT": "text",
        # Only Home Assistant reaches the Wyoming port, unless the user opens it.
        "NODE_WHISPER_WYOMING_OPEN": "1",
        # The Supervisor and the host pass the page on, and state the addresses of its browsers.
        "NODE_WHISPER_TRUSTED_PROXY": "172.30.32.1,172.30.32.2",
    }
    if options.get("keep_requests"):
        found["NODE_WHISPER_JOURNAL"] = str(data / "journal")
    for name, variable in VARIABLES.items():
        value = options.get(name)
        if isinstance(value, bool):
            found[variable] = "1" if value else "0"
        elif value not in (None, ""):
            found[variable] = str(value)
    return found


def announce(supervisor: str, token: str, host: str, port: int = WYOMING_PORT) -> bool:
    """Wait until the node listens, and announce it to the Supervisor; return whether it worked."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            break
        except OSError:
            time.sleep(1)
    else:
        return False
    message = {"service": "wyoming", "config": {"uri": f"tcp://{host}:{port}"}}
    request = urllib.request.Request(
        f"{supervisor}/discovery",
        json.dumps(message).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except (OSError, urllib.error.URLError) as error:
        print(f"the node could not be announced to Home Assistant: {error}", file=sys.stderr)
        return False
    return True


def main() -> None:
    options = json.loads((DATA / "options.json").read_text(encoding="utf-8"))
    environment = {**os.environ, **variables(options)}
    for folder in ("models", "journal"):
        (DATA / folder).mkdir(exist_ok=True)
    token = environment.pop("SUPERVISOR_TOKEN", "")
    if token and os.fork() == 0:
        os._exit(0 if announce("http://supervisor", token, socket.gethostname()) else 1)
    os.execve(NODE[0], NODE, environment)


if __name__ == "__main__":
    main()
