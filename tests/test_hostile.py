"""A thousand bad connections of four dozen kinds beside ten honest clients, on the real node.

Every honest request must get the right text, and every bad connection must end as docs/protocol.md
says. Afterwards the node must hold no more descriptors than before, and hardly more memory. The
kinds are in scripts/dev/reliability/hostile.py and hostile_sockets.py; scripts/dev/soak runs them
for any length of time.
"""

from __future__ import annotations

import io
import random
import threading
from collections import Counter

import numpy as np
import psutil
import pytest
import soundfile
import soxr
from node import JFK, Node, eventually
from reliability.hostile import KINDS, prepare
from reliability.hostile_sockets import SOCKET_KINDS, transcribe

CONNECTIONS = 1000
HONEST, HONEST_LIVE, EACH = 10, 3, 3
ALLOWED_GROWTH = 80 * 2**20
"""Bytes that an allocator may keep after a thousand simultaneous connections, 24 decoded files and
messages of 1 MiB on dozens of WebSockets. A connection whose body leaks would add as much."""

pytestmark = pytest.mark.slow


def test_thousand_hostile_connections_do_not_affect_honest_clients() -> None:
    samples, rate = soundfile.read(JFK, frames=int(2.2 * 16_000) * 44_100 // 16_000, dtype="int16")
    with io.BytesIO() as file:
        soundfile.write(file, samples, rate, format="FLAC")
        clip = file.getvalue()
    prepare()
    # The node keeps as many detectors as --max-live, each with up to 6 MB.
    limits = ("--queue-size", "256", "--max-connections", str(CONNECTIONS + 100), "--max-live", "4")
    wave = soxr.resample(samples.mean(axis=1).astype(np.float32), rate, 24_000)
    live = np.concatenate([wave, np.zeros(12_000)]).astype("<i2").tobytes()
    with Node("-m", "tiny.en", "--http-port", "0", *limits) as node:
        http = ("127.0.0.1", int(str(node.listening["http"]).rstrip("/").rpartition(":")[2]))
        native = ("127.0.0.1", node.port)
        kinds = [(kind, native) for kind in KINDS] + [(kind, http) for kind in SOCKET_KINDS]
        expected = node.ask(clip)["text"]
        assert "my fellow american" in expected.lower()
        process = psutil.Process(node.pid)
        descriptors, resident = process.num_fds(), node.resident_bytes()

        ends: Counter[str] = Counter()
        answers: list[str] = []
        spoken: list[str] = []

        def bad(number: int) -> None:
            kind, address = kinds[number % len(kinds)]
            ended = kind.play(address, random.Random(number))
            ends["as documented" if ended in kind.allowed else f"{kind.name}: {ended}"] += 1

        def good() -> None:
            answers.extend(node.ask(clip)["text"] for _ in range(EACH))

        def good_live() -> None:
            spoken.extend(transcribe(http, live) for _ in range(EACH))

        threads = [
            threading.Thread(target=bad, args=(number,), daemon=True)
            for number in range(CONNECTIONS)
        ]
        threads += [threading.Thread(target=good, daemon=True) for _ in range(HONEST)]
        threads += [threading.Thread(target=good_live, daemon=True) for _ in range(HONEST_LIVE)]
        random.Random(0).shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert ends == {"as documented": CONNECTIONS}
        assert answers == [expected] * HONEST * EACH
        assert len(spoken) == HONEST_LIVE * EACH
        assert all("my fellow american" in text.lower() for text in spoken)
        eventually(lambda: process.num_fds() <= descriptors)
        assert node.resident_bytes() < resident + ALLOWED_GROWTH
        assert node.stop() == 0
