"""In which ways a window is decoded, one after the other, and which of the results is taken.

Most windows take one attempt: greedy, at the first rung of the encoder's ladder
(`app/decoding/context.py`). Where the result is not to be believed (`app/decoding/hypothesis.py`)
the next follows: more of the encoder, then without the prompt, and at last sampling at rising
temperatures, Whisper's own way out (Radford et al. 2022, section 4.5). Owns no engine: the decoding
is handed in. Worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import structlog

from app.decoding.context import FULL, EncoderContext, ladder
from app.decoding.hypothesis import Hypothesis, fault, most_tokens
from app.decoding.transcriber import DecodeOptions

TEMPERATURE_STEP = 0.2
"""openai/whisper's temperatures are 0, 0.2 and so on to 1."""

_HIGHEST_TEMPERATURE = 1.0

_SURE_RUNGS = 2
"""Where only what is sure is wanted: the cheap rungs."""

_log = structlog.get_logger("engine")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to decode a window.

    `temperature` 0 is greedy; `rising` lets whisper.cpp go on to higher ones by itself;
    `most_tokens` 0 is whisper.cpp's own limit.
    """

    context: int
    prompt: str
    temperature: float = 0.0
    rising: bool = False
    most_tokens: int = 0


def attempts(
    seconds: float, options: DecodeOptions, setting: EncoderContext, limit: int
) -> Iterator[Attempt]:
    """What to try on a window of `seconds`; the model decodes at most `limit` tokens at once."""
    most = min(limit, most_tokens(seconds, options.language))
    start = options.temperature
    rungs = ladder(seconds, setting)
    for context in rungs[:_SURE_RUNGS] if options.only_sure else rungs:
        reduced = context < FULL
        yield Attempt(context, options.prompt, start, most_tokens=most if reduced else 0)
    if options.only_sure:
        return
    if options.prompt:
        # What came before is the usual reason for a loop: first do without it.
        yield Attempt(FULL, "", start)
    if start < _HIGHEST_TEMPERATURE:
        warmer = min(_HIGHEST_TEMPERATURE, start + TEMPERATURE_STEP)
        yield Attempt(FULL, "", warmer, rising=True)


def best(
    ways: Iterable[Attempt],
    seconds: float,
    decode: Callable[[Attempt], Hypothesis],
    only_sure: bool = False,
) -> Hypothesis:
    """The first hypothesis without fault, of at least one attempt. Where all have one, the least
    faulty, or with `only_sure` the last without its segments."""
    faulty: list[tuple[str, Hypothesis]] = []
    for attempt in ways:
        hypothesis = replace(decode(attempt), passes=len(faulty) + 1)
        reason = fault(hypothesis, seconds, attempt.context < FULL, attempt.prompt)
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
    # A guess beats a loop, and a later attempt an earlier one.
    guesses = [hypothesis for reason, hypothesis in faulty if reason == "improbable"]
    chosen = (guesses or [hypothesis for _, hypothesis in faulty])[-1]
    return replace(chosen, passes=len(faulty))
