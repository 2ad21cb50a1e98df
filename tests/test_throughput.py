"""The measured throughput, which gives a rejected client its time to retry."""

from __future__ import annotations

import pytest
from fakes import transcript_of

from app.requests.throughput import Throughput


def test_throughput_is_real_time_before_any_measurement() -> None:
    assert Throughput().seconds_for(40.0) == 40.0


def test_throughput_follows_the_measurements() -> None:
    rate = Throughput()
    rate.note(transcript_of(audio_seconds=100.0, processing_seconds=10.0))
    assert rate.seconds_for(40.0) == pytest.approx(4.0)
    for _ in range(50):
        rate.note(transcript_of(audio_seconds=10.0, processing_seconds=20.0))
    assert rate.seconds_for(40.0) == pytest.approx(80.0, rel=0.01)


def test_throughput_is_robust_against_one_odd_recording() -> None:
    rate = Throughput()
    for _ in range(10):
        rate.note(transcript_of(audio_seconds=10.0, processing_seconds=1.0))
    rate.note(transcript_of(audio_seconds=10.0, processing_seconds=10.0))
    assert 4.0 < rate.seconds_for(40.0) < 12.0


def test_estimate_is_at_least_one_second() -> None:
    rate = Throughput()
    rate.note(transcript_of(audio_seconds=0.0, processing_seconds=0.1))
    assert rate.seconds_for(0.0) == 1.0
