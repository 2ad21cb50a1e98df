"""Answers to requests: transcripts in several formats, reports, failures and their status.

Pure functions from the node's messages to answers. The dialect in a request's `ReplyOptions` says
what differs between the APIs. Loop thread.
"""

from __future__ import annotations

import math

from app import messages
from app.messages import Failure, Report, Transcript
from app.protocols.http import openai
from app.protocols.http.answer import JSON, UNCACHED, Answer, Headers, encoded, json_answer
from app.protocols.http.dialect import Format, ReplyOptions
from app.protocols.http.openai import OPENAI
from app.protocols.subtitles import srt, tsv, vtt

STATUS: dict[str, int] = {
    messages.BAD_HEADER: 400,
    messages.MISSING_FIELD: 400,
    messages.BAD_FIELD: 400,
    messages.INCOMPLETE: 400,
    messages.BAD_AUDIO: 400,
    messages.UNAUTHORIZED: 401,
    messages.MODEL_NOT_FOUND: 404,
    messages.TIMEOUT: 408,
    messages.TOO_LARGE: 413,
    messages.AUDIO_TOO_LONG: 413,
    messages.UNSUPPORTED_MEDIA_TYPE: 415,
    messages.QUARANTINED: 422,
    messages.CANCELLED: 499,
    messages.INTERNAL: 500,
    messages.JOURNAL_DAMAGED: 500,
    messages.BUSY: 503,
    messages.SHUTTING_DOWN: 503,
    messages.NO_SPACE: 507,
}
"""HTTP status by code. 499 is nginx's for a client that is gone; it is never sent."""

KINDS: dict[Format, str] = {
    "json": JSON,
    "verbose_json": JSON,
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
}
"""The content type of a transcript by its format."""


def answer_of(reply: Transcript | Failure | Report, options: ReplyOptions | None) -> Answer:
    """Return the answer for a last reply that is not streamed."""
    if isinstance(reply, Report):
        headers = (("Content-Type", reply.content_type), *UNCACHED)
        return Answer(200 if reply.ok else 503, headers, reply.body)
    if isinstance(reply, Failure):
        # As OpenAI's and whisper.cpp's servers answer to bytes that are no audio.
        status = 400 if reply.unrecognised else STATUS.get(reply.code, 500)
        more = _retry_after(reply)
        if status == 401:
            more += (("WWW-Authenticate", "Bearer"),)
        return error(status, reply.code, reply.message, options, more)
    assert options is not None, "only an upload has a transcript"
    kind, body = rendered(reply, options)
    # The formats without fields have no other place for it.
    truncated = (("X-Truncated", "true"),) if reply.truncated else ()
    return Answer(200, (("Content-Type", kind), *UNCACHED, *truncated), body)


def error(
    status: int,
    code: str,
    message: str,
    options: ReplyOptions | None = None,
    more: Headers = (),
) -> Answer:
    """Return an error in the request's dialect; in OpenAI's before there is a dialect."""
    dialect = OPENAI if options is None else options.dialect
    return json_answer(status, dialect.error(status, code, message), more)


def error_event(failure: Failure) -> bytes:
    """Return the last event of a stream that failed after it had begun."""
    status = STATUS.get(failure.code, 500)
    return openai.event(OPENAI.error(status, failure.code, failure.message))


def rendered(transcript: Transcript, options: ReplyOptions) -> tuple[str, bytes]:
    """Return content type and body of a transcript in the format that was asked for."""
    dialect = options.dialect
    kind = KINDS[options.format]
    if options.format == "srt":
        return kind, srt(transcript.segments).encode()
    if options.format == "vtt":
        return kind, vtt(transcript.segments).encode()
    if options.format == "tsv":
        return kind, tsv(transcript.segments).encode()
    text = dialect.text(transcript, options)
    if options.format == "text":
        return kind, text.encode()
    truncated = {"truncated": transcript.truncated}
    if options.format == "json":
        return kind, encoded(dialect.brief(transcript, options) | truncated)
    fields = {
        "task": options.task,
        "model": transcript.model,
        "language": dialect.language(transcript, options),
        "duration": round(transcript.audio_seconds, 3),
        "text": text,
        **dialect.details(transcript, options),
        **dialect.extra(transcript, options),
        **truncated,
    }
    return kind, encoded(fields)


def _retry_after(failure: Failure) -> Headers:
    """Return the header `Retry-After` of a failure that has it, in whole seconds from 1."""
    if failure.retry_after_seconds is None:
        return ()
    return (("Retry-After", str(max(1, math.ceil(failure.retry_after_seconds)))),)
