"""The names of languages: every port and the command line understand the same ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.messages import Failure, Request
from app.protocols.http.asr_webservice import ASR_WEBSERVICE
from app.protocols.http.dialect import Dialect, read
from app.protocols.http.form import FormError
from app.protocols.http.openai import OPENAI
from app.protocols.http.whisper_cpp import WHISPER_CPP
from app.protocols.languages import NAMES, language_code, language_codes
from app.protocols.model_names import ModelNames
from app.protocols.native.header import parse_header
from app.protocols.realtime.config import Config, ConfigError, Node, updated
from app.protocols.wyoming.events import Program, read_options
from app.queue.job import HEADER, Job, read_job
from app.queue.names import Address, job_subject
from app.settings import settings

Read = Callable[[str], str | None]
"""Returns the language of a request that names it so; None if the request is rejected."""

MODEL = ModelNames("tiny", frozenset({"tiny"}))
HEADERS = {
    "id": "a",
    "byteorder": "little",
    "content-type": "audio/flac",
    "content-encoding": "",
    "content-length": 9,
}


def native(text: str) -> str | None:
    parsed = parse_header(json.dumps(HEADERS | {"language": text}).encode(), 100, lambda: "made")
    return None if parsed.failure is not None or parsed.request is None else parsed.request.language


def queue(text: str) -> str | None:
    address = Address("tiny", "short", "t1")
    header = {HEADER: json.dumps(HEADERS | {"language": text})}
    job = read_job(job_subject(address), header, 9, 1, 100)
    return job.request.language if isinstance(job, Job) else None


def http(dialect: Dialect) -> Read:
    def language(text: str) -> str | None:
        try:
            request, _ = read({"language": [text]}, dialect, Request("r", 3), MODEL)
        except FormError:
            return None
        return request.language

    return language


def wyoming(text: str) -> str | None:
    found = read_options({"language": text}, Program("1", MODEL, (), False))
    return None if isinstance(found, Failure) else found.language


def realtime(older: bool) -> Read:
    node = Node(MODEL, frozenset(NAMES), "en", 0.5, multilingual=True)

    def language(text: str) -> str | None:
        transcription = {"language": text}
        session = (
            {"input_audio_transcription": transcription}
            if older
            else {"audio": {"input": {"transcription": transcription}}}
        )
        try:
            return updated(Config(), session, node).language
        except ConfigError:
            return None

    return language


def command_line(text: str) -> str | None:
    try:
        return settings.read(["--language", text], {}).language
    except SystemExit:
        return None


PORTS: dict[str, Read] = {
    "native": native,
    "queue": queue,
    "openai": http(OPENAI),
    "inference": http(WHISPER_CPP),
    "asr": http(ASR_WEBSERVICE),
    "wyoming": wyoming,
    "realtime": realtime(older=False),
    "realtime, older": realtime(older=True),
    "command line": command_line,
}
"""Vosk's protocol names no language."""

LANGUAGES = {
    "en": "en",
    "EN": "en",
    "en-GB": "en",
    "en_US": "en",
    "en_US.UTF-8": "en",
    "de_DE@euro": "de",
    "pt-BR": "pt",
    "zh-CN": "zh",
    "zh-Hant-TW": "zh",
    "yue-HK": "yue",
    "haw": "haw",
    # Withdrawn codes, and those of languages that Whisper has under another.
    "nb": "no",
    "NB-no": "no",
    "nn": "nn",
    "iw": "he",
    "in": "id",
    "ji": "yi",
    "jv": "jw",
    "fil": "tl",
    "fil-PH": "tl",
    # Three letters.
    "deu": "de",
    "ger": "de",
    "ENG": "en",
    "fra": "fr",
    "cmn-Hans-CN": "zh",
    "nob": "no",
    # Names.
    "english": "en",
    "German": "de",
    "HAITIAN CREOLE": "ht",
    "haitian_creole": "ht",
    "Norwegian": "no",
    "Norwegian Bokmål": "no",
    "norwegian-bokmal": "no",
    "Norwegian Nynorsk": "nn",
    "Filipino": "tl",
    "Farsi": "fa",
    "Flemish": "nl",
    "Mandarin": "zh",
    "Chinese (Simplified)": "zh",
    "Brazilian Portuguese": "pt",
    "Lao": "lo",
    "auto": "auto",
    "AUTO": "auto",
    "multi": "multi",
}

NO_LANGUAGES = ("klingon", "e", "en GB", "en-", "e1", "日本", "(en)", "en\0", "-")


@pytest.mark.parametrize("port", PORTS)
def test_language_means_the_same_on_every_port(port: str) -> None:
    assert {text: PORTS[port](text) for text in LANGUAGES} == LANGUAGES


@pytest.mark.parametrize("port", PORTS)
def test_text_that_names_no_language_is_rejected_on_every_port(port: str) -> None:
    assert [text for text in NO_LANGUAGES if PORTS[port](text) is not None] == []


def test_list_of_languages_has_the_same_names() -> None:
    texts = [text for text, code in LANGUAGES.items() if code not in ("auto", "multi")]
    for text in texts:
        assert language_codes([text]) == (LANGUAGES[text],)


@pytest.mark.parametrize("code", NAMES)
def test_every_code_and_name_of_whisper_is_read(code: str) -> None:
    assert language_code(code) == language_code(NAMES[code]) == code
    assert language_code(NAMES[code].title()) == code


def test_auto_on_a_model_with_one_language_is_that_one_over_realtime() -> None:
    node = replace(
        Node(MODEL, frozenset({"en"}), "en", 0.5, multilingual=False), languages=frozenset({"en"})
    )
    session = {"audio": {"input": {"transcription": {"language": "auto"}}}}
    assert updated(Config(), session, node).language is None
