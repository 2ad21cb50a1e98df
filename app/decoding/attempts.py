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

from app.decoding.context import FULL, EncoderContext, ladder, most_prompt_tokens
from app.decoding.guard import cut, judge
from app.decoding.hypothesis import Hypothesis, most_tokens, normal_words
from app.decoding.prompt import MOST_TOKENS as MOST_PROMPT_TOKENS
from app.decoding.sound import Sound
from app.decoding.transcriber import DecodeOptions

TEMPERATURE_STEP = 0.2
"""openai/whisper's temperatures are 0, 0.2 and so on to 1."""

_HIGHEST_TEMPERATURE = 1.0

_SURE_RUNGS = 2
"""Where only what is sure is wanted: the cheap rungs."""

_CONFIRMED = frozenset({"repetition", "too fast", "too slow"})
"""Faults that only say what is unlikely. The same words from another context outweigh them: of 209
loops none came again at the next rung that had not run into the token limit."""

BOUNDED_SECONDS = 3.0
"""Shorter windows are never given to the whole encoder, nor sampled: one such pass takes six times
the usual processor time of a window of a second. They get the two cheap rungs, and a third decode
without what came before it. So a window takes at most five times what is usual for its length. The
lab book has the price in words ("Bounded cost")."""

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
    carried: str = ""
    prompt_tokens: int = MOST_PROMPT_TOKENS


def attempts(
    seconds: float, options: DecodeOptions, setting: EncoderContext, limit: int
) -> Iterator[Attempt]:
    """What to try on a window of `seconds`; the model decodes at most `limit` tokens at once."""
    most = min(limit, most_tokens(seconds, options.language))
    start = options.temperature
    rungs = ladder(seconds, setting)
    bounded = setting == "auto" and seconds < BOUNDED_SECONDS
    for context in rungs[:_SURE_RUNGS] if options.only_sure or bounded else rungs:
        reduced = context < FULL
        yield Attempt(
            context,
            options.prompt,
            start,
            most_tokens=most if reduced else 0,
            carried=options.carried,
            prompt_tokens=most_prompt_tokens(context),
        )
    if options.only_sure:
        return
    if options.prompt or options.carried:
        # What came before is the usual reason for a loop: first do without it.
        context = rungs[0] if bounded else FULL
        yield Attempt(context, "", start, most_tokens=most if context < FULL else 0)
    if bounded:
        return
    if start < _HIGHEST_TEMPERATURE:
        warmer = min(_HIGHEST_TEMPERATURE, start + TEMPERATURE_STEP)
        yield Attempt(FULL, "", warmer, rising=True)


def best(
    ways: Iterable[Attempt],
    seconds: float,
    decode: Callable[[Attempt], Hypothesis],
    sound: Sound,
    only_sure: bool = False,
) -> Hypothesis:
    """The first hypothesis without fault, of at least one attempt. Where all have one, the least
    faulty, or with `only_sure` the last without its segments. `sound` is the window's."""
    faulty: list[tuple[str, Hypothesis]] = []
    for attempt in ways:
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
    # A guess beats a loop, and a later attempt an earlier one.
    guesses = [hypothesis for reason, hypothesis in faulty if reason == "improbable"]
    chosen = (guesses or [hypothesis for _, hypothesis in faulty])[-1]
    if chosen.limited:
        chosen = cut(chosen, sound.copies) or chosen
    return replace(chosen, passes=len(faulty))


def _same(hypothesis: Hypothesis, other: Hypothesis) -> bool:
    """Whether two decodes ended by themselves with the same words."""
    if hypothesis.limited or other.limited:
        return False
    return normal_words(hypothesis.text) == normal_words(other.text)
