"""A repetition in the audio is kept; a loop is cut or decoded again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import hypothesis_of

from app.audio.samples import SAMPLE_RATE
from app.decoding.audio_evidence import AudioEvidence
from app.decoding.decoded import Decoded, Token
from app.decoding.faults import FASTEST, cut, judge
from app.decoding.hypothesis import Hypothesis
from app.messages import Segment, Word

_RANDOM = np.random.default_rng(1)


def noise(seconds: float) -> np.ndarray:
    """Noise of constant loudness without repetition."""
    count = int(seconds * SAMPLE_RATE)
    steps = np.repeat(_RANDOM.uniform(0.05, 0.95, count // 1_600 + 1), 1_600)[:count]
    carrier = np.sin(np.cumsum(np.pi * steps)) + _RANDOM.normal(0, 0.05, count)
    return (0.1 * carrier).astype(np.float32)


ONCE = AudioEvidence(noise(2.0))
TWICE = AudioEvidence(np.tile(noise(2.0), 2))
THRICE = AudioEvidence(np.tile(noise(2.0), 3))
PHRASE = "By a similar process, they printed"


def spoken(text: str, limited: bool = False) -> Hypothesis:
    return replace(hypothesis_of(text, 4.0), limited=limited)


def test_repetition_in_the_audio_is_kept() -> None:
    for count, sound in ((2, TWICE), (3, THRICE)):
        text = " ".join([f"{PHRASE}."] * count)
        assert judge(spoken(text), 4.0, True, "", sound) == (spoken(text), None)


def test_compressible_repetition_is_kept_at_the_full_context() -> None:
    text = " ".join(["Turn on the living room lamp in the hall."] * 3)
    assert judge(spoken(text), 6.0, False, "", THRICE)[1] is None
    assert judge(spoken(" ".join([text] * 3)), 6.0, False, "", ONCE)[1] == "repetition"


def test_loop_over_audio_without_repetition_is_a_fault() -> None:
    text = "Go forward ten meters. Go forward ten meters."
    assert judge(spoken(text), 2.0, True, "", ONCE)[1] == "repetition"


@pytest.mark.parametrize(("sound", "count"), [(ONCE, 1), (TWICE, 2), (THRICE, 3)])
def test_loop_at_the_token_limit_is_cut_to_the_audio(sound: AudioEvidence, count: int) -> None:
    text = " ".join([f"{PHRASE}."] * 6 + ["By a"])
    kept, reason = judge(spoken(text, limited=True), 4.0, True, "", sound)
    assert (kept.text, reason) == (" ".join([f"{PHRASE}."] * count), None)
    assert not kept.limited


def test_single_extra_repetition_is_cut() -> None:
    kept, reason = judge(spoken("Firefox Firefox Firefox"), 4.0, True, "", TWICE)
    assert (kept.text, reason) == ("Firefox Firefox", None)
    assert judge(spoken("No, no, no."), 4.0, True, "", ONCE)[0].text == "No, no, no."


def test_loop_too_fast_for_the_audio_is_cut() -> None:
    text = f"{PHRASE}. {PHRASE}!"
    assert len(text) > FASTEST * ONCE.loud_seconds
    kept, reason = judge(spoken(text), 2.0, True, "", ONCE)
    assert (kept.text, reason) == (f"{PHRASE}.", None)


def test_loop_is_decoded_again_if_the_rest_repeats_itself_too() -> None:
    text = "First, second, third, third, third, first, second, third" + ", third" * 12
    shorter = cut(spoken(text, limited=True), 1)
    assert shorter is not None
    assert judge(spoken(text, limited=True), 2.7, True, "", ONCE)[1] == "limit"


def test_loop_is_not_cut_below_the_copies_in_the_audio() -> None:
    loop = spoken("Goodbye. " * 9, limited=True)
    assert judge(loop, 4.0, True, "", ONCE)[1] == "limit"


def test_text_too_long_for_the_audio_is_a_fault() -> None:
    text = "Weasels have eaten our phone system. Wesils have eed nour phone sistem."
    assert judge(spoken(text), 2.0, True, "names", ONCE)[1] == "too fast"


def test_half_of_a_repetition_is_a_fault() -> None:
    assert judge(spoken("Hey computer."), 4.0, True, "", TWICE)[1] == "lost"
    assert judge(spoken("Hey computer."), 4.0, True, "", ONCE)[1] is None
    assert judge(spoken("Hey computer. A computer."), 4.0, True, "", TWICE)[1] is None


def test_single_word_for_a_sentence_under_a_prompt_is_a_fault() -> None:
    assert judge(spoken("A."), 4.0, True, "names", ONCE)[1] == "too slow"
    assert judge(spoken("A."), 4.0, True, "", ONCE)[1] is None


def test_other_faults_are_kept() -> None:
    guess = replace(spoken("perhaps it was"), logprob=-3.0)
    assert judge(guess, 4.0, True, "", ONCE)[1] == "improbable"
    assert judge(spoken(""), 4.0, True, "", ONCE)[1] == "empty"
    assert judge(spoken("..."), 4.0, True, "...", ONCE)[1] == "empty"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("and voltage. He began a confused complaint.", "echo"),
        ("Voltage. He began a confused complaint.", None),
        ("and he began. It was a confused complaint.", None),
        ("and voltage.", None),
    ],
)
def test_end_of_the_prompts_list_is_an_echo(text: str, reason: str | None) -> None:
    assert judge(spoken(text), 4.0, True, "valve, viscosity, voltage", ONCE)[1] == reason


def test_cut_keeps_times_and_tokens_of_the_rest() -> None:
    words = tuple(Word(at / 2, at / 2 + 0.5, text, 0.9) for at, text in enumerate("abcb"))
    first = Segment(0.0, 2.0, "a b c b", 0.9, words)
    second = Segment(2.0, 4.0, "c b c", 0.9, words[:3])
    tokens = [Token(1, f" {letter}".encode()) for letter in "abcbcbc"]
    whole = replace(
        spoken(""), segments=(first, second), decoded=Decoded(tuple(tokens)), limited=True
    )
    kept = cut(whole, 1)
    assert kept is not None
    assert [segment.text for segment in kept.segments] == ["a b c"]
    assert kept.segments[0].words == words[:3]
    assert b"".join(token.text for token in kept.decoded.tokens) == b" a b c"
    twice = cut(whole, 2)
    assert twice is not None
    assert twice.text == "a b c b c"


def test_text_without_repetition_at_its_end_is_not_cut() -> None:
    for text in ("", "one", "one two three", "no no no but yes"):
        assert cut(spoken(text), 1) is None
    assert cut(spoken("no no"), 2) is None
