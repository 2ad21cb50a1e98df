"""The measured rate, from which a refused client learns when to come back."""

from __future__ import annotations

import pytest
from fakes import transcript_of

from app.requests.throughput import Throughput


def test_real_time_is_assumed_before_anything_was_measured() -> None:
    assert Throughput().seconds_for(40.0) == 40.0


def test_what_was_measured_counts() -> None:
    rate = Throughput()
    rate.note(transcript_of(audio_seconds=100.0, processing_seconds=10.0))
    assert rate.seconds_for(40.0) == pytest.approx(4.0)
    for _ in range(50):
        rate.note(transcript_of(audio_seconds=10.0, processing_seconds=20.0))
    assert rate.seconds_for(40.0) == pytest.approx(80.0, rel=0.01)


def test_one_odd_recording_does_not_decide() -> None:
    rate = Throughput()
    for _ in range(10):
        rate.note(transcript_of(audio_seconds=10.0, processing_seconds=1.0))
    rate.note(transcript_of(audio_seconds=10.0, processing_seconds=10.0))
    assert 4.0 < rate.seconds_for(40.0) < 12.0


def test_never_sooner_than_in_a_second() -> None:
    rate = Throughput()
    rate.note(transcript_of(audio_seconds=0.0, processing_seconds=0.1))
    assert rate.seconds_for(0.0) == 1.0
