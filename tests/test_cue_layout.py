"""Cues of a requested size: divisions of the text, lines, times, scripts without spaces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.decoding.cue_layout import lay_out
from app.decoding.hypothesis import join
from app.decoding.text_breaks import Break, Piece, columns, pieces
from app.limits import CueLayout
from app.messages import Segment, Word

JFK = "And so my fellow Americans ask not what your country can do for you"
PRINTING = (
    "Printing, in the only sense with which we are at present concerned, differs from most if not "
    "from all the arts and crafts represented in the Exhibition."
)
JAPANESE = (
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u306b\u306f\u3001\u7a7a\u767d\u304c"
    "\u3042\u308a\u307e\u305b\u3093\u3002\u300c\u305d\u308c\u306f\u672c\u5f53\u300d"
    "\u3068\u5f7c\u5973\u306f\u8a00\u3044\u307e\u3057\u305f\u3002"
)
THAI = (
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e04\u0e23\u0e31\u0e1a \u0e27\u0e31\u0e19\u0e19\u0e35"
    "\u0e49\u0e40\u0e23\u0e32\u0e08\u0e30\u0e21\u0e32\u0e1e\u0e39\u0e14\u0e16\u0e36\u0e07\u0e40"
    "\u0e23\u0e37\u0e48\u0e2d\u0e07\u0e01\u0e32\u0e23\u0e40\u0e14\u0e34\u0e19\u0e17\u0e32\u0e07"
)
ARABIC = (
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643\u0645 \u0641\u064a \u0647\u0630\u0627 "
    "\u0627\u0644\u0628\u0631\u0646\u0627\u0645\u062c\u060c \u0627\u0644\u064a\u0648\u0645 "
    "\u0633\u0646\u062a\u062d\u062f\u062b \u0639\u0646 \u062a\u0627\u0631\u064a\u062e "
    "\u0627\u0644\u0645\u062f\u064a\u0646\u0629."
)


DEFAULT = CueLayout()


def evenly(segment: Segment, some: Sequence[Piece]) -> list[tuple[float, float]]:
    """Times of breaks by the share of characters."""
    total = sum(len(piece.text) for piece in some)
    times, taken = [], 0
    for piece in some[:-1]:
        taken += len(piece.text)
        at = segment.start + (segment.end - segment.start) * taken / total
        times.append((at, at))
    return times


def cues(
    text: str, seconds: float, layout: CueLayout = DEFAULT, **more: int
) -> tuple[Segment, ...]:
    return lay_out(Segment(0.0, seconds, text, 0.8), layout, evenly, **more)


def lines(found: Sequence[Segment]) -> list[tuple[str, ...]]:
    return [cue.lines or () for cue in found]


def bare(texts: Sequence[str]) -> str:
    return "".join("".join(text.split()) for text in texts)


# Cues that fit.


def test_segment_that_fits_stays_whole() -> None:
    (cue,) = cues("Hello there. How are you?", 6.9)
    assert (cue.start, cue.end, cue.text) == (0.0, 6.9, "Hello there. How are you?")
    assert cue.lines == ("Hello there. How are you?",)


def test_segment_that_fits_in_two_lines_gets_even_lines() -> None:
    (cue,) = cues(JFK, 7.0)
    assert cue.text == JFK
    assert cue.lines is not None
    assert " ".join(cue.lines) == JFK
    assert [len(line) for line in cue.lines] == [34, 32]


def test_line_ends_after_a_clause_rather_than_in_the_middle() -> None:
    (cue,) = cues("We are glad to be here, and we welcome you all.", 5.0)
    assert cue.lines == ("We are glad to be here,", "and we welcome you all.")


def test_times_are_not_asked_for_a_segment_that_fits() -> None:
    def fail(_segment: Segment, _some: Sequence[Piece]) -> list[tuple[float, float]]:
        raise AssertionError

    assert lay_out(Segment(0.0, 3.0, JFK, 0.8), CueLayout(), fail)


# Divisions.


def test_long_segment_is_divided_after_a_clause() -> None:
    first, second = cues(PRINTING, 8.0)
    assert first.text.endswith("concerned,")
    assert second.text.startswith("differs")
    assert first.end == second.start


def test_long_segment_is_divided_after_a_sentence_rather_than_a_clause() -> None:
    text = "One, two three four five six. Seven eight nine, ten."
    first, second = cues(text, 8.0)
    assert (first.text, second.text) == ("One, two three four five six.", "Seven eight nine, ten.")


def test_short_title_does_not_end_a_sentence() -> None:
    found = cues("We are glad to welcome the guest Mr. Quilter of the middle classes", 8.0)
    assert all(not cue.text.endswith("Mr.") for cue in found)


def test_division_takes_a_pause_where_no_mark_is() -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]

    def pause_after_three(_segment: Segment, some: Sequence[Piece]) -> list[tuple[float, float]]:
        return [(at + (at > 3), at + 0.9 * (at == 3) + (at > 3)) for at in range(1, len(some))]

    first, second = lay_out(
        Segment(0.0, 9.0, " ".join(words), 0.8), CueLayout(seconds=6.5), pause_after_three
    )
    assert (first.text, second.text) == ("one two three", "four five six seven eight")
    assert (first.end, second.start) == (3.0, 3.9)


def test_division_is_timed_by_the_words_where_there_are_some() -> None:
    texts = ["Alpha", "beta", "gamma.", "Delta", "epsilon", "zeta."]
    times = [(0.0, 1.0), (1.0, 2.0), (2.0, 3.5), (5.0, 6.0), (6.0, 7.0), (7.0, 9.0)]
    words = tuple(Word(*time, text, 0.9) for time, text in zip(times, texts, strict=True))
    segment = Segment(0.0, 9.0, " ".join(texts), 0.8, words)
    first, second = lay_out(segment, CueLayout(), evenly)
    assert (first.end, second.start) == (3.5, 5.0)
    assert first.words == words[:3]
    assert second.words == words[3:]


def test_words_of_several_characters_or_spaces_keep_their_cue() -> None:
    """A word of the engine may be a part of a piece, or several pieces."""
    text = "one two three four five six"
    words = tuple(
        Word(at, at + 1.0, part, 0.9)
        for at, part in enumerate(["one two", "thr", "ee", "four five", "six"])
    )
    found = lay_out(Segment(0.0, 5.0, text, 0.8, words), CueLayout(10, 1, 7.0), evenly)
    assert bare([cue.text for cue in found]) == bare([text])
    kept = [word.text for cue in found for word in cue.words or ()]
    assert kept == [word.text for word in words]
    assert all(one.end <= two.start for one, two in pairwise(found))


def test_cue_of_one_long_word_ends_early() -> None:
    (cue,) = cues("Goodbye.", 12.0)
    assert (cue.start, cue.end) == (0.0, 7.0)


def test_short_maximum_divides_by_time_alone() -> None:
    found = cues("one two three four", 4.0, CueLayout(seconds=1.5))
    assert all(cue.end - cue.start <= 1.5 for cue in found)
    assert [cue.text for cue in found] == ["one", "two", "three", "four"] or len(found) == 3


def test_empty_segment_is_unchanged() -> None:
    assert cues("", 9.0) == (Segment(0.0, 9.0, "", 0.8),)


def test_further_fields_of_a_segment_are_kept() -> None:
    segment = Segment(1.0, 10.0, PRINTING, 0.7, language="en", channel=2)
    for cue in lay_out(segment, CueLayout(), evenly):
        assert (cue.confidence, cue.language, cue.channel, cue.words) == (0.7, "en", 2, None)


def test_first_line_leaves_room_for_a_label() -> None:
    for cue in cues(PRINTING, 8.0, CueLayout(30, 2, 7.0), label_columns=11):
        assert cue.lines is not None
        assert columns(cue.lines[0]) <= 19
        assert all(columns(line) <= 30 for line in cue.lines)


# Words that are longer than a line.


def test_long_address_is_divided_after_its_marks() -> None:
    address = "https://example.com/a/very/long/path/with-many-parts/and_more?query=1"
    found = cues(f"See {address} now.", 6.0)
    shown = [line for cue in lines(found) for line in cue]
    assert bare(shown) == bare([f"See {address} now."])
    assert all(columns(line) <= 42 for line in shown)
    assert any(line.endswith("with-") for line in shown)


def test_long_word_is_divided_into_full_lines() -> None:
    found = cues("x" * 100, 6.0, CueLayout(42, 2, 7.0))
    assert [line for cue in lines(found) for line in cue] == ["x" * 42, "x" * 42, "x" * 16]


# Scripts.


def test_wide_characters_take_two_columns() -> None:
    assert columns("\u65e5\u672c a") == 6
    assert columns("e\u0301\u200b") == 1


def test_japanese_is_divided_after_its_marks() -> None:
    found = cues(JAPANESE, 8.0)
    assert len(found) > 1
    assert join(found) == JAPANESE
    shown = [line for cue in lines(found) for line in cue]
    assert all(columns(line) <= 42 for line in shown)
    assert found[0].text.endswith("\u3002")


@pytest.mark.parametrize("width", [4, 6, 10])
def test_japanese_line_begins_with_no_closing_mark(width: int) -> None:
    shown = [line for cue in lines(cues(JAPANESE, 8.0, CueLayout(width, 2, 9.0))) for line in cue]
    assert bare(shown) == JAPANESE
    assert all(line[0] not in "\u3001\u3002\u300d" for line in shown)
    assert all(line[-1] != "\u300c" for line in shown)


def test_thai_keeps_its_marks_with_their_consonants() -> None:
    shown = [line for cue in lines(cues(THAI, 8.0, CueLayout(12, 2, 9.0))) for line in cue]
    assert bare(shown) == bare([THAI])
    for line in shown:
        assert columns(line) <= 12
        assert not "\u0e30" <= line[0] <= "\u0e3a"
        assert not "\u0e47" <= line[0] <= "\u0e4e"
        assert not "\u0e40" <= line[-1] <= "\u0e44"


def test_korean_is_divided_at_its_spaces() -> None:
    text = "\uc624\ub298\uc740 \ub0a0\uc528\uac00 \uc544\uc8fc \uc88b\uc2b5\ub2c8\ub2e4"
    shown = [line for cue in lines(cues(text, 5.0, CueLayout(14, 1, 9.0))) for line in cue]
    assert " ".join(shown) == text


def test_arabic_keeps_the_order_of_its_words() -> None:
    found = cues(ARABIC, 8.0)
    assert join(found) == ARABIC
    assert found[0].text.endswith("\u060c")


def test_mixed_text_keeps_foreign_words_whole() -> None:
    text = "\u65b0\u3057\u3044OpenStreetMap\u306e\u5730\u56f3"
    assert "OpenStreetMap" in [piece.text for piece in pieces(text, 42)]


def test_spaces_of_a_script_without_spaces_count_as_clauses() -> None:
    first, *_ = (piece for piece in pieces(THAI, 42) if piece.after is not Break.WORD)
    assert first.after is Break.CLAUSE


def test_mark_without_a_letter_fills_no_line() -> None:
    assert lines(cues("\u0301\u3002", 1.0, CueLayout(1, 1, 7.0))) == [("\u0301",), ("\u3002",)]


# All texts.

ALPHABET = "ab ,.?!-'\u2014\u00e9\u0301\u65e5\u3002\u300c\u300d\u30fc\u0e40\u0e01\u0e34\u05d0"
LAYOUTS = st.builds(
    CueLayout, st.integers(1, 60), st.integers(1, 4), st.floats(0.5, 10, allow_nan=False)
)


@settings(max_examples=100)
@given(st.text(ALPHABET, max_size=120), st.floats(0, 30), LAYOUTS, st.integers(0, 15))
def test_any_text_fits_its_layout(text: str, seconds: float, layout: CueLayout, label: int) -> None:
    found = lay_out(Segment(5.0, 5.0 + seconds, text, 0.8), layout, evenly, label)
    assert bare([cue.text for cue in found]) == bare([text])
    assert join(found) == " ".join(text.split()) or not text.split()
    assert found[0].start == 5.0
    assert all(5.0 <= cue.start <= cue.end <= 5.0 + seconds for cue in found)
    assert all(one.end <= two.start for one, two in pairwise(found))
    if not text.split():
        return
    shown = [line for cue in found for line in cue.lines or ()]
    assert bare(shown) == bare([text])
    assert all(len(cue.lines or ()) <= layout.lines for cue in found)
    # A cluster of characters that belong together can be wider than the narrowest lines.
    assert all(columns(line) <= max(layout.width, 2) for line in shown)
    assert all(cue.end - cue.start <= layout.seconds + 1e-6 for cue in found)


def test_whole_words_may_be_wider_than_a_line() -> None:
    layout = CueLayout(1, 1, 3600.0, whole_words=True)
    found = lay_out(Segment(0.0, 3.0, "one three seventeen", 0.8), layout, evenly)
    assert [cue.text for cue in found] == ["one", "three", "seventeen"]
    assert [cue.lines for cue in found] == [("one",), ("three",), ("seventeen",)]
    wide = CueLayout(9, 1, 3600.0, whole_words=True)
    found = lay_out(Segment(0.0, 3.0, "one three seventeenth", 0.8), wide, evenly)
    assert [cue.text for cue in found] == ["one three", "seventeenth"]
