"""A thousand bad connections of thirty kinds beside ten honest clients, on the real node.

Every honest request must get the right text, and every bad connection must end as docs/protocol.md
says. Afterwards the node must hold no more descriptors than before, and hardly more memory. The
kinds are in scripts/dev/reliability/hostile.py; scripts/dev/soak runs them for any length of time.
"""

from __future__ import annotations

import io
import random
import threading
from collections import Counter

import psutil
import pytest
import soundfile
from node import JFK, Node, eventually
from reliability.hostile import KINDS, prepare

CONNECTIONS = 1000
HONEST, EACH = 10, 3
ALLOWED_GROWTH = 48 * 2**20
"""Bytes that an allocator may keep after a thousand simultaneous connections and 24 decoded files.
A single connection whose body leaks would add as much."""

pytestmark = pytest.mark.slow


def test_thousand_hostile_connections_do_not_affect_honest_clients() -> None:
    samples, rate = soundfile.read(JFK, frames=int(2.2 * 16_000) * 44_100 // 16_000, dtype="int16")
    with io.BytesIO() as file:
        soundfile.write(file, samples, rate, format="FLAC")
        clip = file.getvalue()
    prepare()
    # The node keeps as many detectors as --max-live, each with up to 6 MB.
    limits = ("--queue-size", "256", "--max-connections", str(CONNECTIONS + 100), "--max-live", "4")
    with Node("-m", "tiny.en", *limits) as node:
        expected = node.ask(clip)["text"]
        assert "my fellow american" in expected.lower()
        process = psutil.Process(node.pid)
        descriptors, resident = process.num_fds(), node.resident_bytes()

        ends: Counter[str] = Counter()
        answers: list[str] = []

        def bad(number: int) -> None:
            kind = KINDS[number % len(KINDS)]
            ended = kind.play(("127.0.0.1", node.port), random.Random(number))
            ends["as documented" if ended in kind.allowed else f"{kind.name}: {ended}"] += 1

        def good() -> None:
            answers.extend(node.ask(clip)["text"] for _ in range(EACH))

        threads = [
            threading.Thread(target=bad, args=(number,), daemon=True)
            for number in range(CONNECTIONS)
        ]
        threads += [threading.Thread(target=good, daemon=True) for _ in range(HONEST)]
        random.Random(0).shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert ends == {"as documented": CONNECTIONS}
        assert answers == [expected] * HONEST * EACH
        eventually(lambda: process.num_fds() <= descriptors)
        assert node.resident_bytes() < resident + ALLOWED_GROWTH
        assert node.stop() == 0
