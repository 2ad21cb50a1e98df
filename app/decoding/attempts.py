"""Decoding attempts for a window: their order, and the choice of a result.

Most windows take one attempt: greedy, with the smallest encoder context
(`app/decoding/context.py`). If `judge` (`app/decoding/faults.py`) rejects the result, the next
attempt follows: a larger context, then without the prompt. For windows of at least
`BOUNDED_SECONDS` the last attempt samples at rising temperatures, Whisper's temperature fallback
(Radford et al. 2022, section 4.5). The caller passes in the decode function. Worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import structlog

from app.decoding.audio_evidence import AudioEvidence
from app.decoding.context import (
    FULL,
    EncoderContext,
    contexts_to_try,
    for_partial,
    most_prompt_tokens,
)
from app.decoding.faults import cut, judge
from app.decoding.hypothesis import Hypothesis, most_tokens, normal_words
from app.decoding.prompt import MOST_TOKENS as MOST_PROMPT_TOKENS
from app.decoding.transcriber import DecodeOptions

TEMPERATURE_STEP = 0.2
"""openai/whisper's temperatures are 0, 0.2 and so on to 1."""

_HIGHEST_TEMPERATURE = 1.0

_ONLY_SURE_CONTEXTS = 2
"""Number of encoder contexts tried with `only_sure`, and for windows below `BOUNDED_SECONDS`."""

_CONFIRMED = frozenset({"repetition", "too fast", "too slow"})
"""Faults that another attempt can refute: the same words from another context are believed. A loop
comes again with the same words only at the token limit (docs/lab-book.md, "Repetition")."""

BOUNDED_SECONDS = 3.0
"""Shorter windows never take the whole encoder, nor sampling: one such pass takes six times the
usual processor time of a window of a second. They get the two smallest contexts, and a third decode
without prompt and preceding text. So a window takes at most five times the usual time for its
length. The lab book has the cost in word errors ("Bounded cost")."""

_log = structlog.get_logger("engine")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to decode a window.

    `temperature` 0 is greedy; `rising` lets whisper.cpp raise the temperature itself; `most_tokens`
    0 is whisper.cpp's own limit.
    """

    context: int
    prompt: str
    temperature: float = 0.0
    rising: bool = False
    most_tokens: int = 0
    carried: str = ""
    prompt_tokens: int = MOST_PROMPT_TOKENS


def attempts(
    seconds: float, options: DecodeOptions, setting: EncoderContext, limit: int
) -> Iterator[Attempt]:
    """Yield the attempts for a window of `seconds`; the model decodes at most `limit` tokens at
    once."""
    most = min(limit, most_tokens(seconds, options.language))
    start = options.temperature
    contexts = contexts_to_try(seconds, setting)
    bounded = setting == "auto" and seconds < BOUNDED_SECONDS
    if options.partial:
        contexts = (for_partial(seconds, setting),)
    for context in contexts[:_ONLY_SURE_CONTEXTS] if options.only_sure or bounded else contexts:
        reduced = context < FULL
        yield Attempt(
            context,
            options.prompt,
            start,
            most_tokens=most if reduced else 0,
            carried=options.carried,
            prompt_tokens=most_prompt_tokens(context),
        )
    if options.only_sure or options.partial:
        return
    if options.prompt or options.carried:
        # The preceding text is the usual cause of a loop, so try without the prompt first.
        context = contexts[0] if bounded else FULL
        yield Attempt(context, "", start, most_tokens=most if context < FULL else 0)
    if bounded:
        return
    if start < _HIGHEST_TEMPERATURE:
        warmer = min(_HIGHEST_TEMPERATURE, start + TEMPERATURE_STEP)
        yield Attempt(FULL, "", warmer, rising=True)


def first_acceptable(
    attempts: Iterable[Attempt],
    seconds: float,
    decode: Callable[[Attempt], Hypothesis],
    sound: AudioEvidence,
    only_sure: bool = False,
) -> Hypothesis:
    """Return the first hypothesis without a fault. If all have faults, return the least faulty one;
    with `only_sure`, an empty hypothesis. `attempts` must not be empty; `sound` is the window's."""
    faulty: list[tuple[str, Hypothesis]] = []
    for attempt in attempts:
        hypothesis = replace(decode(attempt), passes=len(faulty) + 1)
        before = f"{attempt.prompt} {attempt.carried}".strip()
        reduced = attempt.context < FULL
        hypothesis, reason = judge(hypothesis, seconds, reduced, before, sound)
        if reason in _CONFIRMED and any(_same(hypothesis, other) for _, other in faulty):
            reason = None
        _log.debug(
            "decoded",
            seconds=round(seconds, 2),
            encoder_context=attempt.context,
            temperature=round(attempt.temperature, 2),
            logprob=round(hypothesis.logprob, 2),
            fault=reason,
        )
        if reason is None:
            return hypothesis
        faulty.append((reason, hypothesis))
    if only_sure:
        return replace(faulty[-1][1], segments=(), end=seconds, passes=len(faulty))
    # Prefer an improbable text to a repetitive one, and a later attempt to an earlier one.
    guesses = [hypothesis for reason, hypothesis in faulty if reason == "improbable"]
    chosen = (guesses or [hypothesis for _, hypothesis in faulty])[-1]
    if chosen.limited:
        chosen = cut(chosen, sound.copies) or chosen
    return replace(chosen, passes=len(faulty))


def _same(hypothesis: Hypothesis, other: Hypothesis) -> bool:
    """Return whether two decodes ended by themselves with the same words."""
    if hypothesis.limited or other.limited:
        return False
    return normal_words(hypothesis.text) == normal_words(other.text)
