"""Commands that the worker hears while they arrive: at the pace of speech, and never a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes import RATE, RAW, Client, Clock, Node, eventually, frame, pcm
from live_worker import LiveWorker

from app.messages import Origin, RawFormat, Request
from app.requests.early import EarlyAudio, early_audio
from app.requests.in_flight import InFlight

MakeNode = Callable[..., Node]

TENTH = pcm(RATE // 10)
SECOND = pcm(RATE)
RAW_FORMAT = RawFormat("s16", RATE, 1, "little")


class Recorder:
    """Records what a dispatch would receive."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def listen(self, in_flight: InFlight) -> None:
        self.calls.append("listen")

    def feed(self, number: int, data: bytes) -> None:
        self.calls.append(data)

    def stop_listening(self, number: int) -> None:
        self.calls.append("stop")


def in_flight(**fields: Any) -> InFlight:
    request = Request(**{"id": "r", "content_length": None, "raw": RAW_FORMAT, **fields})
    return InFlight(1, request, Origin("a:1", 0.0), None)  # type: ignore[arg-type]


@pytest.fixture
def early_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    class Frozen(Clock):
        def monotonic(self) -> float:
            return self._ahead

    clock = Frozen()
    monkeypatch.setattr("app.requests.early.time", clock)
    return clock


def speak(early: EarlyAudio, clock: Clock, seconds: float, pace: float = 1.0) -> None:
    """Pass on audio in tenths of a second, at `pace` times its own speed."""
    for _ in range(round(seconds * 10)):
        clock.pass_by(0.1 / pace)
        early.receive(TENTH)


def test_speech_is_passed_on_after_a_moment(early_clock: Clock) -> None:
    recorder = Recorder()
    early = EarlyAudio(in_flight(), recorder)  # type: ignore[arg-type]
    speak(early, early_clock, 0.2)
    assert recorder.calls == []
    speak(early, early_clock, 0.3)
    assert recorder.calls[0] == "listen"
    assert b"".join(recorder.calls[1:]) == 5 * TENTH
    assert len(recorder.calls) == 4


def test_speech_after_a_recorded_beginning_is_passed_on(early_clock: Clock) -> None:
    recorder = Recorder()
    early = EarlyAudio(in_flight(), recorder)  # type: ignore[arg-type]
    early.receive(2 * SECOND)
    speak(early, early_clock, 60.0, pace=1.2)
    assert recorder.calls[0] == "listen"
    assert "stop" not in recorder.calls
    assert len(b"".join(recorder.calls[1:])) == 62 * len(SECOND)


def test_file_is_not_passed_on(early_clock: Clock) -> None:
    recorder = Recorder()
    early = EarlyAudio(in_flight(), recorder)  # type: ignore[arg-type]
    for _ in range(600):
        early_clock.pass_by(0.01)
        early.receive(SECOND)
    assert recorder.calls == ["stop"]
    assert early._held == []


def test_audio_that_becomes_too_fast_is_dropped_for_good(early_clock: Clock) -> None:
    recorder = Recorder()
    early = EarlyAudio(in_flight(), recorder)  # type: ignore[arg-type]
    speak(early, early_clock, 5.0)
    early.receive(5 * SECOND)
    assert recorder.calls[-1] == "stop"
    count = len(recorder.calls)
    early_clock.pass_by(100.0)
    speak(early, early_clock, 1.0)
    assert len(recorder.calls) == count


@pytest.mark.parametrize(
    ("fields", "can"),
    [
        ({}, True),
        ({"reply": "accepted"}, True),
        ({"raw": None}, False),
        ({"channel_mode": "split"}, False),
        ({"word_timestamps": True}, False),
        ({"raw": RawFormat("f32", 48_000, 2, "big")}, True),
        ({"raw": RawFormat("f32", 48_000, 3, "big")}, False),
        ({"raw": RawFormat("ulaw", 8_000, 1, "big")}, True),
        ({"raw": RawFormat("gsm", 8_000, 1, "big")}, False),
        ({"raw": RawFormat("g722", 16_000, 1, "big")}, False),
    ],
    ids=str,
)
def test_only_plain_raw_samples_are_early(fields: dict[str, Any], can: bool) -> None:
    found = early_audio(in_flight(**fields), Recorder())  # type: ignore[arg-type]
    assert (found is not None) is can


