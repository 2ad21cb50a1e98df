"""The order in which a window is tried, and which result is taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes import hypothesis_of

from app.decoding.attempts import Attempt, attempts, best
from app.decoding.context import FULL
from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions

GOOD = hypothesis_of("a sound sentence", 3.0)
LOOP = hypothesis_of("again " * 60, 3.0)
GUESS = hypothesis_of("perhaps", 3.0, logprob=-3.0)


def ways(seconds: float = 3.0, limit: int = 220, **options: object) -> list[Attempt]:
    return list(attempts(seconds, DecodeOptions(**options), "auto", limit))  # type: ignore[arg-type]


def say(*hypotheses: Hypothesis) -> tuple[Callable[[Attempt], Hypothesis], list[Attempt]]:
    """A decoder that says these in turn, and what it was asked for."""
    following = iter(hypotheses)
    asked: list[Attempt] = []

    def decode(attempt: Attempt) -> Hypothesis:
        asked.append(attempt)
        return next(following)

    return decode, asked


def test_greedy_at_a_rising_context_then_sampling() -> None:
    tried = ways()
    contexts = [attempt.context for attempt in tried]
    assert contexts == sorted(contexts)
    assert contexts[-2:] == [FULL, FULL]
    assert [attempt.temperature for attempt in tried] == [0.0] * (len(tried) - 1) + [0.2]
    assert [attempt.rising for attempt in tried] == [False] * (len(tried) - 1) + [True]


def test_only_reduced_decodes_have_a_limit_of_their_own() -> None:
    for attempt in ways(limit=30):
        assert attempt.most_tokens == (30 if attempt.context < FULL else 0)


def test_the_prompt_goes_before_the_temperature_rises() -> None:
    tried = ways(prompt="what was said")
    assert [bool(attempt.prompt) for attempt in tried] == [True] * (len(tried) - 2) + [False] * 2
    assert tried[-2] == Attempt(FULL, "")


@pytest.mark.parametrize("temperature", [0.1, 0.4, 0.9])
def test_a_temperature_is_where_it_starts(temperature: float) -> None:
    tried = ways(temperature=temperature)
    assert {attempt.temperature for attempt in tried[:-1]} == {temperature}
    assert temperature < tried[-1].temperature <= 1.0
    assert tried[-1].rising


def test_there_is_nothing_above_the_highest_temperature() -> None:
    tried = ways(temperature=1.0, prompt="what was said")
    assert {attempt.temperature for attempt in tried} == {1.0}
    assert len(tried) == len(set(tried))


def test_the_first_sound_result_is_taken() -> None:
    decode, asked = say(LOOP, GOOD)
    taken = best(ways(), 3.0, decode)
    assert (taken.text, taken.passes) == (GOOD.text, 2)
    assert asked == ways()[:2]


def test_of_faulty_results_a_guess_beats_a_loop() -> None:
    tried = ways()
    decode, asked = say(GUESS, *[LOOP] * (len(tried) - 1))
    taken = best(tried, 3.0, decode)
    assert (taken.text, taken.passes) == (GUESS.text, len(tried))
    assert asked == tried


def test_of_loops_the_last_is_taken() -> None:
    tried = ways()
    loops = [hypothesis_of(f"{number} again " * 40, 3.0) for number in range(len(tried))]
    decode, _ = say(*loops)
    assert best(tried, 3.0, decode).text == loops[-1].text


def test_where_only_what_is_sure_is_wanted_the_cheap_rungs_are_all() -> None:
    tried = ways(only_sure=True, prompt="what was said")
    assert [attempt.context for attempt in tried] == [w.context for w in ways()][:2]
    assert {(attempt.temperature, attempt.prompt) for attempt in tried} == {(0.0, "what was said")}
    assert [attempt.context for attempt in ways(20.0, only_sure=True)] == [FULL]


def test_where_only_what_is_sure_is_wanted_a_guess_is_nothing() -> None:
    decode, asked = say(GUESS, LOOP)
    found = best(ways(only_sure=True), 3.0, decode, only_sure=True)
    assert (found.text, found.passes, found.end) == ("", 2, 3.0)
    assert len(asked) == 2
    decode, _ = say(GUESS, GOOD)
    assert best(ways(only_sure=True), 3.0, decode, only_sure=True).text == GOOD.text
