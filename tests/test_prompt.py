"""The tokens of a prompt: whisper.cpp's splitting, the kept end, and the shares of both texts."""

from __future__ import annotations

import time

import pytest

from app.decoding.prompt import MOST_TOKENS, PromptEncoder, Tokenizer, share

VOCABULARY = [bytes([value]) for value in range(256)] + [
    *(b" the", b" Th", b"is", b" is", b" a", b"tion", b" na", b"na", b"'s", b"  ", b" 12"),
    *("ü".encode(), b" Gr", "日本".encode()),
]
WORDS = Tokenizer(VOCABULARY)
TIMES = 50_000
"""The number of the timestamp of 0 s in these tests."""


def text_of(tokens: tuple[int, ...]) -> str:
    return b"".join(VOCABULARY[token] for token in tokens).decode()


@pytest.mark.parametrize(
    "text",
    ["", " ", "This is the nation's 12", "Grüße, 日本日本!", "a\nb\n", "x  y", "\U0001f600"],
)
def test_tokens_hold_the_text(text: str) -> None:
    assert text_of(WORDS.tail(text, 1_000)) == text


def test_longest_matching_token_is_used() -> None:
    parts = [VOCABULARY[token] for token in WORDS.tail(" This is the nation's", 100)]
    assert parts == [b" Th", b"is", b" is", b" the", b" na", b"tion", b"'s"]


@pytest.mark.parametrize("most", [0, 1, 2, 5, 100])
def test_tail_equals_the_end_of_all_tokens(most: int) -> None:
    text = "This is the nation's 12 a is the Grüße"
    whole = WORDS.tail(text, 1_000)
    assert WORDS.tail(text, most) == whole[len(whole) - min(most, len(whole)) :]


@pytest.mark.parametrize("text", ["x" * 16_384, "日" * 5_461, " " * 16_384, "a, " * 5_461])
def test_longest_prompt_is_split_in_linear_time(text: str) -> None:
    began = time.process_time()
    assert len(WORDS.tail(text, 223)) == 223
    # whisper.cpp's own search took minutes on some of them, or ran out of stack.
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize(
    ("prompt", "carried", "kept"),
    [
        (10, 10, (10, 10)),
        (300, 0, (223, 0)),
        (0, 300, (0, 24)),
        (300, 300, (199, 24)),
        (300, 50, (199, 24)),
        (50, 300, (50, 24)),
    ],
)
def test_prompt_and_carried_text_share_the_tokens(
    prompt: int, carried: int, kept: tuple[int, int]
) -> None:
    tokens = share(WORDS, "p" * prompt, "c" * carried, MOST_TOKENS)
    text = text_of(tokens)
    # A space before the first word is a token, too.
    counts = text.count("p"), text.count("c")
    assert all(abs(count - share) <= 1 for count, share in zip(counts, kept, strict=True))
    assert len(tokens) <= MOST_TOKENS
    assert text.strip().endswith("c" if carried else "p")


def test_prompt_and_carried_text_keep_their_ends() -> None:
    names = " ".join(f"name{number}" for number in range(200))
    said = " ".join(f"said{number}" for number in range(200))
    text = text_of(share(WORDS, names, said))
    assert "name199 said0" not in text
    before, after = text.split("name199")
    assert before
    assert after.endswith("said199")


def encoder() -> PromptEncoder:
    return PromptEncoder(lambda token: VOCABULARY[token], len(VOCABULARY), TIMES)


def test_empty_prompt_has_no_tokens() -> None:
    assert encoder().encode(" ", "", 100) == []


def test_prompt_is_a_finished_segment() -> None:
    first, *text, last, next_ = encoder().encode("Names", "said", 100)
    assert text_of(tuple(text)) == " Names said"
    assert TIMES <= first < last == next_ <= TIMES + 1_500


def test_prompt_never_exceeds_its_limit() -> None:
    assert len(encoder().encode("x" * 500, "y" * 500, 25)) == 25


def test_token_of_the_last_number_counts_if_two_have_the_same_bytes() -> None:
    assert Tokenizer([b"a", b"b", b"a"]).tail("ab", 5) == (2, 1)
