"""The JSON form of replies, common to the native port and the lines on stdout.

Pure functions from messages to plain dictionaries. An optional field that does not apply is omitted
instead of null. Exceptions are `id`, null if the request's id was not parsed, and the fields of the
language. Any thread.
"""

from __future__ import annotations

from typing import Any

from app.live import LiveReport, Partial
from app.messages import (
    Accepted,
    Failure,
    Reply,
    Segment,
    Streamed,
    Transcript,
    Utterance,
    Word,
)


def all_fields(request_id: str | None, reply: Reply) -> list[dict[str, Any]]:
    """Return the JSON objects of a reply: one for each segment of an utterance, none for a report
    that the native form does not have, and one for any other reply."""
    if isinstance(reply, Utterance):
        return [reply_fields(request_id, segment) for segment in reply.segments]
    if isinstance(reply, Partial):
        text = {"stable": reply.stable, "rest": reply.rest}
        return [{"id": request_id, "status": "partial", **text}]
    if isinstance(reply, LiveReport):
        return []
    return [reply_fields(request_id, reply)]


def reply_fields(request_id: str | None, reply: Reply) -> dict[str, Any]:
    """Return the JSON object of one reply: `id`, `status`, then the fields of that status."""
    if isinstance(reply, Transcript):
        return {"id": request_id, "status": "ok", **_transcript_fields(reply)}
    if isinstance(reply, Failure):
        return {"id": request_id, "status": "error", "error": _failure_fields(reply)}
    if isinstance(reply, Streamed):
        return {"id": request_id, "status": "ok", **_streamed_fields(reply)}
    if isinstance(reply, Segment):
        return {"id": request_id, "status": "segment", "segment": _segment_fields(reply)}
    assert isinstance(reply, Accepted)
    return {"id": request_id, "status": "accepted"}


def _transcript_fields(transcript: Transcript) -> dict[str, Any]:
    return {
        "text": transcript.text,
        "language": transcript.language,
        "language_probability": _rounded(transcript.language_probability),
        "segments": [_segment_fields(segment) for segment in transcript.segments],
        "audio_seconds": round(transcript.audio_seconds, 3),
        "queue_seconds": round(transcript.queue_seconds, 4),
        "processing_seconds": round(transcript.processing_seconds, 4),
        "model": transcript.model,
        "truncated": transcript.truncated,
        "encoder_context": transcript.encoder_context,
        "passes": transcript.passes,
    }


def _streamed_fields(streamed: Streamed) -> dict[str, Any]:
    return {
        "language": streamed.language,
        "utterances": streamed.utterances,
        "segment_count": streamed.segments,
        "audio_seconds": round(streamed.audio_seconds, 3),
        "processing_seconds": round(streamed.processing_seconds, 4),
        "model": streamed.model,
        "truncated": streamed.truncated,
    }


def _failure_fields(failure: Failure) -> dict[str, Any]:
    fields: dict[str, Any] = {"code": failure.code, "message": failure.message}
    if failure.retry_after_seconds is not None:
        fields["retry_after_seconds"] = round(failure.retry_after_seconds, 1)
    return fields


def _segment_fields(segment: Segment) -> dict[str, Any]:
    fields = _timed_fields(segment)
    if segment.language is not None:
        fields["language"] = segment.language
    if segment.channel is not None:
        fields["channel"] = segment.channel
    if segment.lines is not None:
        fields["lines"] = segment.lines
    if segment.words is not None:
        fields["words"] = [_timed_fields(word) for word in segment.words]
    return fields


def _rounded(probability: float | None) -> float | None:
    return None if probability is None else round(probability, 3)


def _timed_fields(timed: Segment | Word) -> dict[str, Any]:
    return {
        "start": round(timed.start, 3),
        "end": round(timed.end, 3),
        "text": timed.text,
        "confidence": round(timed.confidence, 3),
    }
