"""The clients of requests: connections, the journal, and any other that has the interface."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fakes import HANG, Node, eventually, pcm

from app.messages import Failure, Origin, Outcome, RawFormat, Reply, Request, Segment, Transcript
from app.requests.client import AbsentClient, JournalClient
from app.requests.in_flight import InFlight
from app.storage.body import in_memory

MakeNode = Callable[..., Node]
RAW_FORMAT = RawFormat("s16", 16_000, 1, "little")


class Lease:
    """A client with neither connection nor journal, such as a message of a queue."""

    name = "queue"
    durable = True
    journal_entry = ""
    suspect = False
    cancellable = True

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.replies: list[tuple[Reply, bool]] = []
        self.written = threading.Event()
        self.kept = False

    def reply(self, reply: Reply, final: bool) -> None:
        self.replies.append((reply, final))

    def outcome_written(self) -> None:
        self.written.set()

    def takes_back(self, _outcome: Outcome) -> bool:
        return False

    def keep(self) -> str:
        self.kept = True
        return "left to another process"


def submit(node: Node, client: Any, number: int, samples: int, **fields: Any) -> None:
    """Hand a request of `client` to the node's stages, on the loop."""
    body = in_memory(pcm(samples))
    request = Request(f"r{number}", body.size, RAW_FORMAT, **fields)
    in_flight = InFlight(number, request, Origin("queue", 1_700_000_000.0), client)
    quota, commit = node.server.pipeline.quota, node.server.pipeline.commit

    def accept() -> None:
        assert quota.admit_directly(number, client.name)
        commit.accept(in_flight, body)

    on_loop(node, accept)


def on_loop(node: Node, callback: Callable[[], None]) -> None:
    node.server.loop.defer(callback)
    node.server.loop.wake()


numbers = itertools.count(1_000_000)


def test_request_of_any_client_gets_replies_and_its_outcome_is_confirmed(node: Node) -> None:
    lease = Lease(-1)
    submit(node, lease, next(numbers), 2000, reply="segments")
    assert lease.written.wait(HANG)
    replies = [(type(reply), final) for reply, final in lease.replies]
    assert replies == [(Segment, False), (Transcript, True)]
    eventually(lambda: [line["text"] for line in node.lines.written] == ["2000"])
    eventually(lambda: node.server.load.admitted == 0)


def test_outcome_is_not_confirmed_before_it_is_on_stdout(node: Node) -> None:
    node.lines.flowing.clear()
    lease = Lease(-1)
    submit(node, lease, next(numbers), 2000)
    eventually(lambda: lease.replies)
    assert not lease.written.wait(0.2)
    node.lines.flowing.set()
    node.disk.nudge()
    assert lease.written.wait(HANG)


def test_requests_of_a_lost_cancellable_client_are_cancelled(node: Node) -> None:
    node.engine.hold()
    first, second, other = Lease(-1), Lease(-2), Lease(-3)
    other.cancellable = False
    submit(node, first, next(numbers), 1000)
    node.engine.wait_for_calls(1)
    submit(node, second, next(numbers), 2000)
    submit(node, other, next(numbers), 3000)
    eventually(lambda: len(node.jobs) == 3)
    for lease in (second, other):
        on_loop(node, lambda lease=lease: node.server.pipeline.cancel_all_of(lease.sequence))
    node.engine.release()
    eventually(lambda: first.replies and second.replies and other.replies)
    [(reply, final)] = second.replies
    assert isinstance(reply, Failure)
    assert (reply.code, final) == ("cancelled", True)
    assert isinstance(other.replies[0][0], Transcript)


def test_request_of_a_durable_client_is_left_undone_at_the_end(make_node: MakeNode) -> None:
    """It has no outcome, because another process will transcribe it."""
    node = make_node(drain_seconds=0.1)
    node.engine.hold()
    lease = Lease(-1)
    submit(node, lease, next(numbers), 1000)
    node.engine.wait_for_calls(1)
    node.drain()
    node.wait_until_stopped()
    node.stop()
    assert lease.kept
    assert lease.replies == []
    assert not lease.written.is_set()
    assert node.lines.written == []


class Journal:
    def __init__(self) -> None:
        self.removed: list[str] = []

    def remove(self, entry: str) -> None:
        self.removed.append(entry)


def test_journal_client_wraps_the_original_client() -> None:
    journal: Any = Journal()
    lease = Lease(-5)
    client = JournalClient(lease, journal, "0017-ab.2")
    assert (client.name, client.sequence, client.cancellable) == ("queue", -5, True)
    assert (client.durable, client.journal_entry) == (True, "0017-ab")
    # The entry's name counts the crashes at its decode.
    assert client.suspect
    assert not JournalClient(lease, journal, "0017-ab").suspect
    client.reply(Failure("internal", "x"), final=True)
    assert len(lease.replies) == 1
    client.outcome_written()
    assert journal.removed == ["0017-ab.2"]
    assert lease.written.is_set()


def test_absent_clients_have_different_sequences_and_the_name_journal() -> None:
    one, other = AbsentClient(1), AbsentClient(2)
    assert one.sequence != other.sequence
    assert max(one.sequence, other.sequence) < 0
    assert (one.name, one.cancellable) == ("journal", False)
    one.reply(Failure("internal", "x"), final=True)
    with pytest.raises(AssertionError):
        one.outcome_written()
