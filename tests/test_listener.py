"""The hearing of a live stream, with a detector that takes loud samples for speech."""

from __future__ import annotations

import itertools
import tempfile
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import RATE, FakeDetector, Samples
from hypothesis import given, settings
from hypothesis import strategies as st

from app.audio.endpoint import Began, Complete, Cut, Event, Extent, Pause
from app.audio.listener import BLOCK_SECONDS, Listener
from app.audio.stream import AudioStream
from app.audio.stream_detector import stream_detectors
from app.audio.vad import Detector
from app.live import LiveOptions
from app.messages import RawFormat

ROOT = Path(__file__).resolve().parent.parent
MONO = RawFormat("s16", RATE, 1, "little")
LOUD, QUIET = 0.2, 0.0005


def signal(*stretches: tuple[float, float], rate: int = RATE, channels: int = 1) -> Samples:
    """A sequence of noises of (seconds, level), shape [n, channels]."""
    random = np.random.default_rng(5)
    parts = [
        random.normal(0, 1, (int(seconds * rate), channels)).clip(-3, 3) * level
        for seconds, level in stretches
    ]
    return np.concatenate(parts).astype(np.float32)


def pcm(samples: Samples) -> bytes:
    return np.rint(samples * 32767).astype("<i2").tobytes()


def listener(
    raw: RawFormat = MONO, options: LiveOptions | None = None, detector: Detector | None = None
) -> Listener:
    return Listener(raw, detector or FakeDetector(), options or LiveOptions(), 0.5)


def hear(
    listener: Listener, data: bytes, cuts: Iterable[int] = ()
) -> tuple[list[Event], list[bytes]]:
    """The events of the data, cut into pieces, and the samples of each complete utterance."""
    events: list[Event] = []
    utterances: list[bytes] = []

    def take(new: Sequence[Event]) -> None:
        events.extend(new)
        for event in new:
            if isinstance(event, Complete | Cut):
                utterances.append(listener.samples(event.extent).tobytes())
                listener.release(event.extent)

    for begin, end in itertools.pairwise([0, *sorted(cuts), len(data)]):
        take(listener.hear(memoryview(data)[begin:end]))
    take(listener.end())
    return events, utterances


SPOKEN = signal((0.7, QUIET), (1.1, LOUD), (0.8, QUIET), (0.6, LOUD), (0.3, QUIET), (0.5, LOUD))


@settings(deadline=None)
@given(st.lists(st.integers(0, 4 * RATE * 2), max_size=12))
def test_any_split_gives_the_same_events_and_samples(cuts: list[int]) -> None:
    data = pcm(SPOKEN)
    whole = hear(listener(), data)
    assert len(whole[1]) == 2
    assert hear(listener(), data, [min(cut, len(data)) for cut in cuts]) == whole


@pytest.mark.parametrize(
    ("rate", "channels"), [(8_000, 1), (22_050, 1), (44_100, 2), (48_000, 1), (16_000, 3)]
)
def test_packets_of_any_size_give_the_same_in_other_formats(rate: int, channels: int) -> None:
    raw = RawFormat("s16", rate, channels, "little")
    data = pcm(signal((0.5, QUIET), (1, LOUD), (0.8, QUIET), rate=rate, channels=channels))
    whole = hear(listener(raw), data)
    assert len(whole[1]) == 1
    for size in (101, 320, 3200, 65_521):
        assert hear(listener(raw), data, range(size, len(data), size)) == whole


def test_samples_are_those_of_the_file() -> None:
    data = pcm(SPOKEN)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        stream = AudioStream(file.fileno(), len(data), MONO, 100)
        blocks = []
        while (block := stream.read()) is not None:
            blocks.append(block)
        stream.close()
    expected = np.concatenate(blocks)
    events, utterances = hear(listener(), data, range(320, len(data), 320))
    found = [event.extent for event in events if isinstance(event, Complete)]
    assert [expected[extent.start : extent.end].tobytes() for extent in found] == utterances


def test_an_incomplete_frame_at_the_end_is_left_out() -> None:
    data = pcm(SPOKEN)
    whole = listener()
    cut = listener()
    assert hear(whole, data) == hear(cut, data + b"\x01")
    assert not whole.is_truncated
    assert cut.is_truncated
    assert whole.seconds == cut.seconds == len(SPOKEN) / RATE


def test_silence_is_not_held() -> None:
    ear = listener()
    data = pcm(signal((1, QUIET)))
    for _ in range(100):
        assert ear.hear(data) == []
        assert ear.held_seconds < 1.0
    assert ear.end() == []


