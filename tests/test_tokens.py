"""Segments and words from synthetic tokens, without an engine."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.decoding.tokens import SegmentBuilder
from app.messages import Segment

P = math.log(0.5)


def built(
    *tokens: object, seconds: float = 10.0, language: str = "en", words: bool = False
) -> list:
    """The segments of tokens: a float is a timestamp, a text a token; a tuple is a text and when
    the attention moved on from it."""
    builder = SegmentBuilder(seconds, language, words)
    for token in tokens:
        if isinstance(token, float):
            builder.timestamp(token)
        elif isinstance(token, tuple):
            text, moved = token
            builder.token(text if isinstance(text, bytes) else text.encode(), P, moved)
        else:
            assert isinstance(token, (str, bytes))
            builder.token(token if isinstance(token, bytes) else token.encode(), P, 0.0)
    return list(builder.finish())


def spans(segments: list[Segment]) -> list[tuple[float, float, str]]:
    return [(segment.start, segment.end, segment.text) for segment in segments]


def words_of(*tokens: object, seconds: float = 10.0, language: str = "en") -> list:
    """The time at which the attention leaves each word, and its text."""
    segments = built(*tokens, seconds=seconds, language=language, words=True)
    words = [word for segment in segments for word in segment.words]
    assert all(word.start == word.end for word in words)
    return [(word.end, word.text) for word in words]


# Segments.


def test_timestamps_limit_the_segments() -> None:
    segments = built(0.5, " One", " two.", 2.0, 3.0, " Three.", 4.0)
    assert spans(segments) == [(0.5, 2.0, "One two."), (3.0, 4.0, "Three.")]


def test_single_timestamp_ends_one_segment_and_begins_the_next() -> None:
    assert spans(built(0.0, " One.", 2.0, " Two.", 4.0)) == [(0.0, 2.0, "One."), (2.0, 4.0, "Two.")]


def test_segment_without_timestamps_is_the_window() -> None:
    assert spans(built(" One", " two.", seconds=4.0)) == [(0.0, 4.0, "One two.")]


def test_segment_without_an_end_ends_with_the_window() -> None:
    assert spans(built(1.0, " One.", seconds=4.0)) == [(1.0, 4.0, "One.")]


def test_short_text_does_not_last_to_the_end_of_a_long_window() -> None:
    """The decoder stopped early, so the following audio must be decoded again."""
    ((start, end, text),) = spans(built(1.0, " Go forward."))
    assert (start, text) == (1.0, "Go forward.")
    assert 1.5 < end < 4.0
    assert spans(built(1.0, " So much is said that it takes all the time there is."))[0][1] == 10.0


def test_silence_has_no_segments() -> None:
    assert built() == []
    assert built(0.0, 10.0) == []
    assert built(0.0, " ", "\n", 10.0) == []


def test_padding_is_not_part_of_the_audio() -> None:
    # 0.6 s padded to 1 s: the decoder's timestamps know only the padded window.
    assert spans(built(0.0, " Yes.", 1.0, seconds=0.6)) == [(0.0, 0.6, "Yes.")]
    assert spans(built(0.8, " Yes.", 1.0, seconds=0.6)) == [(0.6, 0.6, "Yes.")]


def test_falling_timestamp_makes_no_negative_segment() -> None:
    assert spans(built(3.0, " One.", 1.0)) == [(3.0, 3.0, "One.")]


def test_character_may_span_several_tokens() -> None:
    assert spans(built(0.0, " K", b"\xc3", b"\xb6", "ln", 1.0)) == [(0.0, 1.0, "Köln")]


def test_half_a_character_is_replaced_and_stays_in_its_segment() -> None:
    segments = built(0.0, " K", b"\xc3", 1.0, " B", 2.0)
    assert spans(segments) == [(0.0, 1.0, "K\ufffd"), (1.0, 2.0, "B")]


def test_confidence_is_the_geometric_mean_of_each_segment() -> None:
    builder = SegmentBuilder(4.0, "en", with_words=False)
    for text, p in ((" a", 0.9), (" b", 0.4)):
        builder.token(text.encode(), math.log(p), 0.0)
    builder.timestamp(2.0)
    builder.token(b" c", math.log(0.25), 0.0)
    first, second = builder.finish()
    assert first.confidence == pytest.approx(0.6)
    assert second.confidence == pytest.approx(0.25)
    assert builder.logprobs == pytest.approx([math.log(p) for p in (0.9, 0.4, 0.25)])
    assert builder.count == 4


def test_words_are_made_only_if_requested() -> None:
    (segment,) = built(" One")
    assert segment.words is None
    assert built(words=True) == []


# Words.


def test_space_begins_a_word() -> None:
    tokens = [(" Tran", 0.4), ("scribe", 0.9), (" it", 1.2), (".", 1.3)]
    assert words_of(*tokens, 2.0) == [(0.9, "Transcribe"), (1.3, "it.")]


def test_first_word_needs_no_space() -> None:
    assert words_of(("Yes", 0.4), (" no", 0.9)) == [(0.4, "Yes"), (0.9, "no")]


def test_segment_begins_a_new_word() -> None:
    tokens = (0.0, (" Out", 1.0), 1.0, ("side", 2.0), 2.0)
    assert words_of(*tokens) == [(1.0, "Out"), (2.0, "side")]


@pytest.mark.parametrize("language", ["zh", "ja", "th", "lo", "my", "yue"])
def test_each_token_of_an_unspaced_script_is_a_word(language: str) -> None:
    tokens = [("知識", 0.5), ("が", 0.8)]
    assert words_of(*tokens, language=language) == [(0.5, "知識"), (0.8, "が")]
    assert words_of(*tokens, language="ko") == [(0.8, "知識が")]


def test_word_of_an_unspaced_script_is_a_whole_character() -> None:
    first, second, third = (bytes([byte]) for byte in "識".encode())
    tokens = [(first, 0.1), (second, 0.2), (third, 0.3), ("が", 0.5)]
    assert words_of(*tokens, language="ja") == [(0.3, "識"), (0.5, "が")]


def test_word_ends_with_the_latest_of_its_tokens() -> None:
    assert words_of((" One", 0.9), ("s", 0.4)) == [(0.9, "Ones")]


def test_confidence_of_a_word_is_that_of_its_tokens() -> None:
    builder = SegmentBuilder(4.0, "en", with_words=True)
    for text, p in ((b" One", 0.9), (b"s", 0.4), (b" b", 0.25)):
        builder.token(text, math.log(p), 0.0)
    (segment,) = builder.finish()
    assert segment.words is not None
    assert [word.confidence for word in segment.words] == pytest.approx([0.6, 0.25])


TIMES = st.floats(0, 40)
TOKENS = st.one_of(TIMES, st.tuples(st.binary(max_size=4) | st.just(b" a"), TIMES))


@given(st.lists(TOKENS, max_size=30), st.floats(0, 30), st.sampled_from(["en", "ja"]))
def test_any_tokens_give_valid_times(tokens: list, seconds: float, language: str) -> None:
    segments = built(*tokens, seconds=seconds, language=language, words=True)
    for segment in segments:
        assert 0 <= segment.start <= segment.end <= seconds
        assert segment.text == segment.text.strip() != ""
        for word in segment.words:
            assert word.text == word.text.strip() != ""
