"""The fields of Wyoming's events, and the events that the node sends.

Checked against the `wyoming` package 1.10.2 and its servers and clients. Pure: reading turns fields
into values or a `Failure`, writing turns values into bytes. Loop thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from app.limits import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, is_text, prompt_fault
from app.messages import BAD_FIELD, Failure, RawFormat, SampleEncoding, Task
from app.protocols.languages import WANTED, language_code
from app.protocols.model_names import ModelNames

# 8-bit samples are unsigned, as in WAV files: the reference subtracts 128 before widening.
_ENCODINGS: dict[int, SampleEncoding] = {1: "u8", 2: "s16", 4: "s32"}


@dataclass(frozen=True, slots=True)
class Program:
    """The description of the node: its version, the names of the model, its languages, whether
    transcripts are streamed, its own name, and the task of all requests, which cannot name one."""

    version: str
    names: ModelNames
    languages: tuple[str, ...]
    streaming: bool
    name: str = "node-whisper"
    task: Task = "transcribe"


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """The options of a `transcribe` event, as `Request` has them."""

    language: str | None = None
    prompt: str = ""
    model: str | None = None


# Reading.


def read_format(data: dict[str, Any], known: RawFormat | None = None) -> RawFormat | Failure:
    """Return the format from `audio-start` or `audio-chunk`; a chunk without one has the `known`
    format."""
    if known is not None and not data.keys() & {"rate", "width", "channels"}:
        return known
    width = data.get("width")
    if type(width) is not int or width not in _ENCODINGS:
        return Failure(BAD_FIELD, "width must be 1, 2 or 4 bytes a sample")
    rate, channels = data.get("rate"), data.get("channels")
    if type(rate) is not int or not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        limits = f"from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}"
        return Failure(BAD_FIELD, f"rate must be a whole number of Hz {limits}")
    if type(channels) is not int or not 1 <= channels <= MAX_CHANNELS:
        return Failure(BAD_FIELD, f"channels must be a whole number from 1 to {MAX_CHANNELS}")
    return RawFormat(_ENCODINGS[width], rate, channels, "little")


def read_options(data: dict[str, Any], program: Program) -> TranscribeOptions | Failure:
    """Return the options of a `transcribe`, or why they cannot be met. Hints that are not text are
    skipped. Hints that are longer together than a prompt may be are an error."""
    name = data.get("name")
    if name is not None and not isinstance(name, str):
        return Failure(BAD_FIELD, "name must be a string")
    if failure := program.names.refusal(name):
        return failure
    language = data.get("language")
    code = language_code(language) if isinstance(language, str) and language else None
    if language and code is None:
        return Failure(BAD_FIELD, f"language must be {WANTED}")
    # Names last: of a long prompt the engine reads the end.
    hints = _texts(data, "transcript_terms") + _texts(data, "transcript_names")
    prompt = ", ".join(hints)
    if fault := prompt_fault(prompt):
        return Failure(BAD_FIELD, f"the prompt of transcript_terms and transcript_names {fault}")
    return TranscribeOptions(code, prompt, name or None)


def _texts(data: dict[str, Any], name: str) -> list[str]:
    values = data.get(name)
    if not isinstance(values, list):
        return []
    texts = [" ".join(value.split()) for value in values if isinstance(value, str)]
    return [text for text in texts if text and is_text(text)]


# Writing.


def write_event(kind: str, data: dict[str, Any] | None = None) -> bytes:
    """Encode an event with its data after its line, like the reference, because a line is
    limited."""
    if not data:
        return json.dumps({"type": kind}).encode() + b"\n"
    # Half a surrogate pair cannot be encoded as UTF-8.
    text = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
    return json.dumps({"type": kind, "data_length": len(text)}).encode() + b"\n" + text


def write_start(language: str | None) -> bytes:
    """Encode a `transcript-start`, with the language if it is known already."""
    return write_event("transcript-start", _known(language))


def write_transcript(text: str, language: str | None, truncated: bool = False) -> bytes:
    """Encode a `transcript`, with its language if there is one, and `truncated` if the audio ended
    within a sample."""
    ending = {"truncated": True} if truncated else {}
    return write_event("transcript", {"text": text, **_known(language), **ending})


def _known(language: str | None) -> dict[str, Any]:
    return {} if language in (None, "auto", "multi") else {"language": language}


def write_failure(failure: Failure) -> bytes:
    """Encode an `error`."""
    data: dict[str, Any] = {"text": failure.message, "code": failure.code}
    if failure.retry_after_seconds is not None:
        data["retry_after_seconds"] = round(failure.retry_after_seconds, 1)
    return write_event("error", data)


def write_pong(data: dict[str, Any]) -> bytes:
    """Encode the answer to a `ping`, with its text."""
    text = data.get("text")
    return write_event("pong", {"text": text if isinstance(text, str) else None})


def write_info(program: Program) -> bytes:
    """Encode the answer to `describe`: one speech-to-text program with one model."""
    model = {
        "name": program.names.name,
        "description": f"Whisper {program.names.name}",
        "attribution": {"name": "OpenAI", "url": "https://github.com/openai/whisper"},
        "installed": True,
        "version": None,
        "languages": list(program.languages),
    }
    asr = {
        "name": program.name,
        "description": "Whisper transcription with whisper.cpp",
        "attribution": {
            "name": "Georgi Gerganov",
            "url": "https://github.com/ggml-org/whisper.cpp",
        },
        "installed": True,
        "version": program.version,
        "models": [model],
        "supports_transcript_streaming": program.streaming,
        # The node does not detect the end of a command: the client stops the audio.
        "requires_external_vad": True,
    }
    others: dict[str, Any] = {
        name: [] for name in ("tts", "handle", "intent", "wake", "mic", "snd")
    }
    return write_event("info", {"asr": [asr], **others})
