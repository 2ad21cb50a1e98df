"""Format an outcome, or a segment of a stream, as a line for stdout: JSON for programs, text for
people on a terminal.

Pure functions, called by the disk thread in `app/output/stdout.py`.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone

from app.messages import Failure, Origin, Outcome, Segment, Streamed, Transcript
from app.protocols.native.replies import reply_fields


def json_line(request_id: str | None, origin: Origin, outcome: Outcome | Segment) -> str:
    """Return the reply's fields, `received_at` (UTC, ISO 8601) and `peer` as one line of JSON, and
    `recovered` if the request was recovered from the journal, and `delivered` if it is a job of the
    queue."""
    received = datetime.fromtimestamp(origin.received_at, timezone.utc)
    stamp = received.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = {**reply_fields(request_id, outcome), "received_at": stamp, "peer": origin.peer}
    if origin.recovered:
        fields["recovered"] = True
    if origin.delivered is not None:
        fields["delivered"] = origin.delivered
    return json.dumps(fields, ensure_ascii=False)


def text_line(request_id: str | None, origin: Origin, outcome: Outcome | Segment) -> str:
    """Return local time, peer, text, seconds of audio and the speed in multiples of real time. The
    line of a stream's segment has the time at which its speech ended, and its place in the audio;
    the last line of a stream has the time of its end."""
    heard = 0.0
    if isinstance(outcome, Segment | Streamed):
        heard = outcome.end if isinstance(outcome, Segment) else outcome.audio_seconds
    time = datetime.fromtimestamp(origin.received_at + heard).strftime("%H:%M:%S")
    if isinstance(outcome, Segment):
        span = f"({outcome.start:.1f} to {outcome.end:.1f} s)"
        return _printable(f"{time}  {origin.peer}  {outcome.text}  {span}")
    if isinstance(outcome, Failure):
        return _printable(f"{time}  {origin.peer}  {outcome.code}: {outcome.message}")
    if isinstance(outcome, Streamed):
        text = f"end of the stream, utterances: {outcome.utterances}"
    else:
        text = outcome.text
    return _printable(f"{time}  {origin.peer}  {text}  {_measure(outcome)}")


def _measure(outcome: Transcript | Streamed) -> str:
    speed = outcome.audio_seconds / max(outcome.processing_seconds, 1e-6)
    return f"({outcome.audio_seconds:.1f} s, {speed:.1f} x real time)"


def _printable(line: str) -> str:
    """Replace control characters, which a terminal would interpret."""
    shown = (
        character if character.isprintable() else " " if character.isspace() else "?"
        for character in line
    )
    return "".join(shown)
