"""The order of the attempts to decode a window, and the choice of the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fakes import hypothesis_of

from app.audio.samples import SAMPLE_RATE
from app.decoding.attempts import BOUNDED_SECONDS, Attempt, attempts, first_acceptable
from app.decoding.audio_evidence import AudioEvidence
from app.decoding.context import FULL, REDUCED_PROMPT_TOKENS
from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions

GOOD = hypothesis_of("a sound sentence", 5.0)
LOOP = hypothesis_of("again and " * 60, 5.0)
GUESS = hypothesis_of("perhaps", 5.0, logprob=-3.0)

SPEECH = AudioEvidence(np.random.default_rng(1).normal(0, 0.1, 5 * SAMPLE_RATE).astype(np.float32))
"""Five seconds of equal loudness without repetition."""


def ways(seconds: float = 5.0, limit: int = 220, **options: object) -> list[Attempt]:
    return list(attempts(seconds, DecodeOptions(**options), "auto", limit))  # type: ignore[arg-type]


def decoder_of(*hypotheses: Hypothesis) -> tuple[Callable[[Attempt], Hypothesis], list[Attempt]]:
    """A decoder that returns these in turn, and the list of its attempts."""
    following = iter(hypotheses)
    asked: list[Attempt] = []

    def decode(attempt: Attempt) -> Hypothesis:
        asked.append(attempt)
        return next(following)

    return decode, asked


def test_attempts_raise_the_context_and_then_the_temperature() -> None:
    tried = ways()
    contexts = [attempt.context for attempt in tried]
    assert contexts == sorted(contexts)
    assert contexts[-2:] == [FULL, FULL]
    assert [attempt.temperature for attempt in tried] == [0.0] * (len(tried) - 1) + [0.2]
    assert [attempt.rising for attempt in tried] == [False] * (len(tried) - 1) + [True]


def test_only_reduced_decodes_have_a_token_limit() -> None:
    for attempt in ways(limit=30):
        assert attempt.most_tokens == (30 if attempt.context < FULL else 0)


def test_prompt_is_dropped_before_the_temperature_rises() -> None:
    tried = ways(prompt="what was said")
    assert [bool(attempt.prompt) for attempt in tried] == [True] * (len(tried) - 2) + [False] * 2
    assert tried[-2] == Attempt(FULL, "")


@pytest.mark.parametrize("temperature", [0.1, 0.4, 0.9])
def test_attempts_start_at_the_given_temperature(temperature: float) -> None:
    tried = ways(temperature=temperature)
    assert {attempt.temperature for attempt in tried[:-1]} == {temperature}
    assert temperature < tried[-1].temperature <= 1.0
    assert tried[-1].rising


@pytest.mark.parametrize(
    ("seconds", "context"), [(1.0, 256), (5.0, 384), (20.0, 1136), (29.5, FULL)]
)
def test_partial_gets_one_attempt_at_a_reduced_context(seconds: float, context: int) -> None:
    (attempt,) = ways(seconds, partial=True, prompt="names")
    assert (attempt.context, attempt.prompt, attempt.temperature) == (context, "names", 0.0)


def test_attempts_stop_at_the_highest_temperature() -> None:
    tried = ways(temperature=1.0, prompt="what was said")
    assert {attempt.temperature for attempt in tried} == {1.0}
    assert len(tried) == len(set(tried))


def test_best_takes_the_first_faultless_result() -> None:
    decode, asked = decoder_of(LOOP, GOOD)
    taken = first_acceptable(ways(), 5.0, decode, SPEECH)
    assert (taken.text, taken.passes) == (GOOD.text, 2)
    assert asked == ways()[:2]


def test_best_prefers_a_guess_to_a_loop() -> None:
    tried = ways()
    loops = [hypothesis_of(f"{number} again " * 40, 5.0) for number in range(len(tried) - 1)]
    decode, asked = decoder_of(GUESS, *loops)
    taken = first_acceptable(tried, 5.0, decode, SPEECH)
    assert (taken.text, taken.passes) == (GUESS.text, len(tried))
    assert asked == tried


def test_best_takes_the_last_of_several_loops() -> None:
    tried = ways()
    loops = [hypothesis_of(f"{number} again " * 40, 5.0) for number in range(len(tried))]
    decode, _ = decoder_of(*loops)
    assert first_acceptable(tried, 5.0, decode, SPEECH).text == loops[-1].text


def test_only_sure_tries_the_two_cheapest_contexts() -> None:
    tried = ways(only_sure=True, prompt="what was said")
    assert [attempt.context for attempt in tried] == [w.context for w in ways()][:2]
    assert {(attempt.temperature, attempt.prompt) for attempt in tried} == {(0.0, "what was said")}
    assert [attempt.context for attempt in ways(20.0, only_sure=True)] == [FULL]


def test_only_sure_rejects_a_guess() -> None:
    decode, asked = decoder_of(GUESS, LOOP)
    found = first_acceptable(ways(only_sure=True), 5.0, decode, SPEECH, only_sure=True)
    assert (found.text, found.passes, found.end) == ("", 2, 5.0)
    assert len(asked) == 2
    decode, _ = decoder_of(GUESS, GOOD)
    assert (
        first_acceptable(ways(only_sure=True), 5.0, decode, SPEECH, only_sure=True).text
        == GOOD.text
    )


@pytest.mark.parametrize("seconds", [0.0, 0.2, 1.0, BOUNDED_SECONDS - 0.01])
@pytest.mark.parametrize("options", [{}, {"prompt": "names"}, {"carried": "before"}])
def test_window_under_three_seconds_has_bounded_attempts(
    seconds: float, options: dict[str, object]
) -> None:
    tried = ways(seconds, **options)
    assert {attempt.temperature for attempt in tried} == {0.0}
    assert not any(attempt.rising for attempt in tried)
    assert all(0 < attempt.most_tokens <= 40 for attempt in tried)
    # A decoded token takes about as much time as five positions, one of a prompt 2.7.
    usual = tried[0].context + 5 * (4 * seconds + 4)
    prompts = [2.7 * way.prompt_tokens for way in tried if way.prompt or way.carried]
    worst = sum(way.context + 5 * way.most_tokens for way in tried) + sum(prompts)
    assert worst <= 5 * (usual + (prompts[0] if prompts else 0))


def test_window_of_three_seconds_may_use_the_full_context() -> None:
    assert ways(BOUNDED_SECONDS)[-1].context == FULL


def test_bounded_window_drops_prompt_and_carried_text_last() -> None:
    tried = ways(1.0, prompt="names", carried="before")
    assert [(way.prompt, way.carried) for way in tried] == [("names", "before")] * 2 + [("", "")]


def test_reduced_decode_has_fewer_prompt_tokens() -> None:
    for attempt in ways(prompt="names"):
        if attempt.prompt and attempt.context < FULL:
            assert attempt.prompt_tokens == REDUCED_PROMPT_TOKENS
        else:
            assert attempt.prompt_tokens == 223


def test_best_accepts_equal_words_from_two_contexts() -> None:
    twice = hypothesis_of("by a similar process, by a similar process", 5.0)
    again = hypothesis_of("By a similar process. By a similar process.", 5.0)
    decode, asked = decoder_of(twice, again)
    taken = first_acceptable(ways(), 5.0, decode, SPEECH)
    assert (taken.text, len(asked)) == (again.text, 2)


def test_best_rejects_an_equal_loop_at_two_token_limits() -> None:
    loop = replace(hypothesis_of("five " * 8, 5.0), limited=True)
    decode, asked = decoder_of(loop, loop, GOOD)
    assert first_acceptable(ways(), 5.0, decode, SPEECH).text == GOOD.text
    assert len(asked) == 3


def test_best_cuts_a_loop_without_alternatives_to_one_copy() -> None:
    loop = replace(hypothesis_of("No. " * 8, 1.0), limited=True)
    tried = ways(1.0)
    decode, _ = decoder_of(*[loop] * len(tried))
    assert first_acceptable(tried, 1.0, decode, SPEECH).text == "No."
