"""Live audio through the whole node, with a fake engine and detector: loop and worker together.

The engine's text is the number of its samples, so that a text shows which audio was decoded. The
last tests have a process of its own, which is killed or told to end.
"""

from __future__ import annotations

import json
import random
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from fakes import RATE, RAW, Client, FakeEngine, Node, encoded, eventually, frame, message
from live import audio
from live_worker import END, framed, live_header
from node import JFK
from node import Node as Process

MakeNode = Callable[..., Node]

THREE = audio(0.5, 1.0, 0.8, 0.7, 1.0, 1.2, 0.8)
"""Three utterances, and silence after the last one."""


@pytest.fixture
def hearing(make_node: MakeNode) -> Callable[..., Node]:
    """Start a node whose detector takes loud samples for speech."""
    return lambda *arguments, **options: make_node(*arguments, vad_threshold=0.5, **options)


def quiet(node: Node) -> bool:
    """No part of the node holds anything for live audio."""
    pipeline = node.server.pipeline
    return not (
        pipeline.unfinished
        or pipeline.quota.claimed_bytes
        or pipeline.uploads.receiving
        or pipeline.dispatch.jobs
        or pipeline.dispatch._heard
        or node.worker.live_counts.jobs
        or node.worker.utterances
    )


def told(replies: list[dict[str, Any]]) -> list[tuple[float, str]]:
    """Start and text of all segments; the last reply must be `ok` and agree."""
    said = [reply["segment"] for reply in replies if reply["status"] == "segment"]
    assert replies[-1]["status"] == "ok", replies[-1]
    assert replies[-1]["segment_count"] == len(said)
    return [(segment["start"], segment["text"]) for segment in said]


def stream(node: Node, data: bytes, size: int = 640, **fields: Any) -> list[dict[str, Any]]:
    with node.connect() as client:
        client.send(live_header(**fields) + framed(data, size) + END)
        return client.replies()


def test_any_split_of_a_stream_gives_the_same_segments(hearing: MakeNode) -> None:
    node = hearing()
    whole = told(stream(node, THREE, 65_534))
    assert len(whole) == 3
    shuffled = random.Random(1)
    for _ in range(5):
        with node.connect() as client:
            client.send(live_header())
            left = THREE
            while left:
                piece = left[: shuffled.choice((1, 3, 77, 640, 5_000, 60_000))]
                left = left[len(piece) :]
                sent = struct.pack("!H", len(piece)) + piece
                cut = shuffled.randrange(len(sent))
                client.send(sent[:cut])
                client.send(sent[cut:])
            client.send(END)
            assert told(client.replies()) == whole
    eventually(lambda: quiet(node))


def test_streams_of_other_formats_give_the_same_number_of_segments(hearing: MakeNode) -> None:
    node = hearing()
    samples = np.frombuffer(THREE, "<i2").astype(np.float32) / 32768
    stereo = np.repeat(soxr.resample(samples, RATE, 48_000)[:, None], 2, axis=1)
    raw = {"content-encoding": "f32", "sample-rate": 48_000, "channels": 2, "byteorder": "big"}
    replies = stream(node, stereo.astype(">f4").tobytes(), 1_001, **raw)
    assert len(told(replies)) == 3
    assert replies[-1]["audio_seconds"] == pytest.approx(6.0, abs=0.02)


def test_transcript_stream_has_the_whole_text(hearing: MakeNode) -> None:
    node = hearing()
    texts = [text for _, text in told(stream(node, THREE))]
    (reply,) = stream(node, THREE, reply="transcript", id="t")
    assert reply["text"] == " ".join(texts)
    assert [segment["text"] for segment in reply["segments"]] == texts
    assert reply["truncated"] is False
    assert node.lines.wait_for("t")["text"] == reply["text"]


def test_silent_stream_costs_no_engine_call(hearing: MakeNode) -> None:
    node = hearing()
    replies = stream(node, audio(20.0))
    assert [reply["status"] for reply in replies] == ["ok"]
    assert (replies[0]["utterances"], replies[0]["segment_count"]) == (0, 0)
    assert node.engine.calls == []


def test_segment_of_the_first_utterance_comes_before_the_next_is_sent(hearing: MakeNode) -> None:
    node = hearing()
    with node.connect() as client:
        client.send(live_header(id="s") + framed(audio(0.5, 1.0, 0.8)))
        first = client.reply()
        assert first is not None
        assert first["status"] == "segment"
        assert node.lines.wait_for("s")["segment"] == first["segment"]
        client.send(framed(audio(0.2, 1.0)) + END)
        assert len(told([first, *client.replies()])) == 2


