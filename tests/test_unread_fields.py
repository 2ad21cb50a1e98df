"""Every field that a server's documentation lists is read, rejected by name, or ignored openly."""

from __future__ import annotations

import re
import typing
from dataclasses import replace
from pathlib import Path

import pytest
from forms import INFERENCE, TRANSCRIPTIONS, TRANSLATIONS, post
from http_peer import MODEL, Peer
from openai.types.audio import transcription_create_params, translation_create_params
from structlog.testing import capture_logs

from app.messages import Origin, Request
from app.monitoring.ignored_fields import IgnoredFields
from app.protocols.http.dialect import Dialect, ReplyOptions, read
from app.protocols.http.field_table import Field
from app.protocols.http.form import Fields, FormError
from app.protocols.http.routes import ROUTES, Upload
from app.protocols.http.unread_fields import IGNORED, REJECTED, UNREAD, Unread

DIALECTS = {path: found.dialect for path, found in ROUTES.items() if isinstance(found, Upload)}
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "fields.md"

WHISPER_CPP = """
    file temperature temperature_inc response_format offset_t offset_n duration max_context max_len
    best_of beam_size audio_ctx word_thold entropy_thold logprob_thold no_speech_thold debug_mode
    translate diarize tinydiarize split_on_word no_timestamps token_timestamps language
    detect_language prompt carry_initial_prompt suppress_non_speech suppress_nst no_context vad
    vad_threshold vad_min_speech_duration_ms vad_min_silence_duration_ms vad_max_speech_duration_s
    vad_speech_pad_ms vad_samples_overlap no_language_probabilities
"""
"""The fields of the server of whisper.cpp 1.8."""

ASR_WEBSERVICE = """
    audio_file encode task language initial_prompt vad_filter word_timestamps output diarize
    min_speakers max_speakers
"""

VLLM = """
    to_language top_p top_k min_p seed repetition_penalty frequency_penalty presence_penalty
    max_completion_tokens stream_include_usage stream_continuous_usage_stats use_beam_search n
    length_penalty hotwords
"""

FASTER_WHISPER = "hotwords vad_filter without_timestamps timestamp_granularities"


def openai_fields() -> set[str]:
    """The fields of OpenAI's package, which is generated from OpenAI's own description."""
    kinds = (
        transcription_create_params.TranscriptionCreateParamsStreaming,
        transcription_create_params.TranscriptionCreateParamsNonStreaming,
        translation_create_params.TranslationCreateParams,
    )
    return {name for kind in kinds for name in typing.get_type_hints(kind, vars(typing))}


def read_by(path: str) -> set[str]:
    dialect = DIALECTS[path]
    return {dialect.file_field, *(field.name for field in dialect.fields)}


@pytest.mark.parametrize(
    ("path", "documented"),
    [
        (TRANSCRIPTIONS, openai_fields()),
        (TRANSLATIONS, openai_fields()),
        (TRANSCRIPTIONS, set((VLLM + FASTER_WHISPER).split())),
        (INFERENCE, set(WHISPER_CPP.split())),
        ("/asr", set(ASR_WEBSERVICE.split())),
    ],
)
def test_every_documented_field_has_a_place(path: str, documented: set[str]) -> None:
    assert documented - read_by(path) - UNREAD.keys() == set()


def test_no_field_has_two_places() -> None:
    assert len(UNREAD) == len(REJECTED) + len(IGNORED)
    for path in DIALECTS:
        assert read_by(path) & UNREAD.keys() == set()


def taken(dialect: Dialect, fields: Fields) -> tuple[Request, ReplyOptions]:
    return read(fields, dialect, Request("r", 3), MODEL)


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("unread", REJECTED, ids=lambda one: one.name)
def test_refused_field_is_named(path: str, unread: Unread) -> None:
    dialect = DIALECTS[path]
    for key in (unread.name, f"{unread.name}[]", f"{unread.name}[0]"):
        with pytest.raises(FormError) as caught:
            taken(dialect, {key: ["", "7.5"]})
        assert caught.value.failure.code == "bad_field"
        assert caught.value.failure.message.startswith(f"{unread.name} is not supported: ")
    for value in ("", " ", "null", *(unread.neutral or ())):
        assert taken(dialect, {unread.name: [value]}) == taken(dialect, {})


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("unread", IGNORED, ids=lambda one: one.name)
def test_ignored_field_changes_nothing_but_is_named(path: str, unread: Unread) -> None:
    plain, options = taken(DIALECTS[path], {})
    for key in (unread.name, f"{unread.name}[type]"):
        request, with_field = taken(DIALECTS[path], {key: ["0.31"]})
        assert request == replace(plain, ignored=(unread.name,))
        assert with_field == replace(options, ignored=(unread.name,))


def test_neutral_number_may_be_written_in_any_way() -> None:
    dialect = DIALECTS[TRANSCRIPTIONS]
    for text in ("1", "1.0", " 1.00 ", "1e0"):
        assert taken(dialect, {"top_p": [text]}) == taken(dialect, {})
    for text in ("0.9", "nan", "one"):
        with pytest.raises(FormError):
            taken(dialect, {"top_p": [text]})


