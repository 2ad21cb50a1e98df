"""Readiness for load balancers, and the status that the page shows.

`Status` keeps the times of the latest outcomes, and why they failed; never a text or an address.
Loop thread.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from app.decoding.transcriber import ModelInfo
from app.messages import (
    BAD_FIELD,
    MISSING_FIELD,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    Failure,
    Origin,
    Outcome,
    Report,
    Request,
    Transcript,
)
from app.requests.load import Load

RECENT = 30
"""Requests that the status lists."""

MOST_LETTERS = 300
"""Length at which the message of a failure is cut."""

_READABLE = (BAD_FIELD, MISSING_FIELD, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE)
"""Codes of requests that are rejected at a header in valid form."""

_JSON = "application/json"


class Status:
    """Keeps the latest outcomes and makes reports. `load` is called for each report."""

    def __init__(self, load: Callable[[], Load], model: ModelInfo, version: str) -> None:
        self._load = load
        self._model = model
        self._version = version
        self._started_at = time.monotonic()
        self._recent: deque[tuple[float, dict[str, Any]]] = deque(maxlen=RECENT)

    def finished(self, origin: Origin, request: Request | None, outcome: Outcome) -> None:
        """Keep an outcome, unless its header has no valid form: that may be a port scanner's."""
        if request is None and (not isinstance(outcome, Failure) or outcome.code not in _READABLE):
            return
        fields: dict[str, Any] = {"protocol": origin.protocol}
        if request is not None and origin.protocol == "http":
            # The node made this id, so it says nothing about the client. The ids of the other ports
            # are made by clients.
            fields["id"] = request.id
        if isinstance(outcome, Failure):
            fields["outcome"] = outcome.code
            fields["message"] = outcome.message[:MOST_LETTERS]
        else:
            fields["outcome"] = "ok"
            fields["audio_seconds"] = round(outcome.audio_seconds, 3)
            if isinstance(outcome, Transcript):
                fields["queue_seconds"] = round(outcome.queue_seconds, 4)
            fields["processing_seconds"] = round(outcome.processing_seconds, 4)
        self._recent.append((time.monotonic(), fields))

    def report(self) -> Report:
        """Return model, queue and the latest requests, oldest first."""
        now = time.monotonic()
        load = self._load()
        fields = {
            "model": self._model.name,
            "languages": sorted(self._model.languages),
            "tasks": ["transcribe", "translate"] if self._model.multilingual else ["transcribe"],
            "version": self._version,
            "uptime_seconds": round(now - self._started_at, 1),
            "ready": load.ready,
            "draining": load.draining,
            "connections": load.connections,
            "queue": {
                "size": load.places,
                "unfinished": load.admitted + load.waiting,
                "waiting": load.waiting,
            },
            "engines": {"count": load.engines, "busy": load.busy_engines},
            "live": {"streams": load.streams, "utterances": load.live.utterances},
            "recent": [
                {"age_seconds": round(now - at, 1), **outcome} for at, outcome in self._recent
            ],
        }
        return Report(True, _JSON, json.dumps(fields).encode())

    def ready(self) -> Report:
        """Return whether a further request would be admitted at once, and why not."""
        load = self._load()
        reasons = [
            reason
            for applies, reason in (
                (not load.worker_alive, "the worker is not running"),
                (load.draining, "the node is shutting down"),
                (load.cut_off, "the broker of the queue cannot be reached"),
                (load.waiting or load.admitted >= load.places, "the queue is full"),
            )
            if applies
        ]
        if not load.ready and not reasons:
            reasons.append("stored audio must be transcribed first")
        fields = {"status": "ready" if load.ready else "not ready", "reasons": reasons}
        return Report(load.ready, _JSON, json.dumps(fields).encode())
