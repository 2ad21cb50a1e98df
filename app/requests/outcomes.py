"""Telling an outcome, once, to everybody it concerns: the reply, stdout, the log, observers.

Nothing of the audio or the text goes to the log; ids, addresses, codes and times do. Loop thread
only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol as Interface

import structlog

from app.messages import Failure, Origin, Outcome, Request
from app.output.stdout import StdoutSink
from app.requests.failures import kept_for_later
from app.requests.in_flight import InFlight
from app.storage.journal import Journal, Unusable

MAX_STDOUT_BACKLOG = 1_000
"""Lines nobody has read yet; beyond, no further audio is admitted."""

_log = structlog.get_logger("outcomes")


class Observer(Interface):
    """Somebody who counts."""

    def finished(self, origin: Origin, request: Request | None, outcome: Outcome) -> None:
        """A request has its outcome; `request` is None where its header could not be read."""


class Outcomes:
    """Where everything that becomes of requests is told. What has been written out leaves the
    `journal`, if there is one."""

    def __init__(
        self, sink: StdoutSink, observers: Sequence[Observer], journal: Journal | None = None
    ) -> None:
        self._sink = sink
        self._journal = journal
        self._observers = observers

    @property
    def behind(self) -> bool:
        """True while nobody reads stdout fast enough."""
        return self._sink.backlog >= MAX_STDOUT_BACKLOG

    def settle(self, pending: InFlight, outcome: Outcome) -> None:
        """The outcome of a request that was admitted."""
        pending.tell(outcome, final=True)
        self._sink.put(pending.request.id, pending.origin, outcome, self._removal(pending.entry))
        self._report(pending.request.id, pending.origin, pending.request, outcome)

    def give_up(self, pending: InFlight, failure: Failure) -> None:
        """The node ends before the request was done: `failure`, unless it can be done later."""
        if pending.entry:
            pending.tell(kept_for_later(), final=True)
            _log.info("kept for the next start", id=pending.request.id, peer=pending.origin.peer)
        else:
            self.settle(pending, failure)

    def unusable(self, found: Unusable) -> None:
        """An entry of the journal that is not tried (again)."""
        journal = self._journal
        assert journal is not None
        then = functools.partial(journal.quarantine, found)
        self._sink.put(found.request_id, found.origin, found.failure, then)
        self._report(found.request_id, found.origin, None, found.failure)

    def note(
        self,
        request_id: str | None,
        origin: Origin,
        failure: Failure,
        request: Request | None = None,
    ) -> None:
        """What never was admitted and has been told already; `request` if its header was valid."""
        # Nothing bounds how many of these there are but how many lines are read.
        if not self.behind:
            self._sink.put(request_id, origin, failure)
        self._report(request_id, origin, request, failure)

    def _removal(self, entry: str) -> Callable[[], None] | None:
        if not entry or self._journal is None:
            return None
        return functools.partial(self._journal.remove, entry)

    def _report(
        self, request_id: str | None, origin: Origin, request: Request | None, outcome: Outcome
    ) -> None:
        if isinstance(outcome, Failure):
            _log.info("failed", id=request_id, peer=origin.peer, code=outcome.code)
        else:
            _log.info(
                "transcribed",
                id=request_id,
                peer=origin.peer,
                audio_seconds=round(outcome.audio_seconds, 2),
                queue_seconds=round(outcome.queue_seconds, 3),
                processing_seconds=round(outcome.processing_seconds, 3),
            )
        for observer in self._observers:
            observer.finished(origin, request, outcome)
