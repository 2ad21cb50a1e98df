"""What HTTP says: transcripts in five formats, streamed events, errors and their status.

Pure functions from the node's messages to bytes, in the shapes of OpenAI's audio API and of
whisper.cpp's server. Which of them a request gets, its `Wish` says. Loop thread.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from app import messages
from app.decoding.hypothesis import compression
from app.messages import Failure, Report, Segment, Transcript
from app.protocols.http.fields import Wish
from app.protocols.languages import NAMES
from app.protocols.subtitles import srt, vtt

JSON = "application/json"
EVENTS = "text/event-stream"

Headers = tuple[tuple[str, str], ...]

UNCACHED: Headers = (("Cache-Control", "no-store"),)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response: a status, the headers that are its own, a body."""

    status: int
    headers: Headers
    body: bytes = field(default=b"", repr=False)


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
"""By code. 499 is nginx's for a client that went away, which nobody is there to read."""

_PARAMETERS = frozenset(
    {
        "channel_mode",
        "file",
        "language",
        "languages",
        "model",
        "prompt",
        "response_format",
        "stream",
        "task",
        "temperature",
        "timestamp_granularities[]",
    }
)

_SRT = "application/x-subrip; charset=utf-8"
_VTT = "text/vtt; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"


def encoded(value: Any) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode()


def answer_of(reply: Transcript | Failure | Report, wish: Wish | None) -> Answer:
    """A last reply that is sent whole."""
    if isinstance(reply, Report):
        headers = (("Content-Type", reply.content_type), *UNCACHED)
        return Answer(200 if reply.ok else 503, headers, reply.body)
    if isinstance(reply, Failure):
        status = STATUS.get(reply.code, 500)
        more = retry_after(reply)
        if status == 401:
            more += (("WWW-Authenticate", "Bearer"),)
        return error(status, reply.code, reply.message, wish, more)
    assert wish is not None, "only an upload has a transcript"
    kind, body = rendered(reply, wish)
    return Answer(200, (("Content-Type", kind), *UNCACHED), body)


def error(
    status: int, code: str, message: str, wish: Wish | None = None, more: Headers = ()
) -> Answer:
    """An error: OpenAI's object, or whisper.cpp's, whose `error` is just the message."""
    if wish is not None and wish.dialect == "whisper.cpp":
        body = encoded({"error": message})
    else:
        body = encoded({"error": _error_fields(status, code, message)})
    return Answer(status, (("Content-Type", JSON), *UNCACHED, *more), body)


def _error_fields(status: int, code: str, message: str) -> dict[str, Any]:
    # The messages of bad and missing fields begin with the field's name.
    name = message.split(" ", 1)[0].rstrip(":").replace("-", "_")
    return {
        "message": message,
        "type": "invalid_request_error" if status < 500 else "server_error",
        "param": name if name in _PARAMETERS else None,
        "code": code,
    }


def retry_after(failure: Failure) -> Headers:
    """The header that says when to come again, where the failure does: whole seconds from 1."""
    if failure.retry_after_seconds is None:
        return ()
    return (("Retry-After", str(max(1, math.ceil(failure.retry_after_seconds)))),)


def rendered(transcript: Transcript, wish: Wish) -> tuple[str, bytes]:
    """A transcript as it was wished for: content type and body."""
    if wish.format == "srt":
        return _SRT, srt(transcript.segments).encode()
    if wish.format == "vtt":
        return _VTT, vtt(transcript.segments).encode()
    if wish.format == "text":
        return _TEXT, _text(transcript, wish).encode()
    if wish.format == "verbose_json":
        return JSON, encoded(_verbose(transcript, wish))
    fields: dict[str, Any] = {"text": _text(transcript, wish)}
    if wish.dialect == "openai":
        fields["usage"] = _usage(transcript)
    return JSON, encoded(fields)


def delta(segment: Segment, first: bool) -> bytes:
    """The event of a segment that has become final. The deltas joined are the whole text."""
    return event(
        {
            "type": "transcript.text.delta",
            "delta": segment.text if first else f" {segment.text}",
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            **_own_fields(segment),
        }
    )


def done(transcript: Transcript) -> bytes:
    """The last event of a stream."""
    return event(
        {
            "type": "transcript.text.done",
            "text": transcript.text,
            "language": transcript.language,
            "duration": round(transcript.audio_seconds, 3),
            "queue_seconds": round(transcript.queue_seconds, 4),
            "processing_seconds": round(transcript.processing_seconds, 4),
            "model": transcript.model,
        }
    )


def broken_off(failure: Failure) -> bytes:
    """The last event of a stream that failed after it had begun."""
    status = STATUS.get(failure.code, 500)
    return event({"error": _error_fields(status, failure.code, failure.message)})


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + encoded(value) + b"\n\n"


def _text(transcript: Transcript, wish: Wish) -> str:
    if wish.dialect == "whisper.cpp":
        return "".join(f"{segment.text}\n" for segment in transcript.segments)
    return f"{transcript.text}\n" if wish.format == "text" else transcript.text


def _verbose(transcript: Transcript, wish: Wish) -> dict[str, Any]:
    language = transcript.language or ""
    if wish.dialect == "openai" and wish.task == "translate":
        # There it is the language of the text, not of the speech.
        language = "en"
    fields: dict[str, Any] = {
        "task": wish.task,
        "language": NAMES.get(language, language),
        "duration": round(transcript.audio_seconds, 3),
        "text": _text(transcript, wish),
    }
    if wish.dialect == "whisper.cpp":
        fields["segments"] = [
            _whisper_cpp_segment(number, segment, wish)
            for number, segment in enumerate(transcript.segments)
        ]
        return fields
    if wish.segments:
        fields["segments"] = [
            _openai_segment(number, segment, wish)
            for number, segment in enumerate(transcript.segments)
        ]
    if wish.words:
        fields["words"] = [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                **_own_fields(segment),
            }
            for segment in transcript.segments
            for word in segment.words or ()
        ]
    fields["usage"] = _usage(transcript)
    return fields


def _own_fields(segment: Segment) -> dict[str, Any]:
    """What a segment says beyond both APIs, where it was asked for."""
    own = {"language": segment.language, "channel": segment.channel}
    return {name: value for name, value in own.items() if value is not None}


def _openai_segment(number: int, segment: Segment, wish: Wish) -> dict[str, Any]:
    return {
        "id": number,
        "seek": round(segment.start * 100),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        # Clients with fixed types want these two, of which the node knows nothing.
        "tokens": [],
        "no_speech_prob": 0.0,
        "temperature": wish.temperature,
        "avg_logprob": _mean_logprob(segment),
        "compression_ratio": round(compression(segment.text), 3),
        **_own_fields(segment),
    }


def _whisper_cpp_segment(number: int, segment: Segment, wish: Wish) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": number, "text": segment.text}
    if wish.timestamps:
        fields |= {"start": round(segment.start, 3), "end": round(segment.end, 3)}
    fields |= {"temperature": wish.temperature, "avg_logprob": _mean_logprob(segment)}
    fields |= _own_fields(segment)
    if segment.words is not None:
        fields["words"] = [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "probability": round(word.confidence, 3),
            }
            for word in segment.words
        ]
    return fields


def _mean_logprob(segment: Segment) -> float:
    # A segment's confidence is the geometric mean of its tokens' probabilities.
    return round(math.log(max(segment.confidence, 1e-9)), 4)


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(transcript.audio_seconds, 3)}
