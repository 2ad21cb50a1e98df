"""The requests that the worker has: submits and cancels them, and passes on what comes back.

The worker is another thread. Jobs go to it by `submit`, live audio by `listen` and `feed`; its
completions are taken when it wakes the loop. Loop thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.live import Clear, Commit, LiveEvent
from app.messages import Accepted, Failure, Outcome, Transcript
from app.requests.in_flight import InFlight
from app.requests.outcomes import Outcomes
from app.requests.throughput import Throughput
from app.storage.body import Body
from app.worker.completions import Finished, Progress
from app.worker.job import Job
from app.worker.live.job import LiveJob
from app.worker.worker import Worker


class Dispatch:
    """Calls `on_done` with every request that has left the worker."""

    def __init__(
        self, worker: Worker, outcomes: Outcomes, on_done: Callable[[InFlight], None]
    ) -> None:
        self._worker = worker
        self._outcomes = outcomes
        self._on_done = on_done
        self.on_consumed: Callable[[int, int], None] = lambda _number, _size: None
        """Called with a stream's number and the bytes of its audio that the worker has taken."""
        self._submitted: dict[int, InFlight] = {}
        """The submitted requests and the streams, by number."""
        self._heard: set[int] = set()
        """The numbers of streams, and of commands that are heard before they are submitted."""
        self._seconds: dict[int, float] = {}
        """Estimated seconds of audio, by number of the request."""
        self._throughput = Throughput()

    @property
    def jobs(self) -> list[int]:
        """The numbers of the requests that the worker has."""
        return list(self._submitted)

    @property
    def queued_seconds(self) -> float:
        """The length of the worker's audio, estimated; it includes audio that is transcribed."""
        return sum(self._seconds.values())

    @property
    def busy_seconds(self) -> float:
        """The time that the worker needs for it, estimated."""
        return self._throughput.seconds_for(self.queued_seconds)

    @property
    def utterances(self) -> int:
        """The number of utterances of streams that are in progress."""
        return self._worker.utterances

    def submit(self, in_flight: InFlight, body: Body) -> None:
        """Hand a complete request to the worker, which closes `body`."""
        client = in_flight.client
        job = Job(
            in_flight.number,
            client.sequence,
            in_flight.request,
            body,
            time.monotonic(),
            client.name,
            journal_entry=client.journal_entry,
            suspect=client.suspect,
        )
        self._heard.discard(job.number)
        self._submitted[job.number] = in_flight
        self._seconds[job.number] = job.guessed_seconds
        self._worker.submit(job)
        if in_flight.request.reply in ("accepted", "none"):
            # A silent slot sends nothing; either way the client has had its last reply.
            client.reply(Accepted(), final=True)

    # Live audio.

    def listen(self, in_flight: InFlight) -> None:
        """Let the worker hear a request while its audio arrives. A stream has its outcome after its
        audio; any other request is still to be submitted."""
        client, number = in_flight.client, in_flight.number
        self._heard.add(number)
        if in_flight.request.live is not None:
            self._submitted[number] = in_flight
        self._worker.listen(LiveJob(number, client.sequence, in_flight.request, client.name))

    def feed(self, number: int, data: bytes) -> None:
        """Pass on the next bytes of audio."""
        self._worker.feed(number, data)

    def control(self, number: int, event: LiveEvent) -> None:
        """Pass on an event of a stream's client."""
        if isinstance(event, Commit):
            self._worker.commit(number)
        elif isinstance(event, Clear):
            self._worker.clear(number)
        else:
            self._worker.configure(number, event)

    def end(self, number: int) -> None:
        """The client has ended a stream's audio."""
        self._worker.end(number)

    def interrupt(self, number: int) -> None:
        """The node ends a stream's audio."""
        self._worker.interrupt(number)

    def stop_listening(self, number: int) -> None:
        """Let the worker forget a stream, or a command that is not submitted. Does nothing for
        other requests."""
        if number in self._heard:
            self._heard.discard(number)
            self._submitted.pop(number, None)
            self._worker.cancel(number)

    # Cancelling, and the worker's completions.

    def cancel(self, in_flight: InFlight) -> None:
        """Stop a request before its next window; it ends with the failure `cancelled`."""
        self._worker.cancel(in_flight.number)

    def withdraw(self, in_flight: InFlight) -> None:
        """Forget a request without an outcome, because another process does it; stop it before its
        next window."""
        if self._submitted.get(in_flight.number) is in_flight:
            self._forget(in_flight)
            self._worker.cancel(in_flight.number)
            self._on_done(in_flight)

    def cancel_all_of(self, sequence: int) -> None:
        """Cancel the requests of a client that is gone, where they are only for it."""
        for in_flight in self._submitted.values():
            if in_flight.client.sequence == sequence and in_flight.client.cancellable:
                self.cancel(in_flight)

    def take_completions(self) -> None:
        """Pass on what the worker has completed since the last call."""
        for completion in self._worker.take_completions():
            in_flight = self._submitted.get(completion.job)
            if in_flight is None:
                continue  # given up, withdrawn, or a stream that was dropped
            if isinstance(completion, Finished):
                self._end(in_flight, completion.outcome)
            elif isinstance(completion, Progress):
                self._outcomes.progress(in_flight, completion)
            else:
                self.on_consumed(completion.job, completion.size)

    def give_up(self, failure: Failure) -> None:
        """End all requests that are unfinished, and let the worker begin no further window."""
        for in_flight in list(self._submitted.values()):
            self._forget(in_flight)
            self._outcomes.give_up(in_flight, failure)
            self._on_done(in_flight)
        self._worker.stop()

    def _end(self, in_flight: InFlight, outcome: Outcome) -> None:
        # The time of a stream's text includes pauses, which nobody waits for.
        if isinstance(outcome, Transcript) and in_flight.request.live is None:
            self._throughput.note(outcome)
        self._forget(in_flight)
        self._outcomes.settle(in_flight, outcome)
        self._on_done(in_flight)

    def _forget(self, in_flight: InFlight) -> None:
        del self._submitted[in_flight.number]
        self._seconds.pop(in_flight.number, None)
        self._heard.discard(in_flight.number)
