"""Where outcomes go besides the reply: stdout.

`StdoutSink` owns standard output on a thread of its own, so that a reader who is slow, or has
stopped, holds up neither the sockets nor the engine. `put` takes an outcome and returns at once;
`backlog` says how many lines are still unwritten, by which the server stops admitting before they
become many. On a terminal the lines are for people, else one JSON object each.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import IO

import structlog

from app.fields import reply_fields
from app.messages import Failure, Origin, Outcome, Transcript

_log = structlog.get_logger("stdout")

Format = Callable[[str | None, Origin, Outcome], str]


class StdoutSink:
    """Writes one line an outcome to `stream`. `on_broken` is called, on the sink's thread, when
    nobody reads `stream` any more."""

    def __init__(self, stream: IO[str], line: Format, on_broken: Callable[[], None]) -> None:
        self._stream = stream
        self._line = line
        self._on_broken = on_broken
        self._queue: queue.SimpleQueue[tuple[str | None, Origin, Outcome] | None]
        self._queue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Lines not yet written."""
        return self._queue.qsize()

    def put(self, request_id: str | None, origin: Origin, outcome: Outcome) -> None:
        """Queue one line."""
        self._queue.put((request_id, origin, outcome))

    def close(self, seconds: float) -> bool:
        """Write what is queued, for at most `seconds`; whether all of it was."""
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                self._stream.write(self._line(*item) + "\n")
                self._stream.flush()
        except (OSError, ValueError) as error:
            _log.error("stdout is gone; stopping", error=str(error))
            self._on_broken()


def json_line(request_id: str | None, origin: Origin, outcome: Outcome) -> str:
    """The reply's fields, `received_at` (UTC, ISO 8601) and `peer`, as one line of JSON."""
    received = datetime.fromtimestamp(origin.received_at, timezone.utc)
    stamp = received.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = reply_fields(request_id, outcome)
    return json.dumps({**fields, "received_at": stamp, "peer": origin.peer}, ensure_ascii=False)


def text_line(request_id: str | None, origin: Origin, outcome: Outcome) -> str:
    """Local time, peer, text, seconds of audio and how many times faster than real time."""
    time = datetime.fromtimestamp(origin.received_at).strftime("%H:%M:%S")
    if isinstance(outcome, Failure):
        return _printable(f"{time}  {origin.peer}  {outcome.code}: {outcome.message}")
    return _printable(f"{time}  {origin.peer}  {outcome.text}  {_measure(outcome)}")


def _measure(transcript: Transcript) -> str:
    speed = transcript.audio_seconds / max(transcript.processing_seconds, 1e-6)
    return f"({transcript.audio_seconds:.1f} s, {speed:.1f} x real time)"


def _printable(line: str) -> str:
    """Without what a terminal would obey."""
    shown = (
        character if character.isprintable() else " " if character.isspace() else "?"
        for character in line
    )
    return "".join(shown)
