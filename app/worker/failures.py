"""The failures of jobs, from the exceptions of their work."""

from __future__ import annotations

from app.audio.stream import AudioError
from app.decoding.transcriber import EngineAborted, EngineError
from app.messages import CANCELLED, INTERNAL, SHUTTING_DOWN, Failure

STOPPED = Failure(SHUTTING_DOWN, "the node stopped before this was done", retry_after_seconds=5.0)
RESET = Failure(CANCELLED, "the client reset the connection")
FAULT = Failure(INTERNAL, "the node failed on this audio; see its log")


def failure_of(error: Exception) -> Failure:
    """Return the failure of a job whose work raised `error`."""
    if isinstance(error, AudioError):
        return error.failure
    if isinstance(error, EngineAborted):
        return STOPPED
    return Failure(INTERNAL, str(error)) if isinstance(error, EngineError) else FAULT


def is_expected(error: Exception) -> bool:
    """Return whether `error` needs no stack trace in the log."""
    return isinstance(error, AudioError | EngineAborted | EngineError)
