"""scripts/dev/live: Home Assistant's segmenter, the commands, the packets, and the figures."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from benchmark import live_commands
from benchmark.corpus import RATE, Clip
from benchmark.environment import SetupError
from benchmark.home_assistant import FRAME, SILENCE_SECONDS, Segmenter, Setting, end_of_command
from benchmark.live_cli import Order
from benchmark.live_commands import Command, command, speech_end, with_hesitations
from benchmark.live_figures import Latency, Result, difference, growth, markdown
from benchmark.live_loads import stream_latencies
from benchmark.live_player import Played, PlayError, Session, play
from benchmark.live_servers import counts_in
from benchmark.live_wire import (
    NativeReader,
    WyomingReader,
    chunks,
    native_stream,
    wyoming,
    wyoming_event,
)


def frames(*stretches: tuple[float, float]) -> list[float]:
    """Probabilities of stretches of (seconds, probability)."""
    return [value for seconds, value in stretches for _ in range(round(seconds * 100))]


def ended_at(setting: Setting, probabilities: list[float]) -> float | None:
    segmenter = Segmenter(setting)
    for number, probability in enumerate(probabilities, start=1):
        if segmenter.step(probability):
            return number / 100
    return None


@pytest.mark.parametrize("setting", list(SILENCE_SECONDS))
def test_silence_of_the_setting_ends_a_command(setting: Setting) -> None:
    spoken = frames((0.5, 0.0), (2.0, 0.9), (3.0, 0.0))
    assert ended_at(setting, spoken) == pytest.approx(2.5 + SILENCE_SECONDS[setting])


def test_silence_accumulates_until_a_second_of_speech() -> None:
    short = frames((2.0, 0.9), *[(0.3, 0.0), (0.5, 0.9)] * 3)
    assert ended_at("default", short) == pytest.approx(2.0 + 0.3 + 0.5 + 0.3 + 0.5 + 0.1)
    long = frames((2.0, 0.9), *[(0.3, 0.0), (1.1, 0.9)] * 3)
    assert ended_at("default", long) is None


def test_command_has_a_least_length() -> None:
    assert ended_at("aggressive", frames((0.3, 0.9), (3.0, 0.0))) == pytest.approx(1.0)


def test_speech_begins_with_a_lower_threshold_than_it_ends() -> None:
    assert ended_at("default", frames((1.5, 0.3), (3.0, 0.0))) == pytest.approx(1.0)
    assert ended_at("default", frames((5.0, 0.2))) is None


def test_command_without_speech_ends_after_15_s() -> None:
    assert ended_at("default", frames((20.0, 0.0))) == pytest.approx(15.0)


def test_end_of_command_is_a_sample_position() -> None:
    asked = []

    def detector(frame: bytes) -> float:
        asked.append(len(frame))
        return 0.9 if len(asked) <= 200 else 0.0

    samples = np.zeros(RATE * 5, np.float32)
    end = end_of_command(samples, "default", detector)
    assert end is not None
    assert end / RATE == pytest.approx(2.7)
    assert set(asked) == {2 * FRAME}
    assert end_of_command(samples[: 2 * RATE], "default", detector) is None


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """A second of loud noise between halves of silence."""
    random = np.random.default_rng(1)
    silence = np.zeros(RATE // 2)
    samples = np.concatenate((silence, random.normal(0, 0.1, RATE), silence))
    soundfile.write(tmp_path / "one.wav", samples, RATE)
    return Clip("one", "speech", tmp_path / "one.wav", 2.0, "One.")


def loud(chunk: np.ndarray) -> float:
    return float(chunk.std() > 0.05)


def stop_after(seconds: float) -> Callable[[np.ndarray, Setting], int | None]:
    return lambda samples, setting: int(seconds * RATE)


def test_command_ends_where_the_segmenter_says(clip: Clip) -> None:
    made = command(clip, "default", end=stop_after(2.5), detect=loud)
    assert made.seconds == 2.5
    assert made.samples.dtype == np.int16
    assert made.speech_end == pytest.approx(1.5, abs=0.04)
    assert not made.is_early
    again = command(clip, "default", end=stop_after(2.5), detect=loud)
    assert np.array_equal(made.samples, again.samples)
    # The tail is noise of -60 dBFS.
    level = (made.samples[-RATE // 4 :] / 32768).std()
    assert 20 * np.log10(level) == pytest.approx(live_commands.NOISE_DECIBELS, abs=1)
    assert command(clip, "default", end=stop_after(1.0), detect=loud).is_early


def test_hesitations_are_pauses_within_the_speech() -> None:
    random = np.random.default_rng(2)
    speech = random.normal(0, 0.1, 5 * RATE).astype(np.float32)
    made = with_hesitations(speech, random)
    assert 2 * 0.3 <= len(made) / RATE - 5 <= 2 * 0.6
    assert np.array_equal(made[made != 0], speech[speech != 0])
    assert speech_end(made, loud) == pytest.approx(len(made) / RATE, abs=0.04)


def test_packets_are_due_at_their_last_sample() -> None:
    samples = np.arange(1000, dtype="<i2")
    packets = list(chunks(samples, 0.01))
    assert [due for due, _ in packets] == pytest.approx([0.01 * n for n in range(1, 7)] + [0.0625])
    assert b"".join(data for _, data in packets) == samples.tobytes()


def test_packets_of_a_burst_are_due_together() -> None:
    samples = np.zeros(RATE, dtype="<i2")
    dues = [due for due, _ in chunks(samples, 0.01, burst=0.4)]
    assert dues == [0.4] * 40 + [0.8] * 40 + [1.0] * 20


def test_wyoming_reader_takes_any_split() -> None:
    events = wyoming_event("info", {"asr": []}) + wyoming_event("x", payload=b"\n\n")
    events += b'{"type": "transcript", "data": {"text": "a"}}\n'
    expected = [{"type": "info", "asr": []}, {"type": "x"}, {"type": "transcript", "text": "a"}]
    for size in (1, 7, len(events)):
        reader = WyomingReader()
        parts = [events[at : at + size] for at in range(0, len(events), size)]
        messages = [message for part in parts for message in reader.feed(part)]
        assert messages == expected
    assert [reader.is_last(message) for message in expected] == [False, False, True]


def test_native_reader_takes_any_split() -> None:
    data = b""
    expected = [{"status": "segment", "segment": {}}, {"status": "ok"}]
    for message in expected:
        body = json.dumps(message).encode()
        header = json.dumps({"content-length": len(body)}).encode()
        data += len(header).to_bytes(2, "big") + header + body
    for size in (1, 5, len(data)):
        reader = NativeReader()
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        assert [message for part in parts for message in reader.feed(part)] == expected
    assert [reader.is_last(message) for message in expected] == [False, True]


def test_native_stream_is_a_header_and_frames() -> None:
    packets = list(native_stream([(0.1, b"ab"), (0.2, b"c")], reply="segments"))
    data = b"".join(data for _, data in packets)
    length = int.from_bytes(data[:2], "big")
    header = json.loads(data[2 : 2 + length])
    assert header["live"] is True
    assert header["reply"] == "segments"
    assert data[2 + length :] == b"\x00\x02ab\x00\x01c\x00\x00"
    assert [due for due, _ in packets] == [0.0, 0.1, 0.2, 0.2]


@pytest.fixture
def wyoming_server() -> Iterator[tuple[str, int]]:
    """A server that answers each command with its number of samples, or closes without."""
    ready: list[tuple[str, int]] = []
    started, over = threading.Event(), threading.Event()

    async def answer(stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = 0
        while line := await stream.readline():
            header = json.loads(line)
            await stream.readexactly(header.get("data_length", 0))
            size += len(await stream.readexactly(header.get("payload_length", 0)))
            if header["type"] == "audio-stop":
                if size:
                    writer.write(wyoming_event("transcript", {"text": str(size // 2)}))
                break
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ready.append(server.sockets[0].getsockname())
        started.set()
        while not over.is_set():
            await asyncio.sleep(0.01)
        server.close()
        await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait()
    yield ready[0]
    over.set()
    thread.join()


def test_player_keeps_the_deadlines(wyoming_server: tuple[str, int]) -> None:
    def session(number: int) -> Session:
        samples = np.zeros(1600 * number, dtype="<i2")
        return Session(str(number), wyoming_server, wyoming(samples, "en", 0.01), WyomingReader())

    first, second = play([[session(1), session(2)], [session(3)]], gap=0.0)
    assert [played.answer["text"] for played in first] == ["1600", "3200"]
    assert [played.answer["text"] for played in second] == ["4800"]
    for played, seconds in zip([*first, *second], (0.1, 0.2, 0.3), strict=True):
        # The last packet is never early.
        assert played.stopped - played.began >= seconds
        assert played.answered >= played.stopped
    assert first[1].began >= first[0].answered


def test_player_begins_nothing_after_its_time(wyoming_server: tuple[str, int]) -> None:
    def sessions() -> Iterator[Session]:
        number = 0
        while True:
            samples = np.zeros(160, dtype="<i2")
            yield Session(
                str(number),
                wyoming_server,
                wyoming(samples, "en", 0.01),
                WyomingReader(),
                not_before=0.1 * number,
            )
            number += 1

    (played,) = play([sessions()], gap=0.0, seconds=0.35)
    assert 1 <= len(played) <= 4
    begins = [one.began - played[0].began for one in played]
    assert all(begin >= 0.1 * number - 0.05 for number, begin in enumerate(begins))


def test_player_reports_a_server_that_closes(wyoming_server: tuple[str, int]) -> None:
    nothing = wyoming(np.zeros(0, dtype="<i2"), "en", 0.01)
    with pytest.raises(PlayError, match="closed the connection"):
        play([[Session("x", wyoming_server, nothing, WyomingReader())]])


def test_counts_are_read_from_the_metrics() -> None:
    metrics = """# HELP node_whisper_speculations_total Decodes