OTHERS = {
    "response_format": "verbose_json",
    "include": "logprobs",
    "timestamp_granularities": "segment,word",
    "max_line_width": "20",
    "max_line_count": "1",
    "max_cue_seconds": "3",
    "max_len": "12",
    "temperature": "0.5",
    "language": "en",
    "languages": "en,de",
    "channel_mode": "split",
    "keywords": "Ada",
    "hotwords": "Ada",
    "prompt": "Ada",
    "initial_prompt": "Ada",
    "output": "json",
    "task": "translate",
    "model": "tiny.en",
    "encode": "false",
    "token_timestamps": "false",
}
"""A value of each field that is not its default; flags are true if they are not here."""

SUBTITLES = {"response_format": "srt", "output": "srt"}
WITH_WORDS = {"response_format": "verbose_json", "output": "json"}


@pytest.mark.parametrize("path", DIALECTS)
def test_field_that_is_read_changes_the_request_or_the_reply(path: str) -> None:
    dialect = DIALECTS[path]

    def changes(field: Field, others: dict[str, str]) -> bool:
        known = {one.name for one in dialect.fields} - {field.name}
        fields = {name: [value] for name, value in others.items() if name in known}
        value = OTHERS.get(field.name, "true")
        try:
            return taken(dialect, fields | {field.name: [value]}) != taken(dialect, fields)
        except FormError:
            return False  # not in this combination

    without = [
        field.name
        for field in dialect.fields
        if not any(changes(field, others) for others in ({}, SUBTITLES, WITH_WORDS))
    ]
    # The route that tells the language has no text to divide.
    expected = ["max_line_width", "max_line_count", "max_cue_seconds"]
    assert without == (expected if path == "/detect-language" else [])


def test_answer_names_ignored_and_unknown_fields() -> None:
    fields = (
        ("beam_size", "5"),
        ("strange", "1"),
        ("Ümlaut: x", "1"),
        ("vad_parameters[x]", "1"),
    )
    peer = Peer().feed(post(TRANSCRIPTIONS, *fields, ("file", b"a")))
    assert peer.answer.status == 200
    assert peer.answer.headers["x-ignored-fields"] == "beam_size, strange, vad_parameters"
    plain = Peer().feed(post(TRANSCRIPTIONS, ("language", "en"), ("file", b"a")))
    assert "x-ignored-fields" not in plain.answer.headers


def test_openai_error_has_the_refused_field_as_param() -> None:
    for name, param in (("include[]", "include"), ("known_speaker_names[]", "known_speaker_names")):
        answer = Peer().feed(post(TRANSCRIPTIONS, (name, "other"), ("file", b"a"))).answer
        assert (answer.status, answer.error["code"]) == (400, "bad_field")
        assert answer.error["param"] == param
    diarized = post(TRANSCRIPTIONS, ("response_format", "diarized_json"), ("file", b"a"))
    assert Peer().feed(diarized).answer.error["param"] == "response_format"


@pytest.mark.parametrize("fields", [{"task": ["translate"]}, {"translate": ["1"]}])
def test_task_may_be_a_field_of_openais_route(fields: Fields) -> None:
    assert taken(DIALECTS[TRANSCRIPTIONS], fields)[0].task == "translate"
    request = read(fields, DIALECTS[TRANSLATIONS], Request("r", 3, task="translate"), MODEL)[0]
    assert request.task == "translate"


def test_max_len_divides_segments_in_every_format() -> None:
    for form in ("json", "text", "srt", "verbose_json"):
        request, _ = taken(DIALECTS[INFERENCE], {"max_len": ["12"], "response_format": [form]})
        assert request.cues is not None
        assert (request.cues.width, request.cues.lines) == (12, 1)
        assert request.cues.whole_words
    request, _ = taken(DIALECTS[INFERENCE], {"max_len": ["0"]})
    assert request.cues is None


def test_log_names_each_ignored_field_once() -> None:
    observer = IgnoredFields()
    outcome = taken(DIALECTS[TRANSCRIPTIONS], {})[0]
    with capture_logs() as log:
        for names in (("beam_size", "x"), ("x", "y"), ()):
            observer.finished(Origin("p", 0.0), replace(outcome, ignored=names), None)  # type: ignore[arg-type]
        for number in range(200):
            names = (f"f{number}",)
            observer.finished(Origin("p", 0.0), replace(outcome, ignored=names), None)  # type: ignore[arg-type]
    assert [line["field"] for line in log][:3] == ["beam_size", "x", "y"]
    assert len(log) == 100


# The document.


def rows(heading: str) -> list[tuple[str, ...]]:
    """The rows of the table under a heading."""
    section = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    section = section.partition("\n## ")[0]
    lines = re.findall(r"^\| (`.*) \|$", section, re.MULTILINE)
    return [tuple(line.split(" | ")) for line in lines]


def quoted(values: tuple[str, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def test_document_lists_the_refused_fields() -> None:
    assert rows("Rejected") == [
        (f"`{one.name}`", one.servers, quoted(one.neutral or ()) or "none", one.reason)
        for one in REJECTED
    ]


def test_document_lists_the_ignored_fields() -> None:
    assert rows("Ignored") == [(f"`{one.name}`", one.servers, one.reason) for one in IGNORED]


def test_document_lists_the_fields_that_are_read() -> None:
    found: dict[str, tuple[str, list[str]]] = {}
    for path, dialect in DIALECTS.items():
        for field in dialect.fields:
            found.setdefault(field.name, (field.about, []))[1].append(f"`{path}`")
    count = len(DIALECTS)
    assert rows("Read") == [
        (f"`{name}`", "all" if len(paths) == count else ", ".join(paths), about)
        for name, (about, paths) in found.items()
    ]