def test_raw_file_at_full_speed_is_cut_as_any_file(hearing: MakeNode) -> None:
    """Ten minutes; with early audio its windows would be utterances."""
    node = hearing(max_body=40 * 1024 * 1024)
    lengths = random.Random(2)
    pattern = [lengths.choice((0.2, 0.5, 1.0, 3.0, 9.0)) for _ in range(300)]
    data = audio(*pattern)[: 600 * RATE * 2]
    (raw,) = node.ask(data)
    samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    file = encoded(samples, subtype="PCM_16")
    (same,) = node.ask(file, content_type="binary/wav", content_encoding="wav")
    assert len(raw["segments"]) > 20
    assert raw["segments"] == same["segments"]
    assert node.worker.live_counts.finals == 0


# Commands.


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands up to 3 s are heard early at any speed."""
    monkeypatch.setattr("app.requests.early._FIRST_SECONDS", 0.0)


COMMAND = audio(0.5, 1.0, 0.8)


def test_command_that_has_ended_is_answered_without_a_further_decode(
    hearing: MakeNode, at_once: None
) -> None:
    node = hearing()
    with node.connect() as client:
        whole = message(COMMAND, id="c")
        client.send(whole[:-2])
        node.engine.wait_for_calls(1)
        eventually(lambda: node.worker.seats[0].turn is None)
        client.send(whole[-2:])
        (reply,) = client.replies()
    assert len(node.engine.calls) == 1
    assert reply["text"] == str(len(node.engine.calls[0][0]))
    assert reply["audio_seconds"] == pytest.approx(2.3)
    assert node.worker.live_counts.speculations_used == 1
    line = node.lines.wait_for("c")
    assert (line["status"], line["text"]) == ("ok", reply["text"])
    eventually(lambda: quiet(node))


@pytest.mark.parametrize("reply", ["segments", "accepted", "none"])
def test_early_command_keeps_its_form_of_reply(
    hearing: MakeNode, at_once: None, reply: str, tmp_path: Path
) -> None:
    node = hearing(journal=tmp_path / "journal")
    with node.connect() as client:
        whole = message(COMMAND, id="c", reply=reply)
        client.send(whole[:-2])
        node.engine.wait_for_calls(1)
        client.send(whole[-2:])
        statuses = [reply["status"] for reply in client.replies()]
    wanted = {"segments": ["segment", "ok"], "accepted": ["accepted"], "none": []}
    assert statuses == wanted[reply]
    line = node.lines.wait_for("c")
    assert line["status"] == "ok"
    assert len(node.engine.calls) == 1
    assert len(node.lines.of("c")) == 1
    eventually(lambda: node.server.load.journal_entries == 0)


def test_client_that_vanishes_during_a_speculation_leaves_nothing(
    hearing: MakeNode, at_once: None
) -> None:
    engine = FakeEngine()
    engine.hold()
    node = hearing(engine)
    client = node.connect()
    client.send(message(COMMAND, id="c")[:-2])
    engine.wait_for_calls(1)
    client.reset()
    assert node.lines.wait_for("c")["error"]["code"] == "incomplete"
    engine.release()
    eventually(lambda: quiet(node))
    assert node.ask(COMMAND)[0]["status"] == "ok"


# Clients that vanish, and the end of the node, with the engine in an utterance.


@pytest.mark.parametrize("ended", [False, True], ids=["within", "after"])
@pytest.mark.parametrize("leave", [Client.close, Client.reset], ids=["closes", "resets"])
def test_client_that_vanishes_during_a_decode_leaves_nothing(
    hearing: MakeNode, leave: Callable[[Client], None], ended: bool
) -> None:
    engine = FakeEngine()
    engine.hold()
    node = hearing(engine)
    client = node.connect()
    client.send(live_header(id="s") + framed(audio(0.5, 1.0, 1.0)) + (END if ended else b""))
    engine.wait_for_calls(1)
    leave(client)
    if not ended:
        assert node.lines.wait_for("s")["error"]["code"] == "incomplete"
    engine.release()
    if ended:
        # A client that only closes can still be asking for the outcome on stdout.
        code = "cancelled" if leave is Client.reset else None
        line = node.lines.wait_for("s")
        assert line.get("error", {}).get("code") == code or line["status"] in ("segment", "ok")
    eventually(lambda: quiet(node))
    assert len(told(stream(node, THREE))) == 3


def test_drain_finishes_the_open_utterance(hearing: MakeNode) -> None:
    node = hearing()
    client = node.connect()
    client.send(live_header(id="s") + framed(audio(0.5, 1.0, 0.8, 1.0)))
    first = client.reply()
    assert first is not None
    eventually(lambda: node.worker.utterances == 1)
    node.drain()
    replies = [first, *client.replies()]
    assert len(told(replies)) == 2
    assert replies[-1]["truncated"] is True
    node.wait_until_stopped()
    assert [line["status"] for line in node.lines.of("s")] == ["segment", "segment", "ok"]


def test_drain_of_a_silent_stream_ends_it_at_once(hearing: MakeNode) -> None:
    node = hearing()
    client = node.connect()
    client.send(live_header() + framed(audio(1.0)))
    eventually(lambda: node.worker.live_counts.jobs == 1)
    node.drain()
    (reply,) = client.replies()
    assert (reply["status"], reply["truncated"]) == ("ok", True)
    node.wait_until_stopped()


def test_stream_that_finds_no_place_waits_and_loses_nothing(hearing: MakeNode) -> None:
    node = hearing(max_live=1)
    first, second = node.connect(), node.connect()
    second.send(live_header() + framed(audio(0.3)))
    first.send(live_header() + framed(audio(0.5, 1.0)))
    eventually(lambda: node.worker.utterances == 1)
    second.send(framed(audio(0.0, 1.0, 0.8)) + END)
    time.sleep(0.05)
    first.send(framed(audio(1.0)) + END)
    assert len(told(first.replies())) == 1
    assert len(told(second.replies())) == 1
    eventually(lambda: quiet(node))


def test_thousand_streams_opened_and_dropped_leave_nothing(hearing: MakeNode) -> None:
    node = hearing(max_connections=100)
    data = live_header() + framed(audio(0.3, 0.3))
    for index in range(1_000):
        client = node.connect()
        client.send(data[: index * 37 % len(data)])
        (client.reset if index % 2 else client.close)()
        eventually(lambda: len(node.connections) < 90)
    eventually(lambda: not node.connections)
    eventually(lambda: quiet(node))
    assert len(told(stream(node, THREE))) == 3


def test_streams_and_files_of_several_clients_are_all_answered(hearing: MakeNode) -> None:
    node = hearing()
    clients = [node.connect() for _ in range(12)]
    for index, client in enumerate(clients):
        if index % 3 == 2:
            client.request(THREE, id=f"f{index}")
        else:
            client.send(live_header(id=f"s{index}") + framed(THREE, 999) + END)
    for index, client in enumerate(clients):
        replies = client.replies()
        assert replies[-1]["status"] == "ok"
        assert index % 3 == 2 or len(told(replies)) == 3
    eventually(lambda: quiet(node))


# Processes.


FAKE_NODE = Path(__file__).parent / "helpers" / "fake_node.py"


@pytest.fixture(scope="module")
def speech() -> bytes:
    """A real clip as 16-bit samples at 16 kHz: four utterances."""
    samples, rate = soundfile.read(JFK, dtype="float32")
    mono = soxr.resample(samples.mean(axis=1), rate, RATE)
    return bytes((mono * 32767).astype("<i2").tobytes())


def process(tmp_path: Path, *arguments: str) -> Process:
    program = [sys.executable, str(FAKE_NODE), "--port", "0", "--offline", "--output", "json"]
    more = ["--log-format", "json", "--journal", str(tmp_path / "journal")]
    return Process(*arguments, program=[*program, *more])


@pytest.fixture
def opened(tmp_path: Path, speech: bytes) -> Iterator[tuple[Process, Any]]:
    """A process, and a client whose stream has sent seven seconds and received two segments."""
    with process(tmp_path) as node, node.connect() as client:
        client.socket.sendall(
            frame({**RAW, "live": True, "reply": "segments", "id": "s"})
            + framed(speech[: 7 * 2 * RATE])
        )
        for _ in range(2):
            reply = client.receive()
            assert reply is not None
            assert reply["status"] == "segment"
        yield node, client


def test_kill_in_mid_stream_keeps_the_lines_and_leaves_no_entry(
    opened: tuple[Process, Any], tmp_path: Path
) -> None:
    node, _ = opened
    eventually(lambda: len(node.outcomes()) == 2)
    node.signal(signal.SIGKILL)
    node.wait()
    assert [line["status"] for line in node.outcomes() if line["id"] == "s"] == ["segment"] * 2
    for folder in ("new", "tmp"):
        assert list((tmp_path / "journal" / folder).glob("*")) == []
    with process(tmp_path) as again:
        assert again.ask(b"not audio")["status"] == "error"
        assert all(line["id"] != "s" for line in again.outcomes())


def test_sigterm_in_mid_stream_answers_the_open_utterance(opened: tuple[Process, Any]) -> None:
    node, client = opened
    assert node.stop() == 0
    replies = []
    while (reply := client.receive()) is not None:
        replies.append(reply)
    assert [reply["status"] for reply in replies] == ["segment", "ok"]
    assert replies[-1]["truncated"] is True
    lines = [json.dumps(line["status"]) for line in node.outcomes() if line["id"] == "s"]
    assert lines == ['"segment"'] * 3 + ['"ok"']