def test_at_most_30_s_of_an_utterance_are_held() -> None:
    ear = listener(options=LiveOptions(end_pause=None))
    data = pcm(signal((1, LOUD)))
    most, count = 0.0, 0
    for _ in range(100):
        for event in ear.hear(data):
            if isinstance(event, Cut):
                assert len(ear.samples(event.extent)) <= 30 * RATE
                ear.release(event.extent)
                count += 1
        most = max(most, ear.held_seconds)
    assert count >= 3
    assert most <= 30 + 2 * BLOCK_SECONDS


def test_complete_utterances_are_held_until_their_release() -> None:
    ear = listener()
    data = pcm(signal((0.6, QUIET), (1, LOUD), (0.6, QUIET)))
    events = [event for _ in range(3) for event in ear.hear(data)]
    first, second, third = (event.extent for event in events if isinstance(event, Complete))
    held = ear.held_seconds
    samples = ear.samples(third)
    ear.release(second)
    assert ear.held_seconds == held
    ear.release(first)
    assert ear.held_seconds < held
    assert np.array_equal(ear.samples(third), samples)
    ear.release(third)
    assert ear.held_seconds < 1.0


def test_commit_includes_all_audio_before_it() -> None:
    # 1.01 s end neither at a block nor at a chunk.
    loud = signal((1.01, LOUD))
    ear = listener()
    ear.hear(pcm(loud))
    (complete,) = ear.commit()
    assert isinstance(complete, Complete)
    assert complete.extent.end == len(loud)
    assert np.array_equal(ear.samples(complete.extent), np.rint(loud[:, 0] * 32767) / 32768)
    events = ear.hear(pcm(loud))
    assert events == [Began(len(loud))]


def test_commit_without_speech_completes_nothing() -> None:
    ear = listener()
    ear.hear(pcm(signal((0.5, QUIET))))
    assert ear.commit() == []
    assert ear.commit() == []


def test_clear_drops_the_open_utterance_and_keeps_complete_ones() -> None:
    ear = listener()
    events = ear.hear(pcm(signal((1, LOUD), (0.6, QUIET), (1.01, LOUD))))
    (extent,) = (event.extent for event in events if isinstance(event, Complete))
    ear.clear()
    assert ear.extent is None
    assert len(ear.samples(extent)) == extent.end - extent.start
    ear.release(extent)
    assert ear.held_seconds == 0.0
    assert ear.hear(pcm(signal((1, QUIET)))) == []
    with pytest.raises(ValueError, match="not within"):
        ear.samples(extent)


def test_detector_is_reset_for_each_stream() -> None:
    detector = FakeDetector()
    listener(detector=detector)
    listener(detector=detector)
    assert detector.resets == 2


def test_a_pause_has_the_samples_of_the_final() -> None:
    data = pcm(signal((1, LOUD), (2, QUIET)))
    ear = listener()
    heard: dict[Extent, bytes] = {}
    complete: list[Extent] = []
    for at in range(0, len(data), 320):
        for event in ear.hear(data[at : at + 320]):
            if isinstance(event, Pause):
                heard[event.extent] = ear.samples(event.extent).tobytes()
            elif isinstance(event, Complete):
                complete.append(event.extent)
    assert [heard[extent] for extent in complete] == [ear.samples(complete[0]).tobytes()]


@pytest.mark.parametrize("decibels", [0, -20, -40])
def test_quiet_speech_is_found_live(decibels: float) -> None:
    speech, rate = soundfile.read(ROOT / "tests" / "audio" / "jfk.flac", dtype="float32")
    noise = np.random.default_rng(1).normal(0, 10 ** (-75 / 20), 2 * rate)
    speech = speech[:, 0] * 10 ** (decibels / 20)
    data = pcm(np.concatenate((noise, speech, noise)).astype(np.float32))
    ear = listener(RawFormat("s16", rate, 1, "little"), detector=stream_detectors()())
    events, _ = hear(ear, data, range(3200, len(data), 3200))
    found = [event.extent for event in events if isinstance(event, Complete)]
    # The recording has four phrases, of which two may be closer than the end pause.
    assert len(found) in (3, 4)
    assert 1.5 < found[0].start / RATE < 2.5
    assert 12.5 < found[-1].end / RATE < 13.5


def test_memory_of_a_stream_is_that_of_30_s() -> None:
    data = pcm(signal((1, LOUD)))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        ear = listener(options=LiveOptions(end_pause=None))
        for _ in range(29):
            for at in range(0, len(data), 320):
                ear.hear(data[at : at + 320])
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    samples = ear.held_seconds * RATE * 4
    assert samples < used < 1.25 * samples
