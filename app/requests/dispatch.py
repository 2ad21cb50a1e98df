"""The requests that the worker has: submits and cancels them, and passes on what comes back.

The worker is another thread. Jobs go to it by `submit`; its completions are taken when it wakes the
loop. Loop thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.messages import Accepted, Failure, Finished, Outcome, Progress, Transcript
from app.requests.in_flight import InFlight
from app.requests.outcomes import Outcomes
from app.requests.throughput import Throughput
from app.storage.body import Body
from app.worker.job import Job
from app.worker.worker import Worker


class Dispatch:
    """Calls `on_done` with every request that has left the worker."""

    def __init__(
        self, worker: Worker, outcomes: Outcomes, on_done: Callable[[InFlight], None]
    ) -> None:
        self._worker = worker
        self._outcomes = outcomes
        self._on_done = on_done
        self._submitted: dict[int, InFlight] = {}
        """The submitted requests, by number."""
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
        )
        self._submitted[job.number] = in_flight
        self._seconds[job.number] = job.guessed_seconds
        self._worker.submit(job)
        if in_flight.request.reply in ("accepted", "none"):
            # A silent slot sends nothing; either way the client has had its last reply.
            client.reply(Accepted(), final=True)

    def cancel(self, in_flight: InFlight) -> None:
        """Stop a request before its next window; it ends with the failure `cancelled`."""
        self._worker.cancel(in_flight.number)

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
                continue  # given up at the end of the drain
            if isinstance(completion, Finished):
                if isinstance(completion.outcome, Transcript):
                    self._throughput.note(completion.outcome)
                self._end(in_flight, completion.outcome)
            elif isinstance(completion, Progress):
                in_flight.client.reply(completion.reply, final=False)

    def give_up(self, failure: Failure) -> None:
        """End all requests that are unfinished, and let the worker begin no further window."""
        for in_flight in list(self._submitted.values()):
            self._forget(in_flight)
            self._outcomes.give_up(in_flight, failure)
            self._on_done(in_flight)
        self._worker.stop()

    def _end(self, in_flight: InFlight, outcome: Outcome) -> None:
        self._forget(in_flight)
        self._outcomes.settle(in_flight, outcome)
        self._on_done(in_flight)

    def _forget(self, in_flight: InFlight) -> None:
        del self._submitted[in_flight.number], self._seconds[in_flight.number]