# Over sockets.


@pytest.fixture
def live(make_node: MakeNode) -> LiveWorker:
    return LiveWorker(make_node(vad_threshold=0.5))


def speaks(live: LiveWorker, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> tuple[Client, int]:
    """Begin a command of two seconds and send half of it; return its client and number."""
    monkeypatch.setattr("app.requests.early._FIRST_SECONDS", 0.0)
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    client = live.node.connect()
    client.send(frame({**RAW, "content-length": 2 * len(SECOND), "id": "r", **named}) + SECOND)
    number = live.wait_for_job()
    live.wait_for_audio(number, SECOND)
    return client, number


def test_command_is_heard_early_and_then_a_job_with_the_same_number(
    live: LiveWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, number = speaks(live, monkeypatch)
    assert live.jobs[number].request.live is None
    client.send(SECOND)
    (reply,) = client.replies()
    assert reply["text"] == str(2 * RATE)
    assert reply["audio_seconds"] == 2.0
    assert live.audio[number] == 2 * SECOND
    assert live.node.cancelled == []
    assert live.ended == []
    assert live.node.lines.wait_for("r")["text"] == str(2 * RATE)
    assert live.node.server.pipeline.dispatch._heard == set()


def test_command_at_full_speed_is_not_heard_early(live: LiveWorker) -> None:
    (reply,) = live.node.ask(pcm(10 * RATE))
    assert reply["text"] == str(10 * RATE)
    assert live.jobs == {}
    assert live.node.cancelled == []


def test_node_that_takes_everything_for_speech_hears_nothing_early(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.requests.early._FIRST_SECONDS", 0.0)
    live = LiveWorker(make_node(vad_threshold=0.0))
    assert live.node.ask(SECOND)[0]["status"] == "ok"
    assert live.jobs == {}


@pytest.mark.parametrize("leave", [Client.close, Client.reset], ids=["closes", "resets"])
def test_client_that_vanishes_within_a_command_drops_its_early_audio(
    live: LiveWorker, monkeypatch: pytest.MonkeyPatch, leave: Callable[[Client], None]
) -> None:
    client, number = speaks(live, monkeypatch)
    leave(client)
    eventually(lambda: live.node.cancelled == [number])
    assert live.node.lines.wait_for("r")["error"]["code"] == "incomplete"
    assert live.node.server.pipeline.dispatch._heard == set()


def test_command_that_the_journal_cannot_keep_drops_its_early_audio(
    make_node: MakeNode, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveWorker(make_node(vad_threshold=0.5, journal=tmp_path / "journal"))
    client, number = speaks(live, monkeypatch)

    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live.node.journal, "write", full)
    client.send(SECOND)
    (reply,) = client.replies()
    assert reply["error"]["code"] == "no_space"
    eventually(lambda: live.node.cancelled == [number])


def test_command_in_the_journal_is_submitted_after_its_entry(
    make_node: MakeNode, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveWorker(make_node(vad_threshold=0.5, journal=tmp_path / "journal"))
    client, _ = speaks(live, monkeypatch, reply="accepted")
    client.send(SECOND)
    assert [reply["status"] for reply in client.replies()] == ["accepted"]
    assert live.node.lines.wait_for("r")["text"] == str(2 * RATE)
    assert live.node.cancelled == []


def test_drain_lets_a_command_end_as_before(
    live: LiveWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = speaks(live, monkeypatch)
    live.node.drain()
    eventually(lambda: live.node.server.shutdown.draining)
    client.send(SECOND)
    assert [reply["text"] for reply in client.replies()] == [str(2 * RATE)]
    live.node.wait_until_stopped()
    assert live.node.cancelled == []


def test_drain_past_its_time_drops_early_audio(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveWorker(make_node(vad_threshold=0.5, drain_seconds=0.2))
    client, number = speaks(live, monkeypatch)
    live.node.drain()
    assert client.replies()[0]["error"]["code"] == "shutting_down"
    live.node.wait_until_stopped()
    eventually(lambda: live.node.cancelled == [number])
