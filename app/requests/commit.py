"""From a complete body to an accepted request: on disk where it has to be, then the worker's.

With a journal every request goes through it, and is accepted only once it is there; without one a
large body whose last bytes are still on their way to its file is waited for. Either is the disk
thread's to do, while the sockets are served. Requests of one connection stay in their order: who
has nothing to wait for waits behind one of the same connection that has. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable

from app.network.connection import Connection
from app.requests.dispatch import Dispatch
from app.requests.failures import no_space, shutting_down
from app.requests.in_flight import InFlight
from app.requests.outcomes import Outcomes
from app.storage.body import Body
from app.storage.disk import Disk
from app.storage.journal import Journal


class Commit:
    """Hands complete requests to `dispatch`. `on_done` is called for every one that never gets
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
        """By request: what the disk still has to do something for."""
        self._cancelled: set[int] = set()
        self._given_up = False

    def accept(self, pending: InFlight, body: Body) -> None:
        """The body is complete: see to the rest."""
        if self._journal is None and not body.unwritten and not self._has_earlier(pending):
            self._enter(pending, body)
            return

        def keep() -> str:
            # Without a journal this is only the end of what was to be written before it.
            if self._journal is None:
                return ""
            return self._journal.keep(pending.request, pending.origin, body)

        self._waiting[pending.number] = pending
        self._disk.submit(keep, lambda result: self._kept(pending, body, result))

    def cancel_all_of(self, connection: Connection) -> None:
        """Its peer is gone: nothing is begun that was only for it."""
        for number, pending in self._waiting.items():
            if pending.connection is connection and pending.cancellable:
                self._cancelled.add(number)

    def give_up(self) -> None:
        """Hand nothing over any more. What the journal gets is there for the next start, so that
        is told once it is known."""
        self._given_up = True
        while self._journal is None and self._waiting:
            self._outcomes.settle(pending := self._waiting.popitem()[1], shutting_down())
            self._on_done(pending)

    def _has_earlier(self, pending: InFlight) -> bool:
        return any(other.connection is pending.connection for other in self._waiting.values())

    def _kept(self, pending: InFlight, body: Body, result: str | Exception) -> None:
        if self._waiting.pop(pending.number, None) is None:
            body.close()
            return
        cancelled = pending.number in self._cancelled
        self._cancelled.discard(pending.number)
        error = result if isinstance(result, Exception) else body.error
        if error is not None:
            body.close()
            self._outcomes.settle(pending, no_space(error))
            self._on_done(pending)
            return
        assert isinstance(result, str)
        pending.entry = result
        self._enter(pending, body)
        if cancelled:
            self._dispatch.cancel(pending)

    def _enter(self, pending: InFlight, body: Body) -> None:
        if not self._given_up:
            self._dispatch.submit(pending, body)
            return
        body.close()
        self._outcomes.give_up(pending, shutting_down())
        self._on_done(pending)
