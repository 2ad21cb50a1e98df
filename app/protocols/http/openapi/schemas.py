"""The JSON schemas of answers: components of the OpenAPI document. Pure."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
SECONDS: Schema = {"type": "number", "minimum": 0}


def ref(name: str) -> Schema:
    """Return a reference to the component `name`."""
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def described(schema: Schema, about: str) -> Schema:
    """Return `schema` with a description."""
    return {**schema, "description": about}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """Return the schema of an object. Further fields may follow in later versions."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required)}


def one_of(*values: str) -> Schema:
    """Return the schema of a text with these values."""
    return {"type": "string", "enum": list(values)}


_TIMES = {
    "start": described(SECONDS, "Seconds from the beginning of the audio."),
    "end": described(SECONDS, "Seconds from the beginning of the audio."),
}
_WORD_EXTRA = {
    "language": described(TEXT, "With `language=multi`: a code."),
    "channel": described(WHOLE, "With `channel_mode=split`: the channel, counted from 1."),
}
_EXTRA = {**_WORD_EXTRA, "lines": described(list_of(TEXT), "The lines of a cue.")}
_WORD = {"word": TEXT, **_TIMES}
_SURE_WORD = record({**_WORD, "probability": NUMBER})
_VERBOSE = {
    "task": one_of("transcribe", "translate"),
    "model": described(TEXT, "The name of the loaded model."),
    "language": TEXT,
    "duration": SECONDS,
    "text": TEXT,
}
_TRUNCATED = {"truncated": described(FLAG, "True if the file broke off.")}
_USAGE = {"usage": record({"type": one_of("duration"), "seconds": WHOLE})}
_GROQ = {"x_groq": described(record({"id": TEXT}), "The id of the request, as Groq's API has it.")}
_LOGPROBS = {
    "logprobs": described(
        list_of(
            record({"token": TEXT, "bytes": list_of(WHOLE), "logprob": NUMBER}),
        ),
        "With `include=logprobs`: the tokens of the text, with the natural logs of their "
        "probabilities. The bytes joined are the text.",
    )
}
_LANGUAGES = {"languages": described(list_of(record({"code": TEXT})), "Empty without speech.")}

SCHEMAS: dict[str, Schema] = {
    "OpenAiText": record({"text": TEXT, **_LANGUAGES, **_USAGE, **_GROQ, **_TRUNCATED}, _LOGPROBS),
    "OpenAiVerbose": record(
        {**_VERBOSE, **_USAGE, **_GROQ, **_TRUNCATED},
        {"segments": list_of(ref("OpenAiSegment")), "words": list_of(ref("OpenAiWord"))},
    ),
    "OpenAiSegment": record(
        {
            "id": WHOLE,
            "seek": WHOLE,
            **_TIMES,
            "text": TEXT,
            "tokens": described(list_of(WHOLE), "Always empty."),
            "no_speech_prob": described(NUMBER, "Always 0."),
            "temperature": NUMBER,
            "avg_logprob": NUMBER,
            "compression_ratio": NUMBER,
        },
        _EXTRA,
    ),
    "OpenAiWord": record(_WORD, _WORD_EXTRA),
    "OpenAiEvent": {
        "description": "The data of a server-sent event.",
        "oneOf": [ref("OpenAiDelta"), ref("OpenAiDone"), ref("OpenAiError")],
    },
    "OpenAiDelta": record(
        {"type": one_of("transcript.text.delta"), "delta": TEXT, **_TIMES},
        {**_EXTRA, "words": list_of(ref("OpenAiWord")), **_LOGPROBS},
    ),
    "OpenAiDone": record(
        {
            "type": one_of("transcript.text.done"),
            "text": TEXT,
            "language": {"type": ["string", "null"]},
            **_LANGUAGES,
            **_USAGE,
            "duration": SECONDS,
            "queue_seconds": SECONDS,
            "processing_seconds": SECONDS,
            "model": TEXT,
            **_TRUNCATED,
        },
        _LOGPROBS,
    ),
    "OpenAiError": record(
        {
            "error": record(
                {
                    "message": TEXT,
                    "type": one_of("invalid_request_error", "server_error"),
                    "param": {"type": ["string", "null"]},
                    "code": ref("Code"),
                }
            )
        }
    ),
    "WhisperCppText": record({"text": TEXT, **_TRUNCATED}),
    "WhisperCppVerbose": record(
        {**_VERBOSE, "segments": list_of(ref("WhisperCppSegment")), **_TRUNCATED}
    ),
    "WhisperCppSegment": record(
        {"id": WHOLE, "text": TEXT, "temperature": NUMBER, "avg_logprob": NUMBER},
        {**_TIMES, **_EXTRA, "words": list_of(_SURE_WORD)},
    ),
    "WhisperCppError": record({"error": TEXT}),
    "AsrVerbose": record({**_VERBOSE, "segments": list_of(ref("AsrSegment")), **_TRUNCATED}),
    "AsrSegment": record(
        {"id": WHOLE, **_TIMES, "text": TEXT, "avg_logprob": NUMBER},
        {**_EXTRA, "words": list_of(_SURE_WORD)},
    ),
    "AsrError": record({"detail": TEXT, "code": ref("Code")}),
    "Language": record(
        {
            "detected_language": described(TEXT, "An English name; a guess without speech."),
            "language_code": TEXT,
            "confidence": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            **_TRUNCATED,
        }
    ),
    "Health": record({"status": one_of("ok")}),
    "Readiness": record({"status": one_of("ready", "not ready"), "reasons": list_of(TEXT)}),
    "Models": record({"object": one_of("list"), "data": list_of(ref("Model"))}),
    "Model": record(
        {
            "id": TEXT,
            "object": one_of("model"),
            "created": described(WHOLE, "The time of the model's file, in seconds since 1970."),
            "owned_by": TEXT,
            "file": described(TEXT, "The full name of the loaded model."),
        }
    ),
    "Status": record(
        {
            "model": TEXT,
            "languages": list_of(TEXT),
            "tasks": list_of(one_of("transcribe", "translate")),
            "version": TEXT,
            "uptime_seconds": SECONDS,
            "ready": FLAG,
            "draining": FLAG,
            "connections": WHOLE,
            "queue": record({"size": WHOLE, "unfinished": WHOLE, "waiting": WHOLE}),
            "engines": record({"count": WHOLE, "busy": WHOLE}),
            "live": record({"streams": WHOLE, "utterances": WHOLE}),
            "recent": list_of(ref("Recent")),
        }
    ),
    "Recent": record(
        {
            "age_seconds": SECONDS,
            "protocol": TEXT,
            "outcome": described(TEXT, "`ok` or the code of a failure."),
        },
        {
            "id": TEXT,
            "message": TEXT,
            "audio_seconds": SECONDS,
            "queue_seconds": SECONDS,
            "processing_seconds": SECONDS,
        },
    ),
}
"""The schemas by name; `Code` is added with the codes of the node."""
