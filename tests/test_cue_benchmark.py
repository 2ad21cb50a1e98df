"""scripts/dev/accuracy --cues: recordings with known speech, and the deviation of their cues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from benchmark import cues
from benchmark.answers import Answer
from benchmark.corpus import Clip
from benchmark.cues import Recording, Span, deviations, recordings, table, tasks

RATE = 16_000
SPANS = (Span(0.5, 2.0, "Go forward ten meters."), Span(3.0, 5.0, "What time is it?"))


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Three clips: half a second of silence, a second of noise, half a second of silence."""
    generator = np.random.default_rng(1)
    silence = np.zeros(RATE // 2)
    found = []
    for name in ("one", "two", "three"):
        path = tmp_path / f"{name}.wav"
        soundfile.write(
            path, np.concatenate((silence, generator.normal(0, 0.1, RATE), silence)), RATE
        )
        found.append(Clip(name, "speech", path, 2.0, f"This is clip {name}."))
    return found


def test_spans_are_those_of_the_speech(clips: list[Clip], tmp_path: Path) -> None:
    (recording,) = recordings(clips, tmp_path)["shuffled"]
    data, rate = soundfile.read(recording.path)
    assert rate == RATE
    assert sorted(span.text for span in recording.spans) == sorted(clip.text for clip in clips)
    assert recording.text == " ".join(span.text for span in recording.spans)
    for span in recording.spans:
        assert span.end - span.start == pytest.approx(1.0, abs=0.03)
        assert data[int(span.start * RATE) : int(span.end * RATE)].std() > 0.09
        assert not data[int((span.end + 0.02) * RATE) : int((span.end + 0.4) * RATE)].any()


def test_correct_cues_have_no_deviation() -> None:
    assert deviations(SPANS, SPANS) == [0.0] * 4


def test_edge_within_a_clip_is_not_measured() -> None:
    shown = (
        Span(0.5, 1.0, "Go forward"),
        Span(1.0, 2.0, "ten meters."),
        Span(3.0, 5.0, "What time is it?"),
    )
    assert deviations(SPANS, shown) == [0.0] * 4


def test_cue_over_two_clips_is_measured_by_its_outer_edges() -> None:
    shown = (Span(0.0, 5.5, "Go forward ten meters. What time is it?"),)
    assert deviations(SPANS, shown) == [0.5, 0.5]


def test_misheard_words_move_no_edge() -> None:
    shown = (Span(0.6, 2.0, "Go forward then meters."), Span(4.0, 5.0, "Hot time is it?"))
    assert deviations(SPANS, shown) == pytest.approx([0.1, 0.0, 0.0])
    assert deviations(SPANS, ()) == []


def test_every_recording_is_sent_with_and_without_a_prompt(
    clips: list[Clip], tmp_path: Path
) -> None:
    chosen = tasks(recordings(clips, tmp_path))
    questions = {task.condition: task.make() for task in chosen}
    assert set(questions) == {
        f"{name}, {prompt}" for name in ("long", "shuffled") for prompt in cues.PROMPTS
    }
    assert questions["shuffled, no prompt"].fields == {}
    assert questions["shuffled, prompt"].fields["prompt"]


def test_table_counts_long_cues_and_wrong_edges() -> None:
    path = Path("none.wav")
    sets = {"shuffled": [Recording("s", path, "Go forward ten meters. What time is it?", SPANS)]}
    answer = Answer(
        node="abc",
        model="tiny.en",
        condition="shuffled, prompt",
        clip="s",
        text="Go forward ten meters. What time is it?",
        reference="Go forward ten meters. What time is it?",
        error="",
        cpu_seconds=1.5,
        passes=1,
        segments=[(0.5, 2.0, "Go forward ten meters."), (3.0, 15.0, "What time is it?")],
    )
    row = table([answer], sets).splitlines()[-1]
    assert row == (
        "| shuffled, prompt | abc | 2 | 12.0 | 50.0 % | 0.00 % (0 of 8) | 75 % of 4 | 1.5 |"
    )
