"""Why a request is not served, as far as it can be known before its audio is looked at.

Pure functions that make the `Failure` to send; deciding when is the server's part.
"""

from __future__ import annotations

from app.decoding.transcriber import ModelInfo
from app.messages import (
    BAD_FIELD,
    BUSY,
    MAX_SPLIT_CHANNELS,
    NO_SPACE,
    SHUTTING_DOWN,
    TIMEOUT,
    UNAUTHORIZED,
    Failure,
    Request,
)


def unservable(request: Request, model: ModelInfo) -> Failure | None:
    """Why the loaded model cannot serve this request, if it cannot."""
    detected = request.language in ("auto", "multi")
    if detected and not model.multilingual:
        message = f"language: {model.name} knows English only, so not {request.language}"
        return Failure(BAD_FIELD, message)
    if not detected and request.language not in (None, *model.languages):
        return Failure(BAD_FIELD, f"language: {model.name} does not know {request.language}")
    if unknown := [code for code in request.languages if code not in model.languages]:
        return Failure(BAD_FIELD, f"languages: {model.name} does not know {unknown[0]}")
    raw = request.raw
    if request.channel_mode == "split" and raw is not None and raw.channels > MAX_SPLIT_CHANNELS:
        message = f"channel-mode: split takes at most {MAX_SPLIT_CHANNELS} channels"
        return Failure(BAD_FIELD, message)
    if request.task == "translate" and not model.multilingual:
        return Failure(BAD_FIELD, f"task: {model.name} knows English only and cannot translate")
    return None


def shutting_down() -> Failure:
    return Failure(SHUTTING_DOWN, "the node is shutting down", retry_after_seconds=5.0)


def kept_for_later() -> Failure:
    message = "the node is shutting down; the request is kept in its journal for the next start"
    return Failure(SHUTTING_DOWN, message)


def no_space(error: Exception) -> Failure:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    message = f"there is no room for the audio: {reason}"
    return Failure(NO_SPACE, message, retry_after_seconds=60.0)


def too_many_connections(limit: int) -> Failure:
    message = f"{limit} connections are open, which is the limit"
    return Failure(BUSY, message, retry_after_seconds=1.0)


def too_slow() -> Failure:
    message = "the body came more slowly than speech, while others waited for its place"
    return Failure(TIMEOUT, message, retry_after_seconds=60.0)


def unauthorized() -> Failure:
    return Failure(UNAUTHORIZED, "this node serves those who show its token; yours is not that one")


def too_much(seconds: float) -> Failure:
    message = "the node has as much to do as it takes at one time"
    return Failure(BUSY, message, retry_after_seconds=seconds)
