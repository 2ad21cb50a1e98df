"""Commits complete requests: on disk where they have to be, then to the worker.

With a journal every request is written there first and accepted only then. Without one, only a
large body whose last bytes are on their way to its file has to wait. The disk thread does either
while the loop serves the sockets. Requests of one sequence stay in order: one that could go at once
waits for an earlier one that has to wait. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable

from app.requests.client import JournalClient
from app.requests.dispatch import Dispatch
from app.requests.failures import no_space, shutting_down
from app.requests.in_flight import InFlight
from app.requests.outcomes import Outcomes
from app.storage.body import Body
from app.storage.disk import Disk
from app.storage.journal import Journal


class Commit:
    """Hands complete requests to `dispatch`, and calls `on_done` with each that does not get
    there."""

    def __init__(
        self,
        disk: Disk,
        journal: Journal | None,
        dispatch: Dispatch,
        outcomes: Outcomes,
        on_done: Callable[[InFlight], None],
    ) -> None:
        self._disk = disk
        self._journal = journal
        self._dispatch = dispatch
        self._outcomes = outcomes
        self._on_done = on_done
        self._waiting: dict[int, InFlight] = {}
        """The requests that wait for the disk thread, by number."""
        self._cancelled: set[int] = set()
        self._given_up = False

    def accept(self, in_flight: InFlight, body: Body) -> None:
        """Take a request whose body is complete."""
        if self._journal is None and not body.unwritten and not self._has_earlier(in_flight):
            self._submit(in_flight, body)
            return

        def keep() -> str:
            # Without a journal this only marks the end of the writes before it.
            if self._journal is None:
                return ""
            return self._journal.write(in_flight.request, in_flight.origin, body)

        self._waiting[in_flight.number] = in_flight
        self._disk.submit(keep, lambda result: self._kept(in_flight, body, result))

    def cancel_all_of(self, sequence: int) -> None:
        """Cancel the requests of a client that is gone, where they are only for it."""
        for number, in_flight in self._waiting.items():
            if in_flight.client.sequence == sequence and in_flight.client.cancellable:
                self._cancelled.add(number)

    def give_up(self) -> None:
        """Submit nothing further. Requests on their way into the journal are left for the next
        start, and their clients receive that reply once it is certain."""
        self._given_up = True
        while self._journal is None and self._waiting:
            _, in_flight = self._waiting.popitem()
            self._outcomes.settle(in_flight, shutting_down())
            self._on_done(in_flight)

    def _has_earlier(self, in_flight: InFlight) -> bool:
        sequence = in_flight.client.sequence
        return any(other.client.sequence == sequence for other in self._waiting.values())

    def _kept(self, in_flight: InFlight, body: Body, result: str | Exception) -> None:
        if self._waiting.pop(in_flight.number, None) is None:
            body.close()
            return
        cancelled = in_flight.number in self._cancelled
        self._cancelled.discard(in_flight.number)
        error = result if isinstance(result, Exception) else body.error
        if error is not None:
            body.close()
            self._outcomes.settle(in_flight, no_space(error))
            self._on_done(in_flight)
            return
        assert isinstance(result, str)
        if self._journal is not None:
            in_flight.client = JournalClient(in_flight.client, self._journal, result)
        self._submit(in_flight, body)
        if cancelled:
            self._dispatch.cancel(in_flight)

    def _submit(self, in_flight: InFlight, body: Body) -> None:
        if not self._given_up:
            self._dispatch.submit(in_flight, body)
            return
        body.close()
        self._outcomes.give_up(in_flight, shutting_down())
        self._on_done(in_flight)
