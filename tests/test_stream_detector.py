"""The detector of live audio: the same probabilities as the package's, with shared weights."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from fakes import RATE, Samples

from app.audio import stream_detector
from app.audio.stream_detector import (
    StreamDetector,
    UnknownModelError,
    model_file,
    read_weights,
    stream_detectors,
)
from app.audio.vad import CHUNK, Detector, SileroDetector

ROOT = Path(__file__).resolve().parent.parent

LARGEST_DIFFERENCE = 0.01
"""The package computes with 16 bits in between. The thresholds are 0.15 apart."""


def speech() -> Samples:
    samples, rate = soundfile.read(ROOT / "tests" / "audio" / "jfk.flac", dtype="float32")
    return np.asarray(soxr.resample(samples[:, 0], rate, RATE), dtype=np.float32)


def signals() -> dict[str, Samples]:
    random = np.random.default_rng(3)
    noise = random.normal(0, 0.05, 3 * RATE).astype(np.float32)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)
    return {
        "speech": speech(),
        "quiet speech": speech() * np.float32(0.01),
        "noise": noise,
        "speech in noise": speech()[: len(noise)] + noise,
        "tone": tone,
        "silence": np.zeros(RATE, dtype=np.float32),
        "clipped": np.sign(noise),
    }


def probabilities(detector: Detector, samples: Samples) -> list[float]:
    return [detector.probability(samples[at : at + CHUNK]) for at in range(0, len(samples), CHUNK)]


@pytest.mark.parametrize("name", signals())
def test_probabilities_are_those_of_the_package(name: str) -> None:
    samples = signals()[name]
    expected = probabilities(SileroDetector(), samples)
    found = probabilities(stream_detectors()(), samples)
    assert np.abs(np.subtract(found, expected)).max() < LARGEST_DIFFERENCE
    if name == "speech":
        assert max(found) > 0.99


def test_reset_forgets_the_chunks_before() -> None:
    detector = stream_detectors()()
    first = probabilities(detector, speech()[: 20 * CHUNK])
    assert probabilities(detector, speech()[: 20 * CHUNK]) != first
    detector.reset()
    assert probabilities(detector, speech()[: 20 * CHUNK]) == first


def test_streams_do_not_disturb_each_other() -> None:
    make = stream_detectors()
    one, other = make(), make()
    samples = speech()[: 60 * CHUNK]
    expected = probabilities(make(), samples)
    found = []
    for at in range(0, len(samples), CHUNK):
        found.append(one.probability(samples[at : at + CHUNK]))
        other.probability(np.ones(CHUNK, dtype=np.float32))
    assert found == expected


def test_detector_takes_kilobytes() -> None:
    make = stream_detectors()
    make()
    tracemalloc.start()
    try:
        detectors = [make() for _ in range(100)]
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert isinstance(detectors[0], StreamDetector)
    assert used / len(detectors) < 16_384


def test_detector_starts_no_threads() -> None:
    before = threading.active_count()
    tasks = len(list(Path("/proc/self/task").iterdir()))
    probabilities(stream_detectors()(), speech())
    assert threading.active_count() == before
    assert len(list(Path("/proc/self/task").iterdir())) == tasks


def damaged(tmp_path: Path, change: str) -> Path:
    data = bytearray(model_file().read_bytes())
    if change == "cut":
        del data[len(data) // 2 :]
    elif change == "empty":
        data.clear()
    elif change == "version":
        data[18] = 7
    elif change == "layers":
        data = data.replace(b"decoder.rnn.bias_hh", b"decoder.rnn.bias_xx")
    path = tmp_path / "ggml-silero-x.bin"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("change", ["cut", "empty", "version", "layers"])
def test_other_model_is_recognised(tmp_path: Path, change: str) -> None:
    assert read_weights(model_file()).output.shape == (128,)
    with pytest.raises(UnknownModelError):
        read_weights(damaged(tmp_path, change))


@pytest.mark.parametrize("change", ["version", "missing"])
def test_other_model_falls_back_to_the_package(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "none.bin" if change == "missing" else damaged(tmp_path, change)
    monkeypatch.setattr(stream_detector, "model_file", lambda: path)
    assert stream_detectors() is SileroDetector
