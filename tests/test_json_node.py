"""Bodies of JSON on a real node: many large ones at the same time stay within the limits."""

from __future__ import annotations

import re
import socket
import threading
from urllib.parse import urlsplit

from forms import TRANSCRIPTIONS, request
from node import HANG, Node, eventually, stopped_cleanly

MIB = 1 << 20
BODY_BYTES = 24 * MIB
CAPACITY = 3 * 32 * MIB
"""One client may use three quarters: two of the bodies."""
CLIENTS = 6


def test_many_large_bodies_stay_within_the_limits() -> None:
    options = ("--max-message-bytes", str(32 * MIB), "--max-buffered-bytes", str(CAPACITY))
    with stopped_cleanly(Node("--http-port", "0", *options)) as node:
        port = urlsplit(node.listening["http"]).port
        assert port is not None
        body = b'{"x": "' + b" " * 1000 + b'", "file": "' + b"AAAA" * (BODY_BYTES // 4) + b'"}'
        kind = {"Content_Type": "application/json", "Connection": "close"}
        data = request("POST", TRANSCRIPTIONS, body, **kind)
        before = node.resident_bytes()
        statuses: list[int] = []

        def send() -> None:
            with socket.create_connection(("127.0.0.1", port), HANG) as client:
                half = len(data) // 2
                client.sendall(data[:half])
                begun.wait(HANG)
                client.sendall(data[half:])
                received = b"".join(iter(lambda: client.recv(65_536), b""))
                statuses.append(int(received.split()[1]))

        begun = threading.Event()
        threads = [threading.Thread(target=send) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        # Two bodies are taken, and stop in the middle; the others wait unread.
        eventually(lambda: buffered(port) >= 2 * BODY_BYTES)
        most = buffered(port)
        begun.set()
        while any(thread.is_alive() for thread in threads):
            most = max(most, buffered(port))
            threads[0].join(0.02)
        # Nothing is recognised in zeros.
        assert statuses == [400] * CLIENTS
        assert 0 < most <= CAPACITY
        assert node.peak_bytes() - before < 48 * MIB
        assert buffered(port) == 0


def buffered(port: int) -> int:
    """The bytes that the node holds or has reserved, by its metrics."""
    with socket.create_connection(("127.0.0.1", port), HANG) as client:
        client.sendall(request("GET", "/metrics", Connection="close"))
        data = b"".join(iter(lambda: client.recv(65_536), b""))
    found = re.search(rb"^node_whisper_buffered_bytes (\S+)$", data, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))
