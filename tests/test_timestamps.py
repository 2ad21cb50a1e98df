"""app/decoding/timestamps.py: a second reading of text that was decoded without timestamps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.decoding.decoded import TIMESTAMP_SECONDS, Token
from app.decoding.raw_decoder import Logits
from app.decoding.timestamps import Vocabulary, place

START, FIRST = 90, 100
VOCABULARY = Vocabulary((START,), FIRST)
STEPS = 1501


class FakeDecoder:
    """A decoder that knows the time of each token. It expects a timestamp after the tokens in
    `sure`, and none after those in `never`. `begins` has the times at which speech continues."""

    def __init__(
        self,
        spoken: dict[int, float],
        sure: frozenset[int] = frozenset(),
        never: frozenset[int] = frozenset(),
        begins: dict[float, float] | None = None,
    ) -> None:
        self._spoken = spoken
        self._sure = sure
        self._never = never
        self._begins = begins or {}
        self.fed: list[int] = []
        self.feeds = 0

    @property
    def past(self) -> int:
        return len(self.fed)

    def rewind(self, past: int) -> None:
        assert past <= len(self.fed)
        del self.fed[past:]

    def feed(self, tokens: Sequence[int]) -> Logits:
        assert tokens
        self.fed += tokens
        self.feeds += 1
        last = self.fed[-1]
        at = self._spoken.get(last, 0.0)
        if last >= FIRST:
            at = round((last - FIRST) * TIMESTAMP_SECONDS, 2)
            at = self._begins.get(at, at)
        logits = np.full(FIRST + STEPS, -20.0, np.float32)
        logits[FIRST + round(at / TIMESTAMP_SECONDS)] = (
            5.0 if last in self._sure else -8.0 if last in self._never else -3.0
        )
        logits[1] = 0.0
        return logits


def tokens_of(text: str) -> tuple[Token, ...]:
    """One token for each word, numbered from 1."""
    return tuple(
        Token(number, (" " + word).encode(), -0.1) for number, word in enumerate(text.split(), 1)
    )


def shown(tokens: Sequence[Token]) -> str:
    return "".join(
        token.text.decode() if token.at is None else f"<{token.at:.1f}>" for token in tokens
    )


def test_timestamps_are_placed_between_sentences() -> None:
    decoder = FakeDecoder({START: 0.2, 2: 2.0, 4: 5.0})
    placed = place(tokens_of("one two. three four."), 6.0, "en", VOCABULARY, decoder)
    assert shown(placed) == "<0.2> one two.<2.0><2.0> three four.<5.0>"


def test_text_is_not_changed() -> None:
    tokens = tokens_of("one, two. three four five; six")
    placed = place(tokens, 30.0, "en", VOCABULARY, FakeDecoder({2: 9.0, 5: 20.0, 6: 22.0}))
    assert tuple(token for token in placed if token.at is None) == tokens


def test_existing_timestamps_are_kept() -> None:
    one, two = tokens_of("one two.")
    stamp = Token(FIRST + 50, at=1.0)
    decoder = FakeDecoder({2: 3.0})
    placed = place((Token(FIRST, at=0.0), one, stamp, stamp, two), 6.0, "en", VOCABULARY, decoder)
    assert shown(placed) == "<0.0> one<1.0><1.0> two.<3.0>"


def test_only_a_long_clause_ends_a_segment() -> None:
    text = f"one, {'x' * 40}, {'y' * 20}."
    short = place(tokens_of(text), 9.0, "en", VOCABULARY, FakeDecoder({2: 3.0, 3: 6.0}))
    long = place(tokens_of(text), 9.0, "en", VOCABULARY, FakeDecoder({2: 4.5, 3: 6.0}))
    assert shown(short).count("<") == 2
    assert f"<4.5><4.5> {'y' * 20}.<6.0>" in shown(long)


def test_short_clause_ends_a_segment_if_the_model_expects_a_timestamp() -> None:
    text = f"one, {'x' * 40}, {'y' * 20}."
    decoder = FakeDecoder({2: 3.0, 3: 6.0}, sure=frozenset({2}))
    placed = place(tokens_of(text), 9.0, "en", VOCABULARY, decoder)
    assert f"<3.0><3.0> {'y' * 20}.<6.0>" in shown(placed)


def test_abbreviation_does_not_end_a_sentence() -> None:
    tokens = tokens_of("and Mr. Dashwood had then leisure to consider it.")
    decoder = FakeDecoder({2: 3.0, 9: 5.0}, never=frozenset({2}))
    assert shown(place(tokens, 6.0, "en", VOCABULARY, decoder)).count("<") == 2


def test_short_sentence_ends_a_segment_only_before_a_gap() -> None:
    tokens = tokens_of("no. six spoons of fresh snow.")
    spoken = {1: 0.6, 6: 7.0}
    near = FakeDecoder(spoken, frozenset({1}))
    far = FakeDecoder(spoken, frozenset({1}), begins={0.6: 5.0})
    assert shown(place(tokens, 8.0, "en", VOCABULARY, near)).count("<") == 2
    assert near.fed.count(FIRST + 30) == 0
    placed = place(tokens, 8.0, "en", VOCABULARY, far)
    assert shown(placed) == "<0.0> no.<0.6><5.0> six spoons of fresh snow.<7.0>"


def test_timestamp_leaves_time_for_the_text_on_both_sides() -> None:
    text = "one two. " + "three four five six seven eight. " * 4
    decoder = FakeDecoder({2: 9.9, 26: 9.9})
    placed = place(tokens_of(text.strip()), 10.0, "en", VOCABULARY, decoder)
    assert [token.at for token in placed if token.at is not None] == [0.0, 9.9]


def test_text_without_punctuation_is_divided_between_words() -> None:
    text = " ".join(["wordword"] * 40)
    decoder = FakeDecoder({number: number * 0.5 for number in range(1, 41)})
    stamps = [
        token.at
        for token in place(tokens_of(text), 20.0, "en", VOCABULARY, decoder)
        if token.at is not None
    ]
    lasts = [end - start for start, end in zip(stamps[::2], stamps[1::2], strict=True)]
    assert max(lasts) < 10.0
    assert len(lasts) >= 2


def test_decimal_point_does_not_end_a_sentence() -> None:
    tokens = (Token(1, b" 2."), Token(2, b"5"), Token(3, b" ohms."))
    decoder = FakeDecoder({1: 2.0, 3: 4.0})
    assert shown(place(tokens, 5.0, "en", VOCABULARY, decoder)) == "<0.0> 2.5 ohms.<4.0>"


def test_times_rise_within_the_window() -> None:
    decoder = FakeDecoder({2: 3.0, 4: 1.0, 6: 29.0})
    placed = place(tokens_of("a b. c d. e f."), 10.0, "en", VOCABULARY, decoder)
    stamps = [token.at for token in placed if token.at is not None]
    assert stamps == sorted(stamps)
    assert stamps[-1] <= 10.0


def test_short_text_begins_at_its_first_spoken_word() -> None:
    decoder = FakeDecoder({1: 20.6, 4: 22.0, 5: 23.0})
    placed = place(tokens_of("please enter your password. bye"), 29.0, "en", VOCABULARY, decoder)
    assert placed[0].at is not None
    assert 19.5 < placed[0].at < 20.6
    assert [token.at for token in placed[-4:]] == [22.0, 22.0, None, 23.0]
    # The decoder has read all of the text, once.
    assert [number for number in decoder.fed if number < START] == [1, 2, 3, 4, 5]


def test_no_text_gives_no_timestamps() -> None:
    assert place((), 5.0, "en", VOCABULARY, FakeDecoder({})) == ()


def test_japanese_is_divided_after_its_full_stop() -> None:
    tokens = (Token(1, "\u5ba2\u89b3".encode()), Token(2, "\u3002".encode()), Token(3, b"\xe7"))
    decoder = FakeDecoder({2: 3.0, 3: 5.0})
    assert "<3.0><3.0>" in "".join(
        f"<{token.at:.1f}>" if token.at is not None else "x"
        for token in place(tokens, 6.0, "ja", VOCABULARY, decoder)
    )
