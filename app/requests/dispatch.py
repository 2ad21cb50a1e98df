"""The requests the worker has: handed over, cancelled, and what comes back told.

The worker is another thread. Jobs go to it by `submit`, completions come back when it wakes the
loop; everything here is done on the loop thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.messages import Accepted, Failure, Finished, Outcome, Transcript
from app.network.connection import Connection
from app.requests.in_flight import InFlight
from app.requests.outcomes import Outcomes
from app.requests.throughput import Throughput
from app.storage.body import Body
from app.storage.journal import stem
from app.worker.job import Job
from app.worker.worker import Worker


class Dispatch:
    """`on_done` is called for every request that has left the worker."""

    def __init__(self, outcomes: Outcomes, on_done: Callable[[InFlight], None]) -> None:
        self._outcomes = outcomes
        self._on_done = on_done
        self._pending: dict[int, InFlight] = {}
        """By job."""
        self._seconds: dict[int, float] = {}
        """The same, how much audio each was guessed to be."""
        self._throughput = Throughput()

    def attach(self, worker: Worker) -> None:
        """The worker, which needs the loop's `wake` to be made."""
        self.worker = worker

    @property
    def queued_seconds(self) -> float:
        """About how much audio the worker has, what it has done of it included."""
        return sum(self._seconds.values())

    @property
    def busy_seconds(self) -> float:
        """About how long the worker will be busy with it."""
        return self._throughput.seconds_for(self.queued_seconds)

    def submit(self, pending: InFlight, body: Body) -> None:
        """A complete request goes to the worker, which closes `body`."""
        self._pending[pending.number] = pending
        connection = pending.connection
        job = Job(
            pending.number,
            # Requests and connections are counted each for themselves, from 1: what comes from no
            # connection must not be taken for a part of one, whose jobs wait for one another.
            -pending.number if connection is None else connection.number,
            pending.request,
            body,
            time.monotonic(),
            # What the journal held is one client's.
            "" if connection is None else connection.peer.address,
            mark=stem(pending.entry),
        )
        self._seconds[pending.number] = job.guessed_seconds
        self.worker.submit(job)
        if pending.request.reply in ("accepted", "none"):
            # A silent slot says nothing; either way the connection owes no more.
            pending.tell(Accepted(), final=True)

    def cancel(self, pending: InFlight) -> None:
        """Begin no more of it; it ends with the failure `cancelled`."""
        self.worker.cancel(pending.number)

    def cancel_all_of(self, connection: Connection) -> None:
        """Its peer is gone."""
        for number, pending in self._pending.items():
            if pending.connection is connection and pending.cancellable:
                self.worker.cancel(number)

    def take_completions(self) -> None:
        """Pass on what the worker has made since the last time."""
        for completion in self.worker.take_completions():
            pending = self._pending.get(completion.job)
            if pending is None:
                continue  # given up at the end of the drain
            if isinstance(completion, Finished):
                if isinstance(completion.outcome, Transcript):
                    self._throughput.note(completion.outcome)
                self._end(pending, completion.outcome)
            else:
                pending.tell(completion.segment, final=False)

    def give_up(self, failure: Failure) -> None:
        """Tell all that is unfinished that it will not be, at least not by this process."""
        for pending in list(self._pending.values()):
            self._forget(pending)
            self._outcomes.give_up(pending, failure)
            self._on_done(pending)

    def _end(self, pending: InFlight, outcome: Outcome) -> None:
        self._forget(pending)
        self._outcomes.settle(pending, outcome)
        self._on_done(pending)

    def _forget(self, pending: InFlight) -> None:
        del self._pending[pending.number], self._seconds[pending.number]
