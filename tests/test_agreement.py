"""The part of a growing text that will not change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.decoding.agreement import Agreement, words_of


def shown(agreement: Agreement, text: str, language: str = "en") -> tuple[str, str]:
    rest = agreement.update(words_of(text, language))
    return agreement.stable, rest


def test_two_results_agree_on_their_common_beginning() -> None:
    agreement = Agreement()
    assert shown(agreement, "turn on") == ("", "turn on")
    assert shown(agreement, "turn on the fight") == ("turn on", " the fight")
    assert shown(agreement, "turn on the light in") == ("turn on the", " light in")
    assert shown(agreement, "turn on the light in here") == ("turn on the light in", " here")


def test_case_and_punctuation_do_not_count() -> None:
    agreement = Agreement()
    shown(agreement, "Hello. world")
    assert shown(agreement, "hello, World and")[0] == "hello, World"


def test_stable_text_does_not_change_with_a_later_result() -> None:
    agreement = Agreement()
    shown(agreement, "I see the sea")
    shown(agreement, "I see the sea.")
    assert shown(agreement, "Icy the sea shore") == ("I see the sea.", "")
    assert shown(agreement, "Icy the sea shore") == ("I see the sea.", "")


def test_empty_results_agree_on_nothing() -> None:
    agreement = Agreement()
    assert shown(agreement, "") == ("", "")
    assert shown(agreement, "yes") == ("", "yes")
    assert shown(agreement, "") == ("", "")


def test_languages_without_spaces_agree_on_characters() -> None:
    agreement = Agreement()
    shown(agreement, "今日は良い", "ja")
    assert shown(agreement, "今日は天気", "ja") == ("今日は", "天気")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_words_are_the_text(language: str) -> None:
    assert "".join(words_of("a bc, d.", language)) == "a bc, d."


@given(st.lists(st.lists(st.sampled_from(["a", "b", "B.", "c"]), max_size=6), max_size=8))
def test_stable_text_only_grows(results: list[list[str]]) -> None:
    agreement, before = Agreement(), ""
    for words in results:
        stable, _ = shown(agreement, " ".join(words))
        assert stable.startswith(before)
        before = stable
