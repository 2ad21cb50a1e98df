"""Load: many clients, long files, short before long, and memory independent of the audio."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from node import (
    JFK,
    SHARED,
    Fields,
    Node,
    message,
    needs_shared_audio,
    shared_clips,
    stopped_cleanly,
)

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
RATE = 16000

RESULT = ("text", "segments", "language", "audio_seconds", "truncated")
"""Fields of a reply that must not depend on the load."""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(Node()) as node:
        yield node


@pytest.fixture(scope="module")
def speech() -> Any:
    """The 11 s clip as mono 16-bit samples at 16 kHz."""
    samples, rate = soundfile.read(JFK, dtype="float32")
    mono = soxr.resample(samples.mean(axis=1), rate, RATE)
    return np.round(mono * 32767).astype(np.int16)


@pytest.fixture(scope="module")
def short(speech: Any) -> bytes:
    return flac(speech[: 2 * RATE])


def flac(samples: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC")
    return file.getvalue()


def result(reply: Fields) -> Fields:
    assert reply["status"] == "ok", reply
    return {name: reply[name] for name in RESULT}


@needs_shared_audio
def test_fifty_clients_at_once_get_their_own_answers(node: Node) -> None:
    kinds: dict[str, list[Path]] = {}
    for clip in shared_clips("speech") + shared_clips("nonspeech"):
        if float(clip["seconds"]) < 6:
            kinds.setdefault(Path(clip["file"]).suffix + clip["rate"], []).append(
                SHARED / clip["file"]
            )
    # Two of each kind of file, so that neighbours differ in format and length.
    paths = [path for group in kinds.values() for path in group[:2]]
    assert len(paths) >= 8
    alone = {path: result(node.ask_file(path)) for path in paths}
    assert len({answer["text"] for answer in alone.values()}) >= 8

    start = threading.Barrier(50)

    def ask(number: int) -> tuple[int, Fields]:
        start.wait()
        return number, node.ask_file(paths[number % len(paths)], id=f"client-{number}")

    with ThreadPoolExecutor(50) as pool:
        replies = dict(pool.map(ask, range(50)))
    for number, reply in replies.items():
        assert reply["id"] == f"client-{number}"
        assert result(reply) == alone[paths[number % len(paths)]]


def test_short_clip_does_not_wait_for_a_long_file(node: Node, speech: Any, short: bytes) -> None:
    # More than two minutes long. Its first segment shows that it is in progress.
    long = flac(np.tile(speech, 12))
    with node.connect() as client:
        client.send(long, id="long", reply="segments")
        first = client.receive()
        assert first is not None
        assert first["status"] == "segment"
        assert node.ask(short, id="short")["status"] == "ok"
        while (reply := client.receive()) is not None and reply["status"] == "segment":
            pass
    assert reply is not None
    assert reply["audio_seconds"] == pytest.approx(132, abs=0.1)
    # Every window was transcribed: the words of the clip are repeated.
    assert reply["text"].lower().count("country") >= 18
    node.outcome("long")
    order = [outcome["id"] for outcome in node.outcomes() if outcome["id"] in ("long", "short")]
    assert order == ["short", "long"]


def test_result_does_not_depend_on_earlier_requests(speech: Any, short: bytes) -> None:
    clip = flac(speech)
    generator = np.random.default_rng(7)
    noise = generator.normal(0, 3000, 5 * RATE).astype(np.int16)
    babble = flac(np.concatenate((speech[::-1], noise)))
    with Node() as node:
        first = result(node.ask(clip))
        assert first["text"]
        before: list[dict[str, Any]] = [
            {"body": short},
            {"body": flac(noise)},
            {"body": babble},
            {"body": flac(np.tile(speech, 4))},
            {"body": clip, "word_timestamps": True, "prompt": "Ask Not, Inc. and Mr. Countree"},
            {"body": b"no audio"},
        ]
        for fields in before:
            node.ask(**fields)
            assert result(node.ask(clip)) == first
        assert node.stop() == 0


def test_full_queue_lets_clients_wait(speech: Any, short: bytes) -> None:
    with Node("--queue-size", "1") as node:
        alone = result(node.ask(short))
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: node.ask(short), range(8)))
        assert node.stop() == 0
    assert [result(reply) for reply in replies] == [alone] * 8


def test_waiting_request_of_a_closed_client_is_transcribed(speech: Any) -> None:
    # The replies to the first requests cause a reset before the node has read the rest.
    body = flac(speech[:RATE])
    with Node("--queue-size", "1") as node:
        with node.connect() as client:
            messages = [message(body, id=f"w{n}", connection="keep-alive") for n in range(5)]
            client.socket.sendall(b"".join(messages))
        assert [node.outcome(f"w{n}")["status"] for n in range(5)] == ["ok"] * 5
        assert node.stop() == 0


def test_reset_cancels_only_cancellable_requests(speech: Any, short: bytes) -> None:
    clip = flac(speech)
    with Node() as node:
        # The second one is opened late, because a silent connection is closed after a while.
        with node.connect() as busy:
            busy.send(flac(np.tile(speech, 4)), id="busy", reply="segments")
            assert busy.receive() is not None
            client = node.connect()
            # Long enough that all three still wait behind the busy one when the reset arrives.
            client.send(flac(np.tile(speech, 8)), id="c1", connection="keep-alive")
            client.send(clip, id="c2", connection="keep-alive", reply="accepted")
            client.send(clip, id="c3", connection="keep-alive", reply="none")
            # A further message is rejected at its header; its line shows that the others were read.
            client.send(b"", id="c4", connection="keep-alive", language="xx")
            node.outcome("c4")
            client.reset()
            assert node.outcome("c1")["error"]["code"] == "cancelled"
            assert node.outcome("c2")["status"] == "ok"
            assert node.outcome("c3")["status"] == "ok"
            assert node.outcome("busy")["status"] == "ok"
        assert node.stop() == 0


def test_memory_does_not_grow_with_the_length_of_a_recording(speech: Any) -> None:
    minute = np.tile(speech, 6)[: 60 * RATE]
    # One hour. Three hours gave the same result but take minutes on one processor.
    hours = np.zeros(3600 * RATE, dtype=np.int16)
    # Speech at the beginning, in the middle and at the end.
    for at in (0, len(hours) // 2, len(hours) - len(speech)):
        hours[at : at + len(speech)] = speech
    long = flac(hours)
    del hours
    with Node("--drain-seconds", "150") as node:
        # After three runs the buffers of the allocator and the encoder have their final size.
        for _ in range(3):
            assert node.ask(flac(minute))["status"] == "ok"
        before = node.peak_bytes()
        reply = node.ask(long)
        assert reply["audio_seconds"] == pytest.approx(3600)
        assert reply["text"].lower().count("ask not what your country") == 3
        # The decoded audio is 220 MiB. A body under 4 MiB, like this one, stays in memory.
        assert node.peak_bytes() - before < 24 * MIB
        for _ in range(3):
            assert node.ask(long[: len(long) // 50])["truncated"] is True
        assert node.resident_bytes() - before < 24 * MIB
        assert node.stop() == 0