node_whisper_speculations_total{result="used"} 12.0
node_whisper_speculations_total{result="wasted"} 3.0
node_whisper_live_finals_total 14.0
node_whisper_windows_given_up_total 2.0
node_whisper_requests_total{protocol="wyoming",outcome="ok"} 9.0
"""
    assert counts_in(metrics) == {"used": 12.0, "wasted": 3.0, "finals": 14.0, "given up": 2.0}


def test_latency_of_a_stream_is_that_of_the_first_segment_after_the_speech() -> None:
    samples = np.zeros(RATE, dtype="<i2")
    one = Command("one", samples, 0.8, "One.")
    silent = Command("silent", samples, None, "")
    played = Played("stream", began=100.0)
    played.messages = [
        (101.5, {"status": "segment", "segment": {"end": 0.7}}),
        (113.4, {"status": "segment", "segment": {"end": 12.3}}),
        (113.6, {"status": "segment", "segment": {"end": 12.8}}),
        (130.0, {"status": "ok"}),
    ]
    spoken = [(0.0, one), (12.0, Command("two", samples, 1.5, "Two.")), (24.0, silent)]
    late = [latency.after_stop for latency in stream_latencies(played, spoken)]
    assert late == pytest.approx([0.7, 0.1])


def test_difference_is_paired() -> None:
    same = [("go forward very fast", "go forward very", "go forward very")] * 10
    found = difference(same)
    assert found is not None
    assert (found.live, found.file, found.difference) == (25.0, 25.0, 0.0)
    assert (found.low, found.high, found.words) == (0.0, 0.0, 40)
    # Half of the commands are worse live.
    worse = [*same, *[("go forward very fast", "go forward", "go forward very fast")] * 10]
    found = difference(worse)
    assert found is not None
    assert found.difference == pytest.approx(25.0)
    assert 0 < found.low < found.difference < found.high < 50
    assert difference([("", "", "")]) is None


def test_growth_is_a_slope_after_the_beginning() -> None:
    rising = [(float(at), 100.0 + at / 3600) for at in range(0, 100, 2)]
    assert growth(rising) == pytest.approx(1.0)
    begin = [(float(at), 10.0 * at) for at in range(10)]
    assert growth([*begin, *[(at + 10.0, 100.0) for at in range(50)]]) == pytest.approx(0.0)
    assert growth([(0.0, 1.0)]) is None


def test_table_has_a_row_for_each_result() -> None:
    latencies = tuple(Latency(n / 1000, 1 + n / 1000) for n in range(1, 101))
    texts = (("one", "go forward", "go forward"), ("two", "", "words"))
    result = Result(
        "alone", "node", latencies, 300.0, 0.1, 0.004, 2, texts, {"one": "go", "two": ""}, 0.08,
        {"used": 95.0, "wasted": 20.0, "finals": 100.0},
    )  # fmt: skip
    text = markdown([result])
    assert "| 50 / 95 ms | 1050 / 1095 ms | 95 % | 0.20 | 0.100 (file 0.080) | 4 ms |" in text
    assert "2 commands ended within the speech" in text
    assert "50.00 % live, 50.00 % as files: +0.00 points" in text
    assert "1 of 1 without speech have a text" in text
    assert json.loads(json.dumps(result.as_json()))["load"] == "alone"


def test_loads_of_the_command_line_have_limits() -> None:
    assert Order.read("alone") == Order("alone")
    assert Order.read("crowd:16") == Order("crowd", 16)
    assert Order.read("alone:40:12") == Order("alone", 40, 12)
    for text in ("alon", "alone:", "alone:-1", "alone:1:2:3", "alone:x"):
        with pytest.raises(SetupError, match="is no load"):
            Order.read(text)
