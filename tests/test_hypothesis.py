"""The faults of a decode. The thresholds are measured elsewhere; these tests check the logic."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fakes import hypothesis_of

from app.decoding.faults import fault
from app.decoding.hypothesis import compression, confidence, join
from app.messages import Segment

GOOD = hypothesis_of("and so my fellow americans ask not what your country can do for you", 5.0)
LOOP = " ".join(["thank you"] * 40)


@pytest.mark.parametrize("reduced", [False, True])
def test_ordinary_speech_has_no_fault(reduced: bool) -> None:
    assert fault(GOOD, 5.0, reduced) is None


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [
        replace(GOOD, limited=True),
        hypothesis_of(LOOP, 30.0),
        replace(GOOD, logprob=-1.5),
    ],
    ids=["limit", "repetition", "improbable"],
)
def test_limited_repeated_or_improbable_text_has_a_fault(wrong: object, reduced: bool) -> None:
    assert fault(wrong, 30.0, reduced)  # type: ignore[arg-type]


def test_faults_are_distinct() -> None:
    reasons = {
        fault(replace(GOOD, limited=True), 30.0, False),
        fault(hypothesis_of(LOOP, 30.0), 30.0, False),
        fault(replace(GOOD, logprob=-1.5), 30.0, False),
    }
    assert len(reasons) == 3


def test_silence_is_a_fault_only_of_a_reduced_decode() -> None:
    silence = hypothesis_of("", 5.0, logprob=-9.0)
    assert fault(silence, 5.0, False) is None
    assert fault(silence, 5.0, True)


def test_short_repetition_is_no_fault() -> None:
    assert fault(hypothesis_of("no, no, no, no", 2.0), 2.0, False) is None


def test_reduced_decode_is_judged_more_strictly() -> None:
    fast = hypothesis_of("one two three four five six seven eight nine ten eleven twelve", 1.0)
    assert fault(fast, 1.0, False) is None
    assert fault(fast, 1.0, True)


def test_join_compression_and_confidence() -> None:
    assert join([]) == ""
    assert join([Segment(0, 1, "a", 1), Segment(1, 2, "b", 1)]) == "a b"
    assert compression(LOOP) > compression(GOOD.text)
    assert compression("") == 0
    assert confidence([]) == 0.0
    assert confidence([math.log(0.5), math.log(0.5)]) == pytest.approx(0.5)
    assert 0 < confidence([-0.1, -3.0]) < 1


def test_repeated_prompt_is_an_echo() -> None:
    before = "Hopefully the recording levels are okay, I have a cold."
    again = replace(GOOD, segments=(Segment(0, 5, f"Blather. {before}", 0.9),))
    assert fault(again, 5.0, False, before) == "echo"
    assert fault(again, 5.0, False) is None
    assert fault(again, 5.0, False, "I have a cold, so this sounds different.") is None


def test_script_of_three_bytes_is_no_loop() -> None:
    hindi = "कृपया रसोई की बत्ती जला दीजिए और बैठक का पंखा बंद कर दीजिए"
    assert compression(hindi) < 1.6
    assert compression(hindi * 4) > 2.4


def test_empty_text_under_a_prompt_is_a_fault() -> None:
    nothing = replace(GOOD, segments=(), logprob=0.0)
    assert fault(nothing, 20.0, False, "before") == "empty"
    assert fault(nothing, 20.0, False) is None


def decoded(*texts: str) -> object:
    segments = tuple(Segment(at, at + 1.0, text, 0.9) for at, text in enumerate(texts))
    return replace(hypothesis_of("", 10.0, logprob=-0.1), segments=segments)


@pytest.mark.parametrize(
    "texts",
    [
        ("And so my fellow Americans.", "and so, my fellow Americans"),
        ("Hey computer. Hey computer.",),
        ("Carved in wood by a similar process, by a similar process.",),
        ("बत्ती जला बत्ती जला",),
    ],
)
def test_repeated_words_are_a_fault_of_a_reduced_decode(
    texts: tuple[str, ...],
) -> None:
    loop = decoded(*texts)
    assert fault(loop, 10.0, True) == "repetition"
    assert fault(loop, 10.0, False) is None


@pytest.mark.parametrize(
    "texts",
    [
        ("No, no.", "No, no."),
        ("five five five five",),
        ("Turn on the light.", "Yes.", "Turn on the light."),
        ("the more the better",),
        ("हिंदी में की की",),
    ],
)
def test_ordinary_repetition_is_no_fault(texts: tuple[str, ...]) -> None:
    assert fault(decoded(*texts), 10.0, True) is None
