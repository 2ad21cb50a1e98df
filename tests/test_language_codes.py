"""Languages in requests and options, on every port, and their use in a job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import (
    ENGLISH,
    MULTILINGUAL,
    RATE,
    FakeDetector,
    FakeEngine,
    body_of,
    hypothesis_of,
    tone,
    transcript_of,
)

from app.decoding.hypothesis import Hypothesis
from app.decoding.language_probe import LanguageProbe, LanguageWatch, confined
from app.decoding.raw_decoder import Logits, RawDecoderError
from app.decoding.transcriber import DecodeOptions
from app.messages import RawFormat, Request, Segment
from app.protocols.http.dialect import ReplyOptions, read
from app.protocols.http.form import Fields, FormError
from app.protocols.http.openai import OPENAI, delta
from app.protocols.http.replies import rendered
from app.protocols.http.whisper_cpp import WHISPER_CPP
from app.protocols.languages import LanguageError, contradiction, language_code, language_codes
from app.protocols.model_names import ModelNames
from app.protocols.native.header import parse_header
from app.protocols.native.replies import reply_fields
from app.requests.failures import unservable
from app.worker.job import Job, JobSettings, Transcription

SEVENTEEN = ["aa", *(f"b{letter}" for letter in "abcdefghijklmnop")]


# Reading.


@pytest.mark.parametrize(
    ("text", "code"),
    [("en", "en"), ("EN-gb", "en"), ("auto", "auto"), ("Multi", "multi"), ("nb-NO", "no")],
)
def test_language_code_is_read(text: str, code: str) -> None:
    assert language_code(text) == code


def test_list_of_codes_is_read() -> None:
    assert language_codes(["en", "de-AT, fr", "en"]) == ("en", "de", "fr")
    assert language_codes(["German"]) == ("de",)


@pytest.mark.parametrize(
    "values", [[], [""], ["en,"], ["auto"], ["en", "multi"], ["en de"], ["7"], SEVENTEEN]
)
def test_invalid_list_of_codes_is_rejected(values: list[str]) -> None:
    with pytest.raises(LanguageError):
        language_codes(values)


def test_list_may_have_sixteen_codes() -> None:
    assert len(language_codes(SEVENTEEN[:16])) == 16


def test_list_confines_the_detection() -> None:
    assert contradiction("de", ("de", "en"))
    for language in (None, "auto", "multi"):
        assert contradiction(language, ("de", "en")) is None
    assert contradiction("de", ()) is None


def native(**fields: Any) -> Request | str:
    """The languages of a native header with these fields, or the code and field of its failure."""
    header = {
        "byteorder": "little",
        "content-type": "binary/flac",
        "content-encoding": "flac",
        "content-length": 3,
        **fields,
    }
    parsed = parse_header(json.dumps(header).encode(), 100, lambda: "made")
    if parsed.request is not None:
        return parsed.request
    assert parsed.failure is not None
    return f"{parsed.failure.code} {parsed.failure.message.split()[0]}"


def test_native_header_with_valid_languages() -> None:
    request = native(language="multi", languages=["en", "de-CH"])
    assert isinstance(request, Request)
    assert (request.language, request.languages) == ("multi", ("en", "de"))


@pytest.mark.parametrize(
    "fields",
    [
        {"languages": []},
        {"languages": "en"},
        {"languages": ["en,de"]},
        {"languages": [7]},
        {"languages": None},
        {"languages": ["auto"]},
        {"languages": SEVENTEEN},
        {"language": "en", "languages": ["en", "de"]},
    ],
)
def test_native_header_rejects_invalid_languages(fields: dict[str, Any]) -> None:
    assert native(**fields) == "bad_field languages"


def upload(fields: Fields) -> Request:
    served = ModelNames("fake", frozenset({"fake"}))
    return read(fields, OPENAI, Request("r", 3), served)[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"languages": ["en,de"]},
        {"languages": ["en", "de"]},
        {"languages[]": ["en", "de"]},
        {"languages": ["english, german"], "language": ["auto"]},
    ],
)
def test_form_with_valid_languages(fields: Fields) -> None:
    assert upload(fields).languages == ("en", "de")


@pytest.mark.parametrize(
    "fields",
    [
        {"languages": ["klingon"]},
        {"languages[]": SEVENTEEN},
        {"languages": ["en"], "language": ["de"]},
    ],
)
def test_form_rejects_invalid_languages(fields: Fields) -> None:
    with pytest.raises(FormError, match=r"^languages ") as caught:
        upload(fields)
    assert caught.value.failure.code == "bad_field"


def test_form_may_name_several_languages() -> None:
    assert upload({"language": ["multi"]}).language == "multi"


@pytest.mark.parametrize(
    ("fields", "english", "multilingual"),
    [
        ({"language": "multi"}, "language", None),
        ({"languages": ("en",)}, None, None),
        ({"languages": ("en", "de")}, "languages", None),
        ({"languages": ("en", "fr")}, "languages", "languages"),
    ],
)
def test_languages_unknown_to_the_model_are_rejected(
    fields: dict[str, Any], english: str | None, multilingual: str | None
) -> None:
    for model, field in ((ENGLISH, english), (MULTILINGUAL, multilingual)):
        failure = unservable(Request("r", 3, **fields), model)
        found = None if failure is None else (failure.code, failure.message.split(":")[0])
        assert found == (None if field is None else ("bad_field", field))


# A watch over one window.


def test_probabilities_are_confined() -> None:
    heard = {"cy": 0.5, "en": 0.3, "de": 0.1, "fr": 0.1}
    assert confined(heard, ("en", "de")) == pytest.approx({"en": 0.75, "de": 0.25})
    assert confined(heard, ()) == pytest.approx(heard)
    assert confined({"cy": 1.0, "en": 0.0, "de": 0.0}, ("en", "de")) == {"en": 0.5, "de": 0.5}


def watch(heard: Mapping[str, float], among: tuple[str, ...] = (), seconds: float = 5.0) -> Any:
    watch = LanguageWatch(lambda: heard, "en", among, seconds)
    assert not watch.changed
    return watch


def test_watch_stops_a_window_in_another_language() -> None:
    other = watch({"en": 0.01, "de": 0.9, "fr": 0.09})
    assert other.listen()
    assert (other.language, other.probability, other.changed) == ("de", 0.9, True)


@pytest.mark.parametrize(
    ("heard", "among", "seconds"),
    [
        ({"en": 0.9, "de": 0.1}, (), 5.0),
        ({"en": 0.25, "de": 0.75}, (), 5.0),
        ({"en": 0.01, "de": 0.99}, (), 1.0),
        ({"en": 0.1, "cy": 0.85, "de": 0.05}, ("en", "de"), 5.0),
    ],
    ids=["same", "unsure", "short", "not allowed"],
)
def test_watch_continues_a_window_in_the_expected_language(
    heard: dict[str, float], among: tuple[str, ...], seconds: float
) -> None:
    same = watch(heard, among, seconds)
    assert not same.listen()
    assert (same.language, same.changed) == ("en", False)
    assert same.probability == confined(heard, among)["en"]


def test_watch_detects_only_once() -> None:
    asked = []
    once = LanguageWatch(lambda: asked.append(1) or {"en": 1.0}, "en", (), 5.0)  # type: ignore[func-returns-value]
    for _ in range(3):
        assert not once.listen()
    assert asked == [1]


class FakeDecoder:
    """A decoder with 3 of 8 tokens for languages: 4, 5 and 6."""

    def __init__(self) -> None:
        self.fed: list[int] = [3, 3]

    def rewind(self, past: int) -> None:
        del self.fed[past:]

    def feed(self, tokens: Sequence[int]) -> Logits:
        self.fed += tokens
        return self.logits()

    def logits(self) -> Logits:
        weights = [100.0, 100.0, 100.0, 100.0, 1.0, 2.0, 5.0, 100.0]
        return np.log(np.array(weights, np.float32)) + 1000


def test_probe_returns_the_probabilities_of_the_language_tokens() -> None:
    decoder: Any = FakeDecoder()
    probe = LanguageProbe(decoder, 3, 4, ["en", "de", "fr"])
    heard = {"en": 0.125, "de": 0.25, "fr": 0.625}
    assert probe.read() == pytest.approx(heard, rel=1e-3)
    assert decoder.fed == [3, 3]
    assert probe.hear() == pytest.approx(heard, rel=1e-3)
    # The start token stands first, whatever was decoded before.
    assert decoder.fed == [3]


def test_probe_reports_a_failed_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_tokens: object) -> None:
        raise RawDecoderError("whisper_decode failed with code -3")

    decoder: Any = FakeDecoder()
    monkeypatch.setattr(decoder, "feed", fail)
    with pytest.raises(RawDecoderError, match="-3"):
        LanguageProbe(decoder, 3, 4, ["en", "de", "fr"]).hear()


# A job of several windows.


def run(
    hypotheses: list[Hypothesis], node: str = "auto", among: tuple[str, ...] = (), **fields: Any
) -> tuple[Transcription, list[DecodeOptions]]:
    """A request of 40 s in two windows to a node with this `language` and list."""
    gap = np.zeros(RATE, dtype=np.float32)
    samples = np.concatenate([tone(20 * RATE), gap, tone(19 * RATE)])
    body = body_of((samples * 32767).astype("<i2").tobytes())
    following = iter(hypotheses)
    engine = FakeEngine(lambda _samples, _options: next(following))
    try:
        request = Request("r", body.size, RawFormat("s16", RATE, 1, "little"), **fields)
        settings = JobSettings(3600.0, 0.5, node, "", "fake", languages=among)
        work = Transcription(Job(1, 1, request, body, 0.0), engine, FakeDetector(), settings)
        while not work.turn()[1]:
            pass
        work.close()
        return work, [options for _, options in engine.calls]
    finally:
        body.close()


def decoded(text: str, seconds: float, language: str, probability: float | None) -> Hypothesis:
    return replace(
        hypothesis_of(text, seconds, language, logprob=-0.1), language_probability=probability
    )


SEVERAL = [decoded("Good morning", 20.5, "en", 0.9), decoded("Guten Tag", 19.0, "de", 0.8)]


@pytest.mark.parametrize(
    ("node", "fields", "language", "languages"),
    [
        (("auto", ()), {}, "auto", ()),
        (("auto", ("en", "de")), {}, "auto", ("en", "de")),
        (("auto", ("en", "de")), {"language": "auto"}, "auto", ("en", "de")),
        (("auto", ("en", "de")), {"language": "multi"}, "auto", ("en", "de")),
        (("auto", ("en", "de")), {"language": "fr"}, "fr", ()),
        (("auto", ("en", "de")), {"languages": ("fr", "it")}, "auto", ("fr", "it")),
        (("en", ()), {"languages": ("fr", "it")}, "auto", ("fr", "it")),
        (("en", ()), {}, "en", ()),
        (("multi", ()), {"languages": ("fr", "it")}, "auto", ("fr", "it")),
        (("auto", ()), {"languages": ("fr",)}, "fr", ("fr",)),
    ],
)
def test_languages_of_the_request_replace_those_of_the_node(
    node: tuple[str, tuple[str, ...]],
    fields: dict[str, Any],
    language: str,
    languages: tuple[str, ...],
) -> None:
    _, (first, _) = run(SEVERAL, *node, **fields)
    assert (first.language, first.languages) == (language, languages)
    assert first.expected_language is None


def test_first_speech_determines_the_language() -> None:
    work, (first, second) = run(SEVERAL)
    assert (first.language, second.language) == ("auto", "en")
    transcript = work.transcript()
    assert (transcript.language, transcript.language_probability) == ("en", pytest.approx(0.9))
    assert [segment.language for segment in transcript.segments] == [None, None]


@pytest.mark.parametrize("by_node", [False, True])
def test_each_window_has_its_own_language_with_multi(by_node: bool) -> None:
    node, fields = ("multi", {}) if by_node else ("en", {"language": "multi"})
    work, (first, second) = run(SEVERAL, node, **fields, prompt="Names.")
    assert (first.language, first.expected_language) == ("auto", None)
    assert (second.language, second.expected_language) == ("auto", "en")
    assert (second.prompt, second.carried) == ("Names.", "Good morning")
    transcript = work.transcript()
    assert [segment.language for segment in transcript.segments] == ["en", "de"]
    assert (transcript.language, transcript.language_probability) == ("en", pytest.approx(0.9))


def test_transcript_has_the_language_of_most_of_the_speech() -> None:
    short = replace(SEVERAL[0], segments=(Segment(0.0, 3.0, "Good morning", 0.9),))
    work, _ = run([short, SEVERAL[1], SEVERAL[1]], node="multi")
    transcript = work.transcript()
    assert (transcript.language, transcript.language_probability) == ("de", 0.8)


def test_transcript_without_speech_has_no_language() -> None:
    work, (_, second) = run([hypothesis_of("", 20.5), hypothesis_of("", 19.0)], node="multi")
    assert second.expected_language is None
    transcript = work.transcript()
    assert (transcript.language, transcript.language_probability) == (None, None)


# Replies.

GERMAN = Segment(0.0, 1.0, "Guten Tag", 0.9, language="de")
PLAIN = replace(GERMAN, language=None)


@pytest.mark.parametrize("segment", [GERMAN, PLAIN])
def test_segment_contains_its_language(segment: Segment) -> None:
    transcript = transcript_of("Guten Tag", segments=(segment,))
    shown = [
        reply_fields("r", segment)["segment"],
        reply_fields("r", transcript)["segments"][0],
        json.loads(delta(segment, True).removeprefix(b"data: ")),
    ]
    for dialect in (OPENAI, WHISPER_CPP):
        options = ReplyOptions(dialect, "transcribe", "verbose_json")
        shown.append(json.loads(rendered(transcript, options)[1])["segments"][0])
    for fields in shown:
        assert fields.get("language") == segment.language
