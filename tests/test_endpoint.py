"""Endpoints of live audio from probabilities: beginnings, pauses, resumptions, cuts, extents."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.endpoint import (
    PAUSES,
    RESUMED_CHUNKS,
    TAIL,
    Began,
    Complete,
    Cut,
    Endpointer,
    Event,
    Extent,
    Pause,
    Resumed,
)
from app.audio.probe import ESTABLISHED_CHUNKS
from app.audio.samples import SAMPLE_RATE
from app.audio.vad import CHUNK
from app.live import LiveOptions

SPEECH, MURMUR, QUIET = 0.9, 0.4, 0.1
"""Above both thresholds, between them, below both."""

STREAM = LiveOptions()
COMMAND = LiveOptions(end_pause=None)


def chunks(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE / CHUNK)


def hear(
    endpointer: Endpointer, *stretches: tuple[float, float], level: float = 0.1
) -> list[Event]:
    """The events of stretches of (seconds, probability); quiet chunks have a hundredth of the
    level."""
    return [
        event
        for seconds, probability in stretches
        for _ in range(chunks(seconds))
        for event in endpointer.hear(probability, level if probability > 0.3 else level / 100)
    ]


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


def extents(events: list[Event]) -> list[Extent]:
    return [event.extent for event in events if isinstance(event, Complete | Cut)]


def test_silence_and_murmur_have_no_events() -> None:
    endpointer = Endpointer(STREAM, 0.5)
    assert hear(endpointer, (5, QUIET), (5, MURMUR)) == []
    assert endpointer.end() == []


def test_speech_is_established_by_successive_chunks() -> None:
    endpointer = Endpointer(COMMAND, 0.5)
    for _ in range(3):
        for _ in range(ESTABLISHED_CHUNKS - 1):
            assert endpointer.hear(SPEECH, 0.1) == []
        assert endpointer.hear(QUIET, 0.0) == []
    for _ in range(ESTABLISHED_CHUNKS - 1):
        assert endpointer.hear(SPEECH, 0.1) == []
    assert kinds(endpointer.hear(SPEECH, 0.1)) == [Began]


def test_utterance_has_a_lead_in_and_a_tail() -> None:
    endpointer = Endpointer(STREAM, 0.5)
    events = hear(endpointer, (2, QUIET), (1, SPEECH), (2, QUIET))
    assert kinds(events) == [Began, Pause, Complete]
    begin, end = chunks(2) * CHUNK, (chunks(2) + chunks(1)) * CHUNK
    assert extents(events) == [Extent(begin - SAMPLE_RATE // 2, end + TAIL, begin, end)]
    assert events[0] == Began(begin - SAMPLE_RATE // 2)


def test_lead_in_stops_at_the_utterance_before_and_at_the_beginning() -> None:
    endpointer = Endpointer(LiveOptions(end_pause=0.3, lead_in=2.0), 0.5)
    events = hear(endpointer, (0.5, QUIET), (1, SPEECH), (0.5, QUIET), (1, SPEECH), (1, QUIET))
    first, second = extents(events)
    assert first.start == 0
    assert second.start == first.end


def test_speech_continues_down_to_the_lower_threshold() -> None:
    endpointer = Endpointer(STREAM, 0.5)
    events = hear(endpointer, (1, SPEECH), (3, MURMUR), (1, QUIET))
    assert kinds(events) == [Began, Pause, Complete]
    assert extents(events)[0].speech_end == (chunks(1) + chunks(3)) * CHUNK


def test_murmur_after_a_pause_is_no_speech() -> None:
    endpointer = Endpointer(COMMAND, 0.5)
    events = hear(endpointer, (1, SPEECH), (0.4, QUIET), (3, MURMUR))
    assert kinds(events) == [Began, Pause]


def test_thresholds_follow_the_options_and_the_node() -> None:
    assert kinds(hear(Endpointer(STREAM, 0.3), (1, MURMUR))) == [Began]
    assert hear(Endpointer(STREAM, 0.5), (1, MURMUR)) == []
    assert hear(Endpointer(STREAM, 0.0), (1, MURMUR)) == []
    assert kinds(hear(Endpointer(STREAM, 0.0), (1, SPEECH))) == [Began]
    assert hear(Endpointer(LiveOptions(threshold=0.95), 0.1), (1, SPEECH)) == []


def test_a_click_in_a_pause_does_not_move_the_end() -> None:
    endpointer = Endpointer(COMMAND, 0.5)
    events = hear(endpointer, (1, SPEECH), (0.4, QUIET))
    for _ in range(RESUMED_CHUNKS - 1):
        assert endpointer.hear(SPEECH, 0.1) == []
    events += hear(endpointer, (0.4, QUIET))
    assert kinds(events) == [Began, Pause]
    assert isinstance(events[1], Pause)
    assert endpointer.extent == events[1].extent


def test_resumed_speech_moves_the_end() -> None:
    endpointer = Endpointer(COMMAND, 0.5)
    events = hear(endpointer, (1, SPEECH), (0.4, QUIET), (0.5, SPEECH), (0.5, QUIET))
    assert kinds(events) == [Began, Pause, Resumed, Pause]
    assert isinstance(events[3], Pause)
    assert events[3].extent.speech_end == (chunks(1) + chunks(0.4) + chunks(0.5)) * CHUNK
    assert endpointer.end() == [Complete(events[3].extent)]


def test_pauses_grow_with_resumptions_and_cease() -> None:
    endpointer = Endpointer(COMMAND, 0.5)
    hear(endpointer, (1, SPEECH))
    for step in PAUSES:
        quiet = 0
        while not (events := endpointer.hear(QUIET, 0.0)):
            quiet += CHUNK
        assert kinds(events) == [Pause]
        assert quiet < step <= quiet + CHUNK
        assert kinds(hear(endpointer, (0.2, SPEECH))) == [Resumed]
    assert hear(endpointer, (5, QUIET)) == []
    # A new utterance begins with short pauses again.
    assert kinds(endpointer.end()) == [Complete]
    assert kinds(hear(endpointer, (1, SPEECH), (0.3, QUIET))) == [Began, Pause]


def test_short_gaps_are_no_pauses() -> None:
    endpointer = Endpointer(STREAM, 0.5)
    events = hear(endpointer, *[(0.5, SPEECH), (0.2, QUIET)] * 10)
    assert kinds(events) == [Began]


def test_end_pause_completes() -> None:
    endpointer = Endpointer(LiveOptions(end_pause=1.0), 0.5)
    events = hear(endpointer, (1, SPEECH), (0.9, QUIET))
    assert kinds(events) == [Began, Pause]
    events = hear(endpointer, (0.2, QUIET))
    assert kinds(events) == [Complete]
    assert endpointer.extent is None


def test_the_end_of_the_audio_completes_the_utterance_there() -> None:
    endpointer = Endpointer(STREAM, 0.5)
    hear(endpointer, (1, SPEECH))
    endpointer.hear(QUIET, 0.0, 100)
    end = chunks(1) * CHUNK
    assert endpointer.end() == [Complete(Extent(0, end + 100, 0, end))]
    assert endpointer.end() == []


def test_audio_before_a_commit_is_not_in_the_next_utterance() -> None:
    endpointer = Endpointer(STREAM, 0.5)
    hear(endpointer, (1, SPEECH))
    committed = chunks(1) * CHUNK
    endpointer.end()
    events = hear(endpointer, (0.1, QUIET), (1, SPEECH))
    assert events == [Began(committed)]


def test_clear_drops_the_open_utterance() -> None:
    endpointer = Endpointer(STREAM, 0.5)
    hear(endpointer, (1, SPEECH))
    endpointer.clear()
    assert endpointer.extent is None
    assert hear(endpointer, (2, QUIET)) == []
    assert hear(endpointer, (1, SPEECH)) == [Began((chunks(1) + chunks(2)) * CHUNK - 8000)]


def test_new_options_wait_for_the_next_utterance() -> None:
    endpointer = Endpointer(LiveOptions(end_pause=0.5), 0.5)
    hear(endpointer, (1, SPEECH))
    endpointer.configure(LiveOptions(end_pause=None))
    assert kinds(hear(endpointer, (1, QUIET))) == [Pause, Complete]
    assert kinds(hear(endpointer, (1, SPEECH), (5, QUIET))) == [Began, Pause]
    endpointer.end()
    endpointer.configure(LiveOptions(end_pause=0.3))
    assert kinds(hear(endpointer, (1, SPEECH), (1, QUIET))) == [Began, Pause, Complete]


def test_long_speech_is_cut_in_the_first_short_pause_after_12_s() -> None:
    endpointer = Endpointer(COMMAND, 0.5)
    events = hear(endpointer, (11, SPEECH), (0.2, QUIET), (2, SPEECH), (0.1, QUIET), (1, SPEECH))
    assert kinds(events) == [Began]
    events = hear(endpointer, (0.2, QUIET), (1, SPEECH))
    assert kinds(events) == [Cut, Began]
    (extent,) = extents(events)
    assert extent.speech_end < extent.end < extent.speech_end + 0.2 * SAMPLE_RATE
    assert isinstance(events[1], Began)
    assert events[1].start >= extent.end


def test_speculation_survives_a_cut_in_the_same_pause() -> None:
    # The utterance reaches 12 s within a pause that was already reported.
    endpointer = Endpointer(COMMAND, 0.5)
    events = hear(endpointer, (11.6, SPEECH), (2, QUIET))
    assert kinds(events) == [Began, Pause, Cut]
    assert isinstance(events[1], Pause)
    assert extents(events) == [events[1].extent]
    assert endpointer.end() == []


def test_speech_without_a_pause_is_cut_at_its_quietest_place() -> None:
    endpointer = Endpointer(COMMAND, 0.5)
    events = hear(endpointer, (19, SPEECH))
    # A breath that the detector takes for speech.
    events += hear(endpointer, (0.4, MURMUR), level=0.001)
    events += hear(endpointer, (11, SPEECH))
    assert kinds(events) == [Began, Cut, Began]
    (extent,) = extents(events)
    assert 19 < extent.end / SAMPLE_RATE < 19.4
    assert events[2] == Began(extent.end)
    # Everything after the cut belongs to the next utterance.
    (rest,) = extents(endpointer.end())
    assert rest.start == extent.end
    assert rest.end == (chunks(19) + chunks(0.4) + chunks(11)) * CHUNK


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_uniform_speech_is_cut_at_30_s(level: float) -> None:
    endpointer = Endpointer(STREAM, 0.5)
    events = hear(endpointer, (100, SPEECH), level=level)
    events += endpointer.end()
    cuts = extents(events)
    assert all(18 * SAMPLE_RATE < cut.end - cut.start <= 30 * SAMPLE_RATE for cut in cuts[:-1])
    assert cuts[-1].end == chunks(100) * CHUNK
    for before, after in itertools.pairwise(cuts):
        assert before.end == after.start


PROBABILITIES = st.sampled_from([0.0, 0.2, 0.36, 0.49, 0.5, 0.7, 1.0])


@given(
    st.lists(st.tuples(st.integers(1, 500), PROBABILITIES), max_size=30),
    st.sampled_from([None, 0.1, 0.5, 2.0]),
    st.sampled_from([0.0, 0.5, 3.0]),
)
def test_events_of_any_audio_are_consistent(
    stretches: list[tuple[int, float]], end_pause: float | None, lead_in: float
) -> None:
    endpointer = Endpointer(LiveOptions(end_pause=end_pause, lead_in=lead_in), 0.5)
    position, floor, wasted = 0, 0, 0
    start: int | None = None
    hypothesis: Extent | None = None

    def check(events: list[Event]) -> None:
        nonlocal floor, wasted, start, hypothesis
        for event in events:
            match event:
                case Began():
                    assert start is None
                    assert floor <= event.start <= position
                    start, wasted = event.start, 0
                case Pause(extent):
                    assert start == extent.start
                    assert hypothesis is None
                    assert wasted < len(PAUSES)
                    assert extent.end == extent.speech_end + TAIL <= position
                    hypothesis = extent
                case Resumed():
                    assert hypothesis is not None
                    hypothesis = None
                    wasted += 1
                case Complete(extent) | Cut(extent):
                    assert start == extent.start
                    assert hypothesis in (None, extent)
                    assert extent.start <= extent.speech_start < extent.speech_end <= extent.end
                    assert extent.end <= min(position, extent.speech_end + TAIL)
                    assert extent.end - extent.start <= 30 * SAMPLE_RATE
                    floor, start, hypothesis = extent.end, None, None
        assert endpointer.keep_from >= floor
        open_from = endpointer.keep_from if start is None else start
        assert open_from == endpointer.keep_from
        assert position - open_from <= 30 * SAMPLE_RATE

    for count, probability in stretches:
        for _ in range(count):
            position += CHUNK
            check(endpointer.hear(probability, probability / 10))
    check(endpointer.end())
    assert start is None
