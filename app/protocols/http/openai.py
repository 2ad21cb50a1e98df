"""The dialect of OpenAI's audio API: form fields, JSON replies, errors, events of a stream.

Pure functions of the node's messages, in the shapes of OpenAI's API reference (audio).
"""

from __future__ import annotations

import math
from typing import Any, get_args

from app.decoding.hypothesis import compression
from app.decoding.text_tokens import led
from app.messages import BAD_FIELD, RawFormat, Segment, Task, Transcript, Word
from app.protocols.http import field_table
from app.protocols.http import fields as form_fields
from app.protocols.http.answer import encoded
from app.protocols.http.dialect import Format, ReplyOptions, segment_extra, word_extra
from app.protocols.http.field_table import Field
from app.protocols.http.form import FILE, Fields, FormError
from app.protocols.http.lists import list_of
from app.protocols.http.unread_fields import UNREAD
from app.protocols.languages import NAMES
from app.protocols.logprobs import joined, logprobs_json

FORMATS: tuple[Format, ...] = ("json", "text", "srt", "verbose_json", "vtt")
_STREAMED: tuple[Format, ...] = ("json", "text")
_GRANULARITIES = ("segment", "word")
_LOGPROBS = "logprobs"


class OpenAi:
    """OpenAI's audio API as a `Dialect`."""

    file_field = FILE
    prompt_field = "prompt"
    fields = (
        field_table.LANGUAGE,
        field_table.prompt("prompt"),
        Field("response_format", "The form of the answer.", values=FORMATS, default="json"),
        field_table.TEMPERATURE,
        Field(
            "timestamp_granularities",
            "What has times in `verbose_json`; `word` needs that format, or `stream`. Clients of "
            "OpenAI write `timestamp_granularities[]`.",
            "list",
            values=_GRANULARITIES,
            default="segment",
        ),
        Field(
            "include",
            "`logprobs` adds the probabilities of the tokens; it needs `response_format` `json`. "
            "Clients of OpenAI write `include[]`.",
            "list",
            values=(_LOGPROBS,),
        ),
        Field("task", "`translate` answers in English.", values=get_args(Task)),
        field_table.flag("translate", "The same as `task=translate`."),
        field_table.flag(
            "stream", "Send an event for each segment, with `response_format` `json` or `text`."
        ),
        *field_table.COMMON,
    )

    def read_options(self, fields: Fields, task: Task) -> ReplyOptions:
        form = response_format(fields)
        granularities = _granularities(fields)
        stream = form_fields.flag(fields, "stream")
        if "word" in granularities and form != "verbose_json" and not stream:
            message = "timestamp_granularities[] word needs response_format verbose_json, or stream"
            raise FormError(BAD_FIELD, message)
        if stream and form not in _STREAMED:
            message = f"stream needs response_format {' or '.join(_STREAMED)}"
            raise FormError(BAD_FIELD, message)
        return ReplyOptions(
            dialect=self,
            task=_task(fields, task),
            format=form,
            segments="segment" in granularities,
            words="word" in granularities,
            stream=stream,
            temperature=form_fields.temperature(fields),
            logprobs=_includes_logprobs(fields, form),
        )

    def read_language(self, fields: Fields) -> str | None:
        return form_fields.language(form_fields.last(fields, "language"))

    def read_samples(self, fields: Fields) -> RawFormat | None:
        return None

    def error(self, status: int, code: str, message: str) -> dict[str, Any]:
        # The messages of bad and missing fields begin with the field's name.
        name = message.split(" ", 1)[0].rstrip(":").replace("-", "_")
        error = {
            "message": message,
            "type": "invalid_request_error" if status < 500 else "server_error",
            "param": name if name in _PARAMETERS else None,
            "code": code,
        }
        return {"error": error}

    def text(self, transcript: Transcript, options: ReplyOptions) -> str:
        return f"{transcript.text}\n" if options.format == "text" else transcript.text

    def brief(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        return {
            "text": self.text(transcript, options),
            "languages": _languages(transcript),
            **_logprobs(transcript, options.logprobs),
            **self.extra(transcript, options),
        }

    def extra(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        # Groq's API has `x_groq`, and the AI SDK's package for Groq rejects answers without it.
        return {"usage": _usage(transcript), "x_groq": {"id": options.request_id}}

    def language(self, transcript: Transcript, options: ReplyOptions) -> str:
        # Of the text, not of the speech.
        code = "en" if options.task == "translate" else transcript.language or ""
        return NAMES.get(code, code)

    def details(self, transcript: Transcript, options: ReplyOptions) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if options.segments:
            fields["segments"] = [
                _segment(number, segment, options)
                for number, segment in enumerate(transcript.segments)
            ]
        if options.words:
            fields["words"] = [
                {**_word(word), **word_extra(segment)}
                for segment in transcript.segments
                for word in segment.words or ()
            ]
        return fields


OPENAI = OpenAi()
_PARAMETERS = {FILE, *UNREAD, *(field.name for field in OpenAi.fields)}
_PARAMETERS.add("timestamp_granularities[]")


def response_format(fields: Fields) -> Format:
    """Return the value of `response_format`. Raises `FormError`."""
    value = form_fields.last(fields, "response_format") or "json"
    if value not in FORMATS:
        wanted = ", ".join(FORMATS)
        raise FormError(BAD_FIELD, f"response_format must be one of {wanted}")
    return value


def mean_logprob(segment: Segment) -> float:
    """Return the mean log probability of a segment's tokens."""
    # A segment's confidence is the geometric mean of its tokens' probabilities.
    return round(math.log(max(segment.confidence, 1e-9)), 4)


def delta(segment: Segment, first: bool) -> bytes:
    """Return the event of a final segment. The deltas joined are the whole text. Words are there if
    they were requested; OpenAI has none in a stream."""
    space = "" if first or segment.continues else " "
    more: dict[str, Any] = {}
    if segment.words is not None:
        more["words"] = [_word(word) for word in segment.words]
    if segment.tokens is not None:
        more[_LOGPROBS] = logprobs_json(led(segment.tokens, space))
    return event(
        {
            "type": "transcript.text.delta",
            "delta": space + segment.text,
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            **segment_extra(segment),
            **more,
        }
    )


def done(transcript: Transcript, logprobs: bool = False) -> bytes:
    """Return the last event of a stream, with the probabilities of the tokens if requested."""
    return event(
        {
            "type": "transcript.text.done",
            "text": transcript.text,
            "language": transcript.language,
            "languages": _languages(transcript),
            **_logprobs(transcript, logprobs),
            "usage": _usage(transcript),
            "duration": round(transcript.audio_seconds, 3),
            "queue_seconds": round(transcript.queue_seconds, 4),
            "processing_seconds": round(transcript.processing_seconds, 4),
            "model": transcript.model,
            "truncated": transcript.truncated,
        }
    )


def _usage(transcript: Transcript) -> dict[str, Any]:
    """Return the usage of the API, in seconds of audio rounded up, as in OpenAI's reference."""
    return {"type": "duration", "seconds": math.ceil(round(transcript.audio_seconds, 3))}


def _languages(transcript: Transcript) -> list[dict[str, str]]:
    """Return the languages of the speech, that of most of it first."""
    codes = (transcript.language, *(segment.language for segment in transcript.segments))
    return [{"code": code} for code in dict.fromkeys(codes) if code]


def event(value: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: " + encoded(value) + b"\n\n"


def _task(fields: Fields, task: Task) -> Task:
    """Return the task; `task` is that of the route."""
    value = form_fields.last(fields, "task") or task
    if value not in get_args(Task):
        raise FormError(BAD_FIELD, "task must be transcribe or translate")
    translate = form_fields.flag(fields, "translate") or "translate" in (task, value)
    return "translate" if translate else "transcribe"


def _granularities(fields: Fields) -> frozenset[str]:
    name = "timestamp_granularities"
    values = list_of(fields, name)
    if unknown := set(values) - set(_GRANULARITIES):
        shown = min(unknown)[:40]
        raise FormError(BAD_FIELD, f"{name}[] must be segment or word, not {shown!r}")
    return frozenset(values or ["segment"])


def _includes_logprobs(fields: Fields, form: Format) -> bool:
    values = list_of(fields, "include")
    if unknown := set(values) - {_LOGPROBS}:
        shown = min(unknown)[:40]
        raise FormError(BAD_FIELD, f"include must be {_LOGPROBS}, not {shown!r}")
    if values and form != "json":
        raise FormError(BAD_FIELD, f"include {_LOGPROBS} needs response_format json")
    return bool(values)


def _logprobs(transcript: Transcript, wanted: bool) -> dict[str, Any]:
    return {_LOGPROBS: logprobs_json(joined(transcript.segments))} if wanted else {}


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}


def _segment(number: int, segment: Segment, options: ReplyOptions) -> dict[str, Any]:
    return {
        "id": number,
        "seek": round(segment.start * 100),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        # Clients with fixed types require these two, which the node cannot know.
        "tokens": [],
        "no_speech_prob": 0.0,
        "temperature": options.temperature,
        "avg_logprob": mean_logprob(segment),
        "compression_ratio": round(compression(segment.text), 3),
        **segment_extra(segment),
    }
