"""The line an outcome has on stdout: JSON for programs, text for people on a terminal.

Pure functions; the disk thread calls them, through `app/output/stdout.py`.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone

from app.messages import Failure, Origin, Outcome, Transcript
from app.protocols.native.fields import reply_fields


def json_line(request_id: str | None, origin: Origin, outcome: Outcome) -> str:
    """The reply's fields, `received_at` (UTC, ISO 8601) and `peer`, as one line of JSON;
    `recovered` where it came out of the journal."""
    received = datetime.fromtimestamp(origin.received_at, timezone.utc)
    stamp = received.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = {**reply_fields(request_id, outcome), "received_at": stamp, "peer": origin.peer}
    if origin.recovered:
        fields["recovered"] = True
    return json.dumps(fields, ensure_ascii=False)


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
