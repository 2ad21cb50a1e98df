"""The pure parts of the captions benchmark: erased words, lags, and the policy of the peer."""

from __future__ import annotations

import pytest
from benchmark.captions_figures import Caption, Lags, Shown, Speech
from benchmark.captions_peer import agreed

SPEECH = Speech(start=0.5, end=2.0, word_ends=(1.0, 1.5, 2.0), text="one two three")


def caption(*shown: Shown, final: str = "One two three.", final_at: float = 2.5) -> Caption:
    return Caption("a", SPEECH, shown, final, final_at)


def test_latencies_begin_with_the_speech_and_its_words() -> None:
    found = caption(Shown(1.2, "", " one"), Shown(1.8, "one", " too"), Shown(2.2, "one two"))
    assert found.first_words == pytest.approx(0.7)
    assert found.final_latency == pytest.approx(0.5)
    assert found.word_lags == pytest.approx([0.8, 0.7, 0.5])


def test_erased_words_are_those_that_others_replace() -> None:
    found = caption(Shown(1.2, "", "one too"), Shown(1.8, "one", " two"), Shown(2.2, "One, two"))
    assert (found.erased, found.erased_stable) == (1, 0)
    wrong = caption(Shown(1.8, "one to"), Shown(2.0, "one to three"))
    assert (wrong.erased, wrong.erased_stable) == (2, 2)
    assert caption(Shown(1.0, "one two three four")).erased == 1


def test_recording_without_words_has_no_first_words() -> None:
    assert caption(final="", final_at=3.0).first_words is None
    assert caption(final_at=3.0).first_words == pytest.approx(2.5)


def test_peer_agrees_on_the_common_beginning() -> None:
    assert agreed(["One,", "two"], ["one", "two", "three"]) == ["one", "two"]
    assert agreed(["one"], ["two"]) == []


def test_drift_compares_the_last_fifth_with_the_first() -> None:
    assert Lags("x", tuple(map(float, range(10))), 0.1).drift == pytest.approx(8.0)
