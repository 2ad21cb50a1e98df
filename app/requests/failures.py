"""The failures of requests that are rejected or fail before their audio is decoded.

Pure functions that make a `Failure`; the callers decide when to send it.
"""

from __future__ import annotations

from app.decoding.transcriber import ModelInfo
from app.limits import MAX_SPLIT_CHANNELS
from app.messages import (
    AUDIO_TOO_LONG,
    BAD_FIELD,
    BUSY,
    NO_SPACE,
    SHUTTING_DOWN,
    TIMEOUT,
    UNAUTHORIZED,
    Failure,
    Request,
)


def unservable(request: Request, model: ModelInfo) -> Failure | None:
    """Return why the loaded model cannot serve this request; None if it can."""
    detected = request.language in ("auto", "multi")
    if request.detect_only and not model.multilingual:
        return Failure(BAD_FIELD, f"language: {model.name} is English-only and detects none")
    if request.language == "multi" and not model.multilingual:
        message = f"language: {model.name} is English-only; use en or auto instead of multi"
        return Failure(BAD_FIELD, message)
    if not detected and request.language not in (None, *model.languages):
        return Failure(BAD_FIELD, f"language: {model.name} does not support {request.language}")
    if unknown := [code for code in request.languages if code not in model.languages]:
        return Failure(BAD_FIELD, f"languages: {model.name} does not support {unknown[0]}")
    raw = request.raw
    if request.channel_mode == "split" and raw is not None and raw.channels > MAX_SPLIT_CHANNELS:
        message = f"channel-mode: split takes at most {MAX_SPLIT_CHANNELS} channels"
        return Failure(BAD_FIELD, message)
    if request.task == "translate" and not model.multilingual:
        return Failure(BAD_FIELD, f"task: {model.name} is English-only and cannot translate")
    return None


def shutting_down() -> Failure:
    return Failure(SHUTTING_DOWN, "the node is shutting down; retry later", retry_after_seconds=5.0)


def kept_for_later() -> Failure:
    message = "the node is shutting down; the request is kept in its journal for the next start"
    return Failure(SHUTTING_DOWN, message)


def no_space(error: Exception) -> Failure:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return Failure(NO_SPACE, f"cannot store the audio: {reason}", retry_after_seconds=60.0)


def too_many_connections(limit: int) -> Failure:
    message = f"the node has reached its limit of {limit} connections; retry later"
    return Failure(BUSY, message, retry_after_seconds=1.0)


def too_slow() -> Failure:
    message = "the upload was slower than speech while other requests waited; retry later"
    return Failure(TIMEOUT, message, retry_after_seconds=60.0)


def audio_too_long(limit: float) -> Failure:
    message = (
        f"the audio is longer than the limit of {limit:g} s for one transcript; ask for"
        " reply: segments"
    )
    return Failure(AUDIO_TOO_LONG, message)


def unauthorized() -> Failure:
    return Failure(UNAUTHORIZED, "missing or invalid token")


def at_capacity(seconds: float) -> Failure:
    return Failure(BUSY, "the node is at capacity; retry later", retry_after_seconds=seconds)
