"""A stand-in for the worker's side of live audio, and frames, for the tests of the loop's side.

`LiveWorker` takes the place of the live methods of a node's worker: it records what it is given and
completes what a test says. Files still go to the real worker.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

from fakes import RATE, RAW, Node, eventually, frame

from app.live import Clear, Commit, Configure, LiveEvent
from app.messages import (
    Outcome,
    Segment,
    Streamed,
    Utterance,
)
from app.worker.completions import Completion, Consumed, Finished, Progress
from app.worker.live.job import LiveJob
from app.worker.worker import Worker

END = struct.pack("!H", 0)


def framed(data: bytes, size: int = 640) -> bytes:
    """`data` in frames of `size` bytes, without the end."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(struct.pack("!H", len(piece)) + piece for piece in pieces)


def live_header(**fields: Any) -> bytes:
    """The header of a stream with samples as `pcm()` makes them."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return frame({**RAW, "live": True, "reply": "segments", **named})


def utterance(text: str, start: float = 0.0, end: float = 1.0) -> Utterance:
    return Utterance(start, end, (Segment(start, end, text, 0.9),))


def streamed(**more: Any) -> Streamed:
    fields: dict[str, Any] = {
        "language": "en",
        "utterances": 0,
        "segments": 0,
        "audio_seconds": 1.0,
        "processing_seconds": 0.1,
        "model": "fake.en",
        "truncated": False,
    }
    return Streamed(**{**fields, **more})


class LiveWorker:
    """Takes the live work of `node`. While `consumes` is False it takes no bytes."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.consumes = True
        self.finishes = False
        """Streams get their outcome as soon as their audio ends."""
        self.utterances = 0
        self.jobs: dict[int, LiveJob] = {}
        self.audio: dict[int, bytes] = {}
        self.feeds: Counter[int] = Counter()
        self.events: list[tuple[int, LiveEvent]] = []
        self.ended: list[int] = []
        self.interrupted: list[int] = []
        self._completions: list[Completion] = []
        self._replace(node.worker)

    def _replace(self, worker: Worker) -> None:
        mine = self

        class Replaced(type(worker)):  # type: ignore[misc]
            utterances = property(lambda _: mine.utterances)

            def listen(self, job: LiveJob) -> None:
                mine.jobs[job.number] = job
                mine.audio[job.number] = b""

            def feed(self, number: int, data: bytes) -> None:
                assert type(data) is bytes
                mine.audio[number] += data
                mine.feeds[number] += 1
                if mine.consumes:
                    mine.complete(Consumed(number, len(data)))

            def end(self, number: int) -> None:
                mine.ended.append(number)
                if mine.finishes:
                    mine.finish(number)

            def interrupt(self, number: int) -> None:
                mine.interrupted.append(number)

            def commit(self, number: int) -> None:
                mine.events.append((number, Commit()))

            def clear(self, number: int) -> None:
                mine.events.append((number, Clear()))

            def configure(self, number: int, event: Configure) -> None:
                mine.events.append((number, event))

            def take_completions(self) -> list[Completion]:
                taken, mine._completions = mine._completions, []
                return taken + super().take_completions()

        worker.__class__ = Replaced

    def complete(self, *completions: Completion) -> None:
        self._completions += completions
        self.node.server.loop.wake()

    def say(self, number: int, *said: Utterance) -> None:
        self.complete(*(Progress(number, one) for one in said))

    def finish(self, number: int, outcome: Outcome | None = None) -> None:
        self.complete(Finished(number, outcome or streamed()))

    def wait_for_job(self, count: int = 1) -> int:
        """Wait for the stream or command number `count`; return the number of its request."""
        eventually(lambda: len(self.jobs) >= count, f"live job {count}")
        return list(self.jobs)[count - 1]

    def wait_for_audio(self, number: int, data: bytes) -> None:
        eventually(lambda: self.audio.get(number) == data, "the audio of a live job")


def seconds_of(data: bytes) -> float:
    return len(data) / 2 / RATE
