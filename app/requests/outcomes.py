"""Reports each outcome once: to the client, on stdout, in the log, and to observers. Segments of
streams go to the client and to stdout.

The log never contains audio or text; it contains ids, addresses, codes and times. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal
from typing import Protocol as Interface

import structlog

from app.live import Partial
from app.messages import Failure, Origin, Outcome, Request, Streamed, Utterance
from app.output.stdout import StdoutSink
from app.requests.in_flight import InFlight
from app.worker.completions import Progress

MAX_STDOUT_BACKLOG = 1_000
"""Unwritten lines, beyond which no further audio is admitted."""

OutcomeLog = Literal["none", "code", "cause"]
"""The line of an outcome in the log: none, except at debug level; with the code of a failure; or
with its cause as well."""

_log = structlog.get_logger("outcomes")


class Observer(Interface):
    """Counts outcomes."""

    def finished(self, origin: Origin, request: Request | None, outcome: Outcome) -> None:
        """Count an outcome; `request` is None if its header could not be read."""


class Outcomes:
    """Reports to `sink` and `observers`, and to the log as `log` says."""

    def __init__(
        self, sink: StdoutSink, observers: Sequence[Observer], *, log: OutcomeLog = "code"
    ) -> None:
        self._sink = sink
        self._observers = observers
        self._log_as = log
        self.dropped_partials = 0
        """Number of partial results that no client received, because it read too slowly."""

    @property
    def behind(self) -> bool:
        """True while stdout is not read fast enough."""
        return self._sink.backlog >= MAX_STDOUT_BACKLOG

    def progress(self, in_flight: InFlight, progress: Progress) -> None:
        """Report a reply that is not the last one. Stdout receives a stream's segments at once: its
        outcome does not repeat them."""
        reply, request = progress.reply, in_flight.request
        if isinstance(reply, Partial) and in_flight.client.is_behind:
            self.dropped_partials += 1  # the next one replaces it
            return
        if isinstance(reply, Utterance):
            if request.reply == "transcript":
                return  # the outcome has the whole text
            for segment in reply.segments:
                self._sink.put(request.id, in_flight.origin, segment)
        in_flight.client.reply(reply, final=False)

    def settle(self, in_flight: InFlight, outcome: Outcome) -> None:
        """Report the outcome of a request that was admitted, unless its client takes it back."""
        client, request, origin = in_flight.client, in_flight.request, in_flight.origin
        if client.takes_back(outcome):
            return
        client.reply(outcome, final=True)
        written = client.outcome_written if client.durable else None
        self._sink.put(request.id, origin, outcome, written)
        self._report(request.id, origin, request, outcome)

    def give_up(self, in_flight: InFlight, failure: Failure) -> None:
        """End a request because the node ends. It fails with `failure`, unless a later process can
        transcribe it."""
        if in_flight.client.durable:
            kept = in_flight.client.keep()
            _log.info(kept, id=in_flight.request.id, peer=in_flight.origin.peer)
        else:
            self.settle(in_flight, failure)

    def record(
        self,
        request_id: str | None,
        origin: Origin,
        failure: Failure,
        request: Request | None = None,
        written: Callable[[], None] | None = None,
    ) -> None:
        """Report a failure without an admitted request; the client, if any, has its reply.
        `request` is given if the header was valid; `written` is called once the line is on
        stdout."""
        # The number of these is bounded only by the number of lines that are read.
        if written is not None or not self.behind:
            self._sink.put(request_id, origin, failure, written)
        self._report(request_id, origin, request, failure)

    def _report(
        self, request_id: str | None, origin: Origin, request: Request | None, outcome: Outcome
    ) -> None:
        log = _log.debug if self._log_as == "none" else _log.info
        if isinstance(outcome, Failure):
            cause = {"cause": outcome.message} if self._log_as == "cause" else {}
            log("failed", id=request_id, peer=origin.peer, code=outcome.code, **cause)
        elif isinstance(outcome, Streamed):
            log(
                "streamed",
                id=request_id,
                peer=origin.peer,
                utterances=outcome.utterances,
                audio_seconds=round(outcome.audio_seconds, 2),
                processing_seconds=round(outcome.processing_seconds, 3),
            )
        else:
            log(
                "transcribed",
                id=request_id,
                peer=origin.peer,
                audio_seconds=round(outcome.audio_seconds, 2),
                queue_seconds=round(outcome.queue_seconds, 3),
                processing_seconds=round(outcome.processing_seconds, 3),
            )
        for observer in self._observers:
            observer.finished(origin, request, outcome)
