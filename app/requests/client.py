"""The client of a request: it receives the replies, and a notice when the outcome is on stdout.

A request can come over a connection, out of the journal, or from the queue. Everything after the
uploads uses the `Client` interface and does not ask which. Loop thread, except `outcome_written`.
"""

from __future__ import annotations

from typing import Protocol as Interface

from app.messages import NO_SPACE, SHUTTING_DOWN, Failure, Outcome, Reply, Segment
from app.network.connection import Connection
from app.network.outbox import Slot
from app.requests.failures import kept_for_later
from app.storage.journal import Journal, crashes, stem


class Client(Interface):
    """The client of one request."""

    @property
    def name(self) -> str:
        """The identity for fairness: clients of one name share their part of the engine."""

    @property
    def sequence(self) -> int:
        """Requests of one sequence are transcribed in the order of their arrival. Connections have
        positive numbers, all other clients negative ones."""

    @property
    def cancellable(self) -> bool:
        """True if the request is dropped when its client is gone."""

    @property
    def durable(self) -> bool:
        """True if the request outlives this process: a later one transcribes it if this one does
        not, and it must be notified when the outcome is on stdout."""

    @property
    def journal_entry(self) -> str:
        """The journal's name for the request, for the crash marker; empty without a journal."""

    @property
    def suspect(self) -> bool:
        """True if nodes crashed while they worked on the request, so that it is decoded alone."""

    @property
    def is_behind(self) -> bool:
        """True if the client has not read its earlier replies; it then misses partial results."""

    def reply(self, reply: Reply, final: bool) -> None:
        """Send a reply; `final` if it is the last one. Ignored after the last one."""

    def outcome_written(self) -> None:
        """Disk thread: the outcome is on stdout. Only called if `durable`. Raises `OSError`."""

    def takes_back(self, outcome: Outcome) -> bool:
        """Return True if the request goes back to where it came from instead of ending with this
        outcome."""

    def keep(self) -> str:
        """Leave the unfinished request to another process, and return to which, for the log. Only
        called if `durable`."""


class ConnectionClient:
    """A client on a connection, whose replies go into `slot`."""

    durable = False
    journal_entry = ""
    suspect = False

    def __init__(self, connection: Connection, slot: Slot, cancellable: bool) -> None:
        self._connection = connection
        self._slot = slot
        self.name = connection.peer.address
        self.sequence = connection.number
        self.cancellable = cancellable

    @property
    def is_behind(self) -> bool:
        return bool(self._connection.state.outbox.unsent)

    def reply(self, reply: Reply, final: bool) -> None:
        if not self._slot.done:
            self._connection.answer(self._slot, reply, final)

    def outcome_written(self) -> None:
        raise AssertionError("nothing outlives the connection")

    def takes_back(self, outcome: Outcome) -> bool:
        return False

    def keep(self) -> str:
        raise AssertionError("nothing outlives the connection")


class AbsentClient:
    """Nobody: the client of a request whose connection ended with an earlier process."""

    name = "journal"
    cancellable = False
    durable = False
    journal_entry = ""
    suspect = False
    is_behind = False

    def __init__(self, number: int) -> None:
        self.sequence = -number

    def reply(self, reply: Reply, final: bool) -> None:
        """Drop it."""

    def outcome_written(self) -> None:
        raise AssertionError("nothing is kept for it")

    def takes_back(self, outcome: Outcome) -> bool:
        return False

    def keep(self) -> str:
        raise AssertionError("nothing is kept for it")


class JournalClient:
    """`client`, whose request is the entry `entry` of `journal` until its outcome is on stdout."""

    durable = True

    def __init__(self, client: Client, journal: Journal, entry: str) -> None:
        self._client = client
        self._journal = journal
        self._entry = entry
        self.name = client.name
        self.sequence = client.sequence
        self.cancellable = client.cancellable
        self.journal_entry = stem(entry)
        self.suspect = crashes(entry) > 0

    @property
    def is_behind(self) -> bool:
        return self._client.is_behind

    def reply(self, reply: Reply, final: bool) -> None:
        self._client.reply(reply, final)

    def outcome_written(self) -> None:
        self._journal.remove(self._entry)
        if self._client.durable:
            self._client.outcome_written()

    def takes_back(self, outcome: Outcome) -> bool:
        return False

    def keep(self) -> str:
        self.reply(kept_for_later(), final=True)
        return "kept for the next start"


class HeldJob(Interface):
    """A job of the queue while this node holds it."""

    def announce(self, segment: Segment) -> None:
        """Publish a segment of the unfinished job."""

    def settle(self, outcome: Outcome) -> None:
        """The job has its outcome."""

    def outcome_written(self) -> None:
        """Disk thread: the outcome is on stdout."""

    def hand_back(self, for_space: bool) -> None:
        """Leave the job to another node; `for_space` if this one has no space for it."""


class QueueClient:
    """The submitter of a job of the queue; it reads the result from the broker. `tenant` is its
    name for fairness."""

    cancellable = False
    durable = True
    journal_entry = ""
    is_behind = False

    def __init__(self, number: int, tenant: str, job: HeldJob, suspect: bool = False) -> None:
        self.name = f"queue/{tenant}"
        self.sequence = -number
        self.suspect = suspect
        self._job = job

    def reply(self, reply: Reply, final: bool) -> None:
        if isinstance(reply, Segment):
            self._job.announce(reply)
        elif isinstance(reply, Outcome):
            self._job.settle(reply)

    def outcome_written(self) -> None:
        self._job.outcome_written()

    def takes_back(self, outcome: Outcome) -> bool:
        """Without space, or at its end, this node says nothing about the job; another can do it."""
        if isinstance(outcome, Failure) and outcome.code in (NO_SPACE, SHUTTING_DOWN):
            self._job.hand_back(for_space=outcome.code == NO_SPACE)
            return True
        return False

    def keep(self) -> str:
        self._job.hand_back(for_space=False)
        return "left to another node"
