"""Two real engines in one process: the same texts as with one, whatever is decoded beside.

The number of threads changes the last digits of a decode at the whole encoder context, and so can
change a word of which the model is not sure; this speech has none.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from live_worker import END, framed
from node import JFK, ROOT, Node, message

from app.decoding.engine import Engine
from app.decoding.transcriber import DecodeOptions, EngineAborted, GivenUp

pytestmark = pytest.mark.slow

RAW = {
    "content_type": "audio/pcm",
    "content_encoding": "s16",
    "sample_rate": 16_000,
    "channels": 1,
    "byteorder": "little",
}


@pytest.fixture(scope="module")
def speech() -> Any:
    samples, rate = soundfile.read(JFK, dtype="float32")
    return soxr.resample(samples.mean(axis=1), rate, 16_000)


def pcm(samples: Any) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def requests(speech: Any) -> list[tuple[bytes, dict[str, Any]]]:
    """Windows of every kind: short and whole contexts, word times, which load the model again, and
    a loud noise, which is decoded more than once."""
    noise = np.random.default_rng(1).normal(0, 0.1, 3 * 16_000)
    return [
        (pcm(np.tile(speech, 3)[: 29 * 16_000]), {}),
        (pcm(speech[: 3 * 16_000]), {}),
        (pcm(speech), {"word_timestamps": True}),
        (pcm(speech), {}),
        (pcm(np.concatenate((speech[: 5 * 16_000], noise))), {}),
        (pcm(speech[4 * 16_000 :]), {"word_timestamps": True}),
        (pcm(np.tile(speech, 2)[2 * 16_000 :]), {}),
    ]


def told(reply: dict[str, Any]) -> tuple[Any, ...]:
    assert reply["status"] == "ok", reply
    segments = [
        (segment["start"], segment["end"], segment["text"], segment.get("words"))
        for segment in reply["segments"]
    ]
    return reply["text"], segments


def stream(node: Node, data: bytes) -> list[str]:
    with node.connect() as client:
        client.socket.sendall(message(b"", live=True, reply="segments", **RAW, content_length=None))
        client.socket.sendall(framed(data, 3200) + END)
        texts = []
        while (reply := client.receive()) is not None and reply["status"] == "segment":
            texts.append(reply["segment"]["text"])
    assert reply is not None
    assert reply["status"] == "ok", reply
    return texts


def answers(node: Node, speech: Any) -> tuple[list[Any], list[str]]:
    """Send all requests and a stream at once."""
    wanted = requests(speech)
    found: list[Any] = [None] * len(wanted)
    said: list[str] = []

    def ask(number: int) -> None:
        body, fields = wanted[number]
        found[number] = told(node.ask(body, **RAW, **fields))

    def speak() -> None:
        silence = np.zeros(16_000, np.float32)
        said.extend(stream(node, pcm(np.concatenate((speech, silence, speech, silence)))))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(wanted))]
    threads.append(threading.Thread(target=speak))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, said


def test_two_engines_give_the_texts_of_one(speech: Any) -> None:
    results = []
    for engines in ("1", "2"):
        with Node("--port", "0", "--engines", engines, "--threads", "2") as node:
            assert node.listening.get("engines", 1) == int(engines)
            results.append(answers(node, speech))
            assert node.stop() == 0
    assert results[1] == results[0]
    assert all(text for text, _ in results[0][0])
    assert results[0][1]


def test_given_up_window_is_decoded_again_to_the_same_text(speech: Any) -> None:
    """It is given up after the encoder, and after the third token."""
    window = np.tile(speech, 2)[: 20 * 16_000].astype(np.float32)
    engine = Engine(ROOT / "models" / "ggml-tiny.en-q8_0.bin", "tiny.en-q8_0", 2, "auto")
    try:
        expected = engine.transcribe(window, DecodeOptions())
        stops = engine._after_pass
        for passes in (1, 4):
            left = itertools.count(passes, -1)

            def give_up(left: itertools.count[int] = left) -> bool:
                if next(left) == 1:
                    engine.give_up()
                return stops()

            engine._after_pass = give_up  # type: ignore[method-assign]
            with pytest.raises(GivenUp):
                engine.transcribe(window, DecodeOptions())
            # Until it is resumed nothing is decoded.
            with pytest.raises(GivenUp):
                engine.transcribe(window, DecodeOptions())
            engine.resume()
            engine._after_pass = stops  # type: ignore[method-assign]
            short = engine.transcribe(window[: 3 * 16_000], DecodeOptions())
            assert short.text
            again = engine.transcribe(window, DecodeOptions())
            assert (again.text, again.segments) == (expected.text, expected.segments)
        engine.abort()
        engine.resume()
        with pytest.raises(EngineAborted):
            engine.transcribe(window, DecodeOptions())
    finally:
        engine.close()
