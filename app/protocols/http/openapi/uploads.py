"""The operations that take audio, made from the dialects' fields. Pure."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import Any

from app.protocols.http.asr_webservice import ASR_WEBSERVICE, LANGUAGE_DETECTION, OUTPUTS
from app.protocols.http.dialect import Dialect, Format
from app.protocols.http.field_table import Field
from app.protocols.http.form import FILE, MAX_PARTS
from app.protocols.http.json_body import MAX_JSON_BYTES
from app.protocols.http.openai import FORMATS, OPENAI
from app.protocols.http.openapi.schemas import Schema, ref
from app.protocols.http.replies import KINDS
from app.protocols.http.routes import Upload
from app.protocols.http.whisper_cpp import WHISPER_CPP

EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Shape:
    """The parts of the document that differ between dialects. `formats` are those of the answers by
    the value of the field `choice`; `text`, `verbose` and `error` name the schemas of the two JSON
    formats and of errors. The document has an example for each format, and `examples`."""

    about: str
    formats: dict[str, Format]
    choice: str | None
    text: str
    verbose: str
    error: str
    examples: tuple[dict[str, Any], ...] = ()
    streams: bool = False


SHAPES: dict[Dialect, Shape] = {
    OPENAI: Shape(
        "OpenAI's audio API.",
        {name: name for name in FORMATS},
        "response_format",
        "OpenAiText",
        "OpenAiVerbose",
        "OpenAiError",
        (
            {
                "response_format": "verbose_json",
                "timestamp_granularities": ["segment", "word"],
            },
            {"include": ["logprobs"]},
            {"stream": True},
            {"language": "en", "prompt": "Ask not", "temperature": 0.2, "keywords": ["country"]},
            {"response_format": "vtt", "max_line_width": 32, "max_cue_seconds": 5},
        ),
        streams=True,
    ),
    WHISPER_CPP: Shape(
        "The API of whisper.cpp's server.",
        {name: name for name in FORMATS},
        "response_format",
        "WhisperCppText",
        "WhisperCppVerbose",
        "WhisperCppError",
        ({"response_format": "verbose_json", "no_timestamps": True},),
    ),
    ASR_WEBSERVICE: Shape(
        "The API of whisper-asr-webservice.",
        dict(OUTPUTS),
        "output",
        "AsrVerbose",
        "AsrVerbose",
        "AsrError",
        ({"output": "json", "word_timestamps": True, "language": "en"},),
    ),
    LANGUAGE_DETECTION: Shape(
        "Tells the language of the first speech. It needs a multilingual model.",
        {"json": "json"},
        None,
        "Language",
        "Language",
        "AsrError",
    ),
}


def operation(found: Upload) -> dict[str, Any]:
    """Return the operation of a route, without its errors."""
    dialect, shape = found.dialect, SHAPES[found.dialect]
    translates = found.task == "translate"
    about = f"{shape.about} {'Answers in English.' if translates else ''}".strip()
    return {
        "tags": ["audio"],
        "summary": "Translate audio" if translates else "Transcribe audio",
        "description": f"{about} The fields stand in the query or in the body.",
        "parameters": [_parameter(field) for field in dialect.fields],
        "requestBody": {"required": True, "content": _bodies(dialect, shape)},
        "responses": {"200": _answer(shape)},
    }


def _parameter(field: Field) -> dict[str, Any]:
    more = {"style": "form", "explode": False} if field.kind == "list" else {}
    return {
        "name": field.name,
        "in": "query",
        "description": field.about,
        "schema": _schema(field),
        **more,
    }


def _schema(field: Field) -> Schema:
    limits: Schema = {}
    if field.kind in ("number", "whole"):
        limits = {"minimum": field.least, "maximum": field.most}
    elif field.most is not None:
        limits = {"maxItems" if field.kind == "list" else "maxLength": int(field.most)}
    values: Schema = {"enum": list(field.values)} if field.values else {}
    default: Schema = {} if field.default is None else {"default": field.default}
    if field.kind == "list":
        default = {} if field.default is None else {"default": [field.default]}
        return {"type": "array", "items": {"type": "string", **values}, **limits, **default}
    kinds = {"text": "string", "flag": "boolean", "number": "number", "whole": "integer"}
    return {"type": kinds[field.kind], **values, **limits, **default}


def _bodies(dialect: Dialect, shape: Shape) -> dict[str, Any]:
    fields = {field.name: _described(field) for field in dialect.fields}
    chosen: list[dict[str, Any]] = [{}]
    if shape.choice is not None:
        chosen = [{shape.choice: value} for value in shape.formats]
    chosen += shape.examples
    audio = {"type": "string", "format": "binary", "description": "The audio."}
    text = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "The audio in base64, also as a `data:` URL.",
    }
    raw = {"schema": {"type": "string", "format": "binary"}}
    return {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "description": f"A form of at most {MAX_PARTS} parts.",
                "properties": {dialect.file_field: audio, **fields},
                "required": [dialect.file_field],
            },
            "examples": _examples({dialect.file_field: "recording.wav"}, chosen),
        },
        "application/json": {
            "schema": {
                "type": "object",
                "description": f"An object of at most {MAX_JSON_BYTES} bytes.",
                "properties": {FILE: text, **fields},
                "required": [FILE],
            },
            "examples": _examples({FILE: base64.b64encode(_silence()).decode()}, chosen[:1]),
        },
        "audio/*": raw,
        "video/*": raw,
        "application/octet-stream": raw,
        "audio/l16": {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": "Samples of 16 bits, big-endian, with the parameters `rate` and "
                "`channels` in the type (RFC 2586); `audio/pcm` for little-endian ones.",
            }
        },
    }


def _described(field: Field) -> Schema:
    return {**_schema(field), "description": field.about}


def _examples(audio: dict[str, Any], chosen: list[dict[str, Any]]) -> dict[str, Any]:
    return {_example_name(fields): {"value": {**audio, **fields}} for fields in chosen}


def _example_name(fields: dict[str, Any]) -> str:
    words = list(fields) if len(fields) != 1 else [word for pair in fields.items() for word in pair]
    return "_".join(str(word).lower() for word in words) or "plain"


def _answer(shape: Shape) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for form in shape.formats.values():
        kind = KINDS[form].partition(";")[0]
        if form == "json":
            content.setdefault(kind, {"schema": {"anyOf": []}})["schema"]["anyOf"].append(
                ref(shape.text)
            )
        elif form == "verbose_json":
            content.setdefault(kind, {"schema": {"anyOf": []}})["schema"]["anyOf"].append(
                ref(shape.verbose)
            )
        else:
            content[kind] = {"schema": {"type": "string"}}
    if shape.streams:
        content[EVENTS] = {
            "schema": {"type": "string", "description": "Each event is an `OpenAiEvent`."}
        }
    headers = {
        name: {"$ref": f"#/components/headers/{name}"}
        for name in ("X-Request-Id", "X-Model", "X-Truncated", "X-Ignored-Fields")
    }
    by_value = ", ".join(f"`{value}`" for value in shape.formats)
    chosen = f" in the form that `{shape.choice}` names: {by_value}" if shape.choice else ""
    return {"description": f"The text{chosen}.", "headers": headers, "content": content}


def _silence() -> bytes:
    """Return a tenth of a second of silence as a WAV file of 8 kHz and 8 bits."""
    samples = b"\x80" * 800
    form = struct.pack("<HHIIHH", 1, 1, 8_000, 8_000, 1, 8)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
