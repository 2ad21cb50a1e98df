"""The messages from the worker to the loop. Frozen dataclasses, like those in `app/messages.py`."""

from __future__ import annotations

from dataclasses import dataclass

from app.live import LiveReport
from app.messages import Outcome, Segment, Utterance


@dataclass(frozen=True, slots=True)
class Progress:
    """Job `job` has a reply that is not its last: a final segment, or a report of a stream."""

    job: int
    reply: Segment | Utterance | LiveReport


@dataclass(frozen=True, slots=True)
class Consumed:
    """The worker has taken `size` more bytes of the audio of the live job `job`."""

    job: int
    size: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Job `job` has its outcome; no further message concerns it."""

    job: int
    outcome: Outcome


Completion = Progress | Consumed | Finished
