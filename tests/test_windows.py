"""The division of a stream into windows, with a detector that takes loud samples for speech.

Signals are sequences of noise of known levels, so that speech, pauses and the quietest place are
known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from fakes import RATE, FakeDetector, Samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audio.vad import CHUNK, SileroDetector
from app.audio.windows import MAX_SECONDS, Window, Windower

LOUD, MURMUR, SILENT = 0.2, 0.01, 0.0
"""Three levels: speech to the detector, below its level but not digital silence, and silence."""

Blocks = Iterable[Samples]


def signal(*stretches: tuple[float, float]) -> Samples:
    """A sequence of noises of (seconds, level); no sample occurs twice."""
    random = np.random.default_rng(5)
    parts = [
        random.normal(0, 1, int(seconds * RATE)).clip(-3, 3) * level for seconds, level in stretches
    ]
    return np.concatenate(parts).astype(np.float32)


def cut(
    samples: Samples, sizes: Iterable[int] = (), threshold: float = 0.5, level: float = 0.05
) -> tuple[list[Window], FakeDetector]:
    """All windows of `samples` except a doubtful one, pushed in blocks that repeat `sizes`."""
    windows, detector = cut_all(samples, sizes, threshold, level)
    return [window for window in windows if not window.doubtful], detector


def cut_all(
    samples: Samples, sizes: Iterable[int] = (), threshold: float = 0.5, level: float = 0.05
) -> tuple[list[Window], FakeDetector]:
    """All windows including a doubtful one."""
    detector = FakeDetector(level)
    windower = Windower(detector, threshold)
    windows: list[Window] = []
    at = 0
    for size in itertools.cycle(list(sizes) or [RATE]):
        if at >= len(samples):
            break
        windower.push(samples[at : at + size])
        at += size
        while (window := windower.next()) is not None:
            windows.append(window)
        assert not windower.exhausted
    windower.end()
    while (window := windower.next()) is not None:
        windows.append(window)
    assert windower.exhausted
    assert windower.next() is None
    return windows, detector


def span(window: Window) -> tuple[int, int]:
    """The begin and end of the window in the stream, in samples."""
    start = round(window.start * RATE)
    return start, start + len(window.samples)


def check(samples: Samples, windows: list[Window]) -> None:
    """Check the size and order of windows, and their samples against the stream."""
    end = 0
    for window in windows:
        begin, finish = span(window)
        assert window.samples.dtype == np.float32
        assert window.samples.flags.c_contiguous
        assert 0 < len(window.samples) <= MAX_SECONDS * RATE
        assert begin >= end, "two windows overlap"
        assert np.array_equal(window.samples, samples[begin:finish])
        end = finish


def covered(windows: list[Window], begin: float, end: float) -> bool:
    """Whether every sample from `begin` to `end` (seconds) is in a window."""
    inside = np.zeros(int(end * RATE) + 1, dtype=bool)
    for window in windows:
        first, last = span(window)
        inside[first:last] = True
    return bool(inside[int(begin * RATE) : int(end * RATE)].all())


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.5, 31.0, 90.0])
@pytest.mark.parametrize("level", [SILENT, MURMUR])
def test_audio_without_speech_gives_no_window(seconds: float, level: float) -> None:
    assert cut(signal((seconds, level)))[0] == []


def test_digital_silence_does_not_reach_the_detector() -> None:
    samples = signal((20, SILENT)) + np.float32(0.3)
    windows, detector = cut(samples)
    assert windows == []
    assert detector.asked == 0, "a constant of any level is silence"


def test_short_command_is_one_window_with_a_margin_before_it() -> None:
    samples = signal((2, MURMUR), (1.5, LOUD), (0.3, MURMUR))
    windows, _ = cut(samples)
    check(samples, windows)
    assert len(windows) == 1
    assert covered(windows, 2.0, 3.5)
    assert 0.4 <= 2.0 - windows[0].start <= 0.7


def test_speech_over_the_whole_recording_is_one_window() -> None:
    samples = signal((3.01, LOUD))
    windows, _ = cut(samples)
    check(samples, windows)
    assert [span(window) for window in windows] == [(0, len(samples))]


@pytest.mark.parametrize(("chunks", "count"), [(1, 0), (4, 0), (5, 1), (8, 1)])
def test_speech_needs_five_chunks_in_a_row(chunks: int, count: int) -> None:
    speech = chunks * CHUNK / RATE
    samples = signal((64 * CHUNK / RATE, MURMUR), (speech, LOUD), (1, MURMUR))
    assert len(cut(samples)[0]) == count


def test_clicks_do_not_add_up() -> None:
    click, pause = (3 * CHUNK / RATE, LOUD), (5 * CHUNK / RATE, MURMUR)
    assert cut(signal(*([click, pause] * 50)))[0] == []


def test_detector_rests_from_the_begin_of_speech_to_a_cut() -> None:
    samples = signal((10, LOUD))
    _, detector = cut(samples)
    assert detector.asked == 5


def test_long_recording_is_cut_in_pauses_and_keeps_all_speech() -> None:
    phrases = [(20.0, LOUD), (0.5, MURMUR)] * 6
    samples = signal(*phrases)
    windows, _ = cut(samples)
    check(samples, windows)
    for number in range(6):
        begin = number * 20.5
        assert covered(windows, begin, begin + 20)
    # Every boundary is in a pause.
    for window in windows[1:]:
        assert window.start % 20.5 >= 20.0 or window.start % 20.5 == 0


def test_cut_is_in_the_quietest_of_several_pauses() -> None:
    samples = signal(
        (19, LOUD),
        (0.4, MURMUR),
        (3, LOUD),
        (0.4, MURMUR / 4),
        (3, LOUD),
        (0.4, MURMUR),
        (20, LOUD),
    )
    windows, _ = cut(samples)
    check(samples, windows)
    assert 22.4 <= windows[1].start <= 22.8


def test_early_pause_is_not_used() -> None:
    samples = signal((5, LOUD), (0.5, MURMUR / 4), (19, LOUD), (0.5, MURMUR), (20, LOUD))
    windows, _ = cut(samples)
    check(samples, windows)
    assert 24.5 <= windows[1].start <= 25.0


def test_quiet_speech_is_not_a_pause() -> None:
    """The detector finds speech in the quietest place, so the next quietest is used."""
    samples = signal((20, LOUD), (0.5, 0.06), (3, LOUD), (0.5, 0.07), (20, LOUD))
    detector = FakeDetector()

    def probability(chunk: Samples) -> float:
        level = float(chunk.std())
        return 0.0 if 0.065 < level < 0.075 else 1.0

    detector.probability = probability  # type: ignore[method-assign]
    windower = Windower(detector, 0.5)
    windower.push(samples)
    first, second = windower.next(), None
    windower.end()
    second = windower.next()
    assert first is not None
    assert second is not None
    assert 23.5 <= second.start <= 24.0


def test_speech_without_any_pause_is_cut() -> None:
    samples = signal((100, LOUD))
    windows, _ = cut(samples)
    check(samples, windows)
    assert covered(windows, 0, 99)
    assert all(len(window.samples) >= 18 * RATE for window in windows[:-1])


def test_silence_after_the_speech_is_removed_from_the_window() -> None:
    samples = signal((2, LOUD), (60, SILENT), (2, LOUD), (60, SILENT))
    windows, _ = cut(samples)
    check(samples, windows)
    assert len(windows) == 2
    assert covered(windows, 0, 2)
    assert covered(windows, 62, 64)
    assert all(len(window.samples) < 4 * RATE for window in windows)


def test_threshold_of_0_keeps_all_audio_but_trailing_silence() -> None:
    samples = signal((40, MURMUR), (1, SILENT))
    windows, _ = cut(samples, threshold=0.0)
    check(samples, windows)
    assert covered(windows, 0, 40)
    for count in (1, 100, CHUNK, RATE):
        [window] = cut(signal((count / RATE, LOUD)), threshold=0.0)[0]
        assert len(window.samples) == count


def test_thirty_seconds_are_one_window() -> None:
    for extra in (-1, 0, 1):
        samples = signal((31, LOUD))[: 30 * RATE + extra]
        windows, _ = cut(samples)
        check(samples, windows)
        assert covered(windows, 0, 29)


# resume


def test_resume_searches_the_rest_of_the_window_again() -> None:
    samples = signal((5, LOUD), (2, MURMUR), (5, LOUD))
    windower = Windower(FakeDetector(), 0.5)
    windower.push(samples)
    windower.end()
    first = windower.next()
    assert first is not None
    assert windower.exhausted
    windower.resume(5.5)
    assert not windower.exhausted
    second = windower.next()
    assert second is not None
    check(samples, [Window(0.0, first.samples[: int(5.5 * RATE)]), second])
    # The pause before the rest is dropped except for the margin.
    assert 6.2 <= second.start <= 7.0
    assert span(second)[1] == len(samples)
    assert windower.exhausted


def test_resume_in_the_middle_of_a_stream_loses_nothing() -> None:
    samples = signal((20, LOUD), (0.5, MURMUR), (20, LOUD), (0.5, MURMUR), (20, LOUD))
    windower = Windower(FakeDetector(), 0.5)
    windows = []
    for at in range(0, len(samples), RATE):
        windower.push(samples[at : at + RATE])
        while (window := windower.next()) is not None:
            if len(windows) == 0:
                windower.resume(12.0)
                window = Window(window.start, window.samples[: 12 * RATE])
            windows.append(window)
    windower.end()
    while (window := windower.next()) is not None:
        windows.append(window)
    check(samples, windows)
    assert span(windows[1])[0] == 12 * RATE
    assert covered(windows, 0, 20)
    assert covered(windows, 20.5, 40.5)
    assert covered(windows, 41, 61)


def test_rest_without_speech_gives_no_further_window() -> None:
    windower = Windower(FakeDetector(), 0.5)
    windower.push(signal((5, LOUD), (3, MURMUR)))
    windower.end()
    assert windower.next() is not None
    windower.resume(5.2)
    assert windower.next() is None
    assert windower.exhausted


# Memory and blocks.


@pytest.mark.parametrize("level", [SILENT, MURMUR, LOUD])
def test_memory_is_limited_to_a_window_and_a_block(level: float) -> None:
    windower = Windower(FakeDetector(), 0.5)
    block = signal((1, level))
    for _ in range(600):
        windower.push(block)
        while windower.next() is not None:
            pass
        assert len(windower._buffer) <= (MAX_SECONDS + 1) * RATE
        base = windower._buffer.base
        assert base is None or base.nbytes <= (MAX_SECONDS + 2) * RATE * 4


def test_rest_does_not_keep_the_window_in_memory() -> None:
    windower = Windower(FakeDetector(), 0.5)
    windower.push(signal((31, LOUD)))
    window = windower.next()
    assert window is not None
    windower.push(signal((1, LOUD)))
    assert not np.shares_memory(windower._buffer, window.samples)


STRETCHES = st.lists(
    st.tuples(st.floats(0.02, 9.0), st.sampled_from([LOUD, MURMUR, SILENT, 0.06, 0.04])),
    min_size=1,
    max_size=10,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(STRETCHES, st.lists(st.integers(1, 100_000), min_size=1, max_size=10))
def test_any_split_into_blocks_gives_equal_windows(
    stretches: list[tuple[float, float]], sizes: list[int]
) -> None:
    samples = signal(*stretches)
    # Many tiny blocks test nothing further and take long.
    sizes[0] = max(sizes[0], 20_000)
    whole, _ = cut(samples)
    pieces, _ = cut(samples, sizes)
    check(samples, whole)
    assert [span(window) for window in pieces] == [span(window) for window in whole]
    at_once, _ = cut(samples, [max(1, len(samples))])
    assert [span(window) for window in at_once] == [span(window) for window in whole]


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(STRETCHES)
def test_long_speech_is_always_covered(stretches: list[tuple[float, float]]) -> None:
    samples = signal(*stretches)
    windows, _ = cut(samples)
    check(samples, windows)
    at = 0.0
    for seconds, level in stretches:
        # A cut near an edge may lose up to five chunks.
        if level == LOUD and seconds > 1.0:
            assert covered(windows, at + 0.2, at + int(seconds * RATE) / RATE - 0.2)
        at += int(seconds * RATE) / RATE


# The second look.


def rhythm(seconds: float, loud: float = 0.03, quiet: float = 0.003) -> Samples:
    """Noise in the rhythm of syllables, too quiet for the fake detector."""
    return signal(*[(0.16, loud), (0.16, quiet)] * int(seconds / 0.32))


@pytest.mark.parametrize("seconds", [3.2, 20.0, 100.0])
def test_recording_without_speech_ends_with_one_doubtful_window(seconds: float) -> None:
    samples = rhythm(seconds)
    [window], _ = cut_all(samples)
    assert window.doubtful
    assert len(window.samples) <= MAX_SECONDS * RATE
    check(samples, [window])


@pytest.mark.parametrize("level", [SILENT, MURMUR, 0.0001])
@pytest.mark.parametrize("seconds", [0.02, 3.0, 40.0])
def test_silence_and_steady_noise_get_no_second_look(seconds: float, level: float) -> None:
    assert cut_all(signal((seconds, level)))[0] == []


def test_recording_with_speech_gets_no_second_look() -> None:
    samples = np.concatenate((rhythm(40.0), signal((2, LOUD)), rhythm(40.0)))
    windows, _ = cut_all(samples)
    assert windows
    assert not any(window.doubtful for window in windows)


def test_threshold_of_0_gives_no_second_look() -> None:
    assert not any(window.doubtful for window in cut_all(rhythm(40.0), threshold=0.0)[0])


def test_second_look_is_at_the_highest_speech_probability() -> None:
    samples = rhythm(300.0)
    near = slice(200 * RATE, 210 * RATE)
    samples[near] *= 1.2
    detector = FakeDetector()
    loudest = float(np.abs(rhythm(10.0)).max())

    def probability(chunk: Samples) -> float:
        return 0.4 if float(np.abs(chunk).max()) > loudest * 1.05 else 0.01

    detector.probability = probability  # type: ignore[method-assign]
    windower = Windower(detector, 0.5)
    for at in range(0, len(samples), RATE):
        windower.push(samples[at : at + RATE])
        assert windower.next() is None
    windower.end()
    window = windower.next()
    assert window is not None
    assert window.doubtful
    check(samples, [window])
    assert covered([window], 200, 210)
    assert windower.exhausted


def test_second_look_is_independent_of_the_block_size() -> None:
    samples = rhythm(70.0)
    [whole], _ = cut_all(samples, [len(samples)])
    [pieces], _ = cut_all(samples, [7_001, 123, 40_000])
    assert span(whole) == span(pieces)


# Levels.

HEARD = 0.02
"""A level that only loud or amplified samples reach; the amplification is to 0.03."""


def test_quiet_speech_is_amplified_for_the_detector() -> None:
    phrases = [(2.0, MURMUR), (1.5, LOUD), (0.3, MURMUR)]
    loud = cut(signal(*phrases))[0]
    for decibels in (-20, -40, -50):
        quiet = (signal(*phrases) * 10 ** (decibels / 20)).astype(np.float32)
        windows = cut(quiet, level=HEARD)[0]
        check(quiet, windows)
        assert [span(window) for window in windows] == [span(window) for window in loud]


def test_quiet_recording_is_cut_in_its_pauses() -> None:
    samples = signal(*[(20.0, LOUD), (0.5, MURMUR)] * 6) * np.float32(10 ** (-50 / 20))
    windows, _ = cut(samples, level=HEARD)
    check(samples, windows)
    for window in windows[1:]:
        assert window.start % 20.5 >= 20.0 or window.start % 20.5 == 0


def test_loud_beginning_does_not_hide_quiet_speech() -> None:
    samples = signal((0.3, 0.5), (8, MURMUR / 100), (2, LOUD / 100), (1, MURMUR / 100))
    detector = FakeDetector(HEARD)
    windower = Windower(detector, 0.5)
    # Longer than the range in which the loudest level is measured.
    windower.push(np.concatenate((signal((10, SILENT)), samples)))
    windower.end()
    windows = list(iter(windower.next, None))
    assert covered(windows, 18.3, 20.3)


# The real detector, to verify the assumption of the fake one.


def test_real_detector_finds_speech_and_ignores_noise() -> None:
    samples, rate = soundfile.read(
        Path(__file__).resolve().parent / "audio" / "jfk.flac", dtype="float32", always_2d=True
    )
    speech = soxr.resample(samples.mean(axis=1), rate, RATE)
    for audio, count in ((speech, 1), (signal((5, MURMUR)), 0), (signal((5, SILENT)), 0)):
        windower = Windower(SileroDetector(), 0.5)
        windower.push(audio)
        windower.end()
        windows = list(iter(windower.next, None))
        assert len(windows) == count
    assert SileroDetector().probability(np.zeros(3, dtype=np.float32)) < 0.5


def cut_at_pauses(samples: Samples, block: int = RATE) -> list[tuple[float, float]]:
    """The begins and ends of the windows of `samples` in seconds, with cuts at pauses."""
    windower = Windower(FakeDetector(), 0.5, at_pauses=True)
    found = []
    for at in range(0, len(samples) + block, block):
        if at >= len(samples):
            windower.end()
        windower.push(samples[at : at + block])
        while (window := windower.next()) is not None:
            if not window.doubtful:
                found.append((window.start, window.start + len(window.samples) / RATE))
    assert windower.exhausted
    return found


@pytest.mark.parametrize("block", [RATE, 1000, 100 * RATE])
def test_window_ends_at_a_pause_if_requested(block: int) -> None:
    speech = signal((5.0, LOUD), (0.6, MURMUR), (4.0, LOUD), (1.0, SILENT), (6.0, LOUD))
    first, second, third = cut_at_pauses(speech, block)
    assert first == pytest.approx((0.0, 5.2), abs=0.15)
    assert second == pytest.approx((5.2, 9.8), abs=0.3)
    assert third == pytest.approx((10.1, 16.6), abs=0.15)


def test_short_or_early_pause_ends_no_window() -> None:
    speech = signal((1.0, LOUD), (0.6, MURMUR), (5.0, LOUD), (0.3, MURMUR), (5.0, LOUD))
    assert cut_at_pauses(speech) == [pytest.approx((0.0, 11.9), abs=0.05)]


def test_speech_without_a_pause_is_cut_at_the_usual_place() -> None:
    windows = cut_at_pauses(signal((70.0, LOUD)))
    assert all(end - start <= MAX_SECONDS for start, end in windows)
    assert windows[-1][1] == pytest.approx(70.0)
