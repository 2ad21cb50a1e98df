"""Requests between their last byte and the worker: written to the journal and to large files, and
recovered by the next process. The real loop, disk thread and directory around a fake engine."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import HANG, Client, Node, eventually, message, pcm, text_or_code

from app.messages import Origin, RawFormat, Request
from app.network.connection import BODY_BYTES
from app.network.connection_state import ReadBlock
from app.network.timeouts import Awaited
from app.requests.uploads import MAX_UNWRITTEN_BYTES
from app.storage.body import MEMORY_BYTES, in_memory
from app.storage.body_file import BodyFile
from app.storage.disk import Disk
from app.storage.journal import Journal
from app.storage.spool import Spool

MakeNode = Callable[..., Node]
LARGE = MEMORY_BYTES // 2 + 100_000
"""The number of samples of a body that does not stay in memory."""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def entries(journal: Path, part: str = "new") -> list[str]:
    return sorted(os.listdir(journal / part))


class Gate:
    """Blocks a function on the disk thread until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        real = getattr(owner, name)

        def held(*arguments: Any) -> Any:
            self.reached.set()
            assert self._open.wait(HANG)
            return real(*arguments)

        monkeypatch.setattr(owner, name, held)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type, str], Gate]]:
    gates: list[Gate] = []

    def make(owner: type, name: str) -> Gate:
        gates.append(Gate(monkeypatch, owner, name))
        return gates[-1]

    yield make
    for one in gates:
        one.open()


def no_space(*_: Any) -> None:
    raise OSError(28, "No space left on device")


# A request is kept before it is accepted.


def test_accepted_reply_waits_for_the_disk_and_the_loop_does_not(
    make_node: MakeNode, journal: Path, gate: Callable[[type, str], Gate]
) -> None:
    keeping = gate(Journal, "write")
    node = make_node(journal=journal)
    with node.connect() as client:
        client.request(pcm(2000), id="a", reply="accepted", connection="keep-alive")
        assert keeping.reached.wait(HANG)
        # Requests that need no disk are served.
        assert [text_or_code(reply) for reply in node.ask(b"", task="sing")] == ["bad_field"]
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.reply()
        assert node.engine.calls == []
        client.socket.settimeout(HANG)
        keeping.open()
        assert client.reply() == {"id": "a", "status": "accepted"}
    assert node.lines.wait_for("a")["text"] == "2000"


def test_silent_connection_ends_only_once_the_request_is_on_disk(
    make_node: MakeNode, journal: Path, gate: Callable[[type, str], Gate]
) -> None:
    keeping = gate(Journal, "write")
    node = make_node(journal=journal)
    with node.connect() as client:
        client.request(pcm(2000), id="a", reply="none")
        assert keeping.reached.wait(HANG)
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.reply()
        client.socket.settimeout(HANG)
        keeping.open()
        assert client.replies() == []
        assert "recovered" not in node.lines.wait_for("a")


@pytest.mark.parametrize("samples", [2000, LARGE])
def test_entry_stays_until_its_line_is_written(
    make_node: MakeNode, journal: Path, samples: int
) -> None:
    node = make_node(journal=journal)
    node.lines.flowing.clear()
    replies = node.ask(pcm(samples), id="a", reply="transcript")
    assert [reply["id"] for reply in replies] == ["a"]
    # The reply is sent but the line is not written: a crash would restart the request.
    [entry] = entries(journal)
    assert (journal / "new" / entry / "body").stat().st_size == 2 * samples
    node.lines.flowing.set()
    node.disk.nudge()
    assert node.lines.wait_for("a")["status"] == "ok"
    eventually(lambda: entries(journal) == [])
    assert len(node.lines.of("a")) == 1
    eventually(lambda: entries(journal, "tmp") == [])


def test_entry_of_a_failed_request_is_removed(make_node: MakeNode, journal: Path) -> None:
    node = make_node(journal=journal)
    assert [text_or_code(reply) for reply in node.ask(b"", id="a")] == ["bad_audio"]
    eventually(lambda: entries(journal) == [])
    # Rejected and incomplete requests were never in it.
    assert [text_or_code(reply) for reply in node.ask(pcm(10), id="b", task="sing")] == [
        "bad_field"
    ]
    with node.connect() as client:
        client.send(message(pcm(LARGE), id="c")[:-1])
        client.half_close()
        assert [text_or_code(reply) for reply in client.replies()] == ["incomplete"]
    eventually(lambda: entries(journal, "tmp") == [])
    assert entries(journal) == []


def test_token_does_not_reach_the_disk(make_node: MakeNode, journal: Path) -> None:
    node = make_node(journal=journal)
    node.engine.hold()
    node.ask(pcm(2000), id="a", reply="accepted", token="secret-token")
    [entry] = entries(journal)
    assert b"secret" not in (journal / "new" / entry / "request.json").read_bytes()


def test_full_disk_fails_the_request_and_the_node_continues(
    make_node: MakeNode, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(journal=journal)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", no_space)
        with node.connect() as client:
            client.request(pcm(2000), id="a", reply="accepted", connection="keep-alive")
            reply = client.reply()
            assert reply is not None
            assert text_or_code(reply) == "no_space"
            assert reply["error"]["retry_after_seconds"] > 0
            patch.undo()
            client.request(pcm(3000), id="b")
            assert [text_or_code(reply) for reply in client.replies()] == ["3000"]
    assert node.lines.wait_for("a")["error"]["code"] == "no_space"


def test_reset_during_the_write_cancels_the_request(
    make_node: MakeNode, journal: Path, gate: Callable[[type, str], Gate]
) -> None:
    keeping = gate(Journal, "write")
    node = make_node(journal=journal)
    client = node.connect()
    client.request(pcm(2000), id="gone", connection="keep-alive")
    client.request(pcm(2500), id="kept", reply="accepted", connection="keep-alive")
    assert keeping.reached.wait(HANG)
    # The second one is complete as well.
    eventually(lambda: node.disk.backlog == 1)
    client.reset()
    eventually(lambda: node.server.load.connections == 0)
    keeping.open()
    assert node.lines.wait_for("gone")["error"]["code"] == "cancelled"
    assert node.lines.wait_for("kept")["text"] == "2500"
    eventually(lambda: entries(journal) == [])


# Large bodies.


@pytest.mark.parametrize("journalled", [True, False])
def test_large_and_small_bodies_of_a_connection_stay_in_order(
    make_node: MakeNode, journal: Path, journalled: bool, gate: Callable[[type, str], Gate]
) -> None:
    appending = gate(BodyFile, "append")
    node = make_node(journal=journal if journalled else None)
    with node.connect() as client:
        thread = threading.Thread(
            target=client.send,
            args=(
                message(pcm(LARGE), id="large", reply="accepted", connection="keep-alive")
                + message(pcm(2000), id="small", reply="accepted"),
            ),
        )
        thread.start()
        assert appending.reached.wait(HANG)
        appending.open()
        assert [reply["id"] for reply in client.replies()] == ["large", "small"]
        thread.join(HANG)
    assert node.lines.wait_for("small")["text"] == "2000"
    assert node.lines.wait_for("large")["audio_seconds"] == round(LARGE / 16_000, 3)
    ids = [line["id"] for line in node.lines.written]
    assert ids == ["large", "small"]


@pytest.mark.parametrize("journalled", [True, False])
def test_client_faster_than_the_disk_is_not_read_and_has_no_timeout(
    make_node: MakeNode, journal: Path, journalled: bool, gate: Callable[[type, str], Gate]
) -> None:
    appending = gate(BodyFile, "append")
    node = make_node(journal=journal if journalled else None, max_body=64 * 1024 * 1024)
    with node.connect() as client:
        sender = threading.Thread(
            target=client.request, args=(pcm(8 * 1024 * 1024),), kwargs={"reply": "accepted"}
        )
        sender.start()
        assert appending.reached.wait(HANG)
        [connection] = node.connections
        eventually(lambda: connection.state.read_block() is ReadBlock.PAUSED)
        assert connection.state.awaited() is Awaited.NOTHING
        [upload] = node.uploads
        assert upload.body is not None
        assert MAX_UNWRITTEN_BYTES < upload.body.unwritten <= MAX_UNWRITTEN_BYTES + BODY_BYTES
        appending.open()
        assert [text_or_code(reply) for reply in client.replies()] == ["accepted"]
        sender.join(HANG)
    node.engine.abort()


def test_disk_failure_within_a_body_is_reported_and_the_rest_discarded(
    make_node: MakeNode, tmp_path: Path
) -> None:
    def make_spool(disk: Disk) -> Spool:
        return Spool(tmp_path / "gone", disk)

    node = make_node(make_spool=make_spool)
    with node.connect() as client:
        client.request(pcm(LARGE), id="large", connection="keep-alive")
        client.request(pcm(2000), id="small")
        codes = [text_or_code(reply) for reply in client.replies()]
    assert codes == ["no_space", "2000"]
    assert node.lines.wait_for("large")["error"]["code"] == "no_space"
    eventually(lambda: node.server.load.admitted == 0)


# The end.


def test_requests_unfinished_by_the_drain_are_done_after_the_next_start(
    make_node: MakeNode, journal: Path
) -> None:
    node = make_node(journal=journal, drain_seconds=0.2)
    node.engine.hold()
    with node.connect() as client:
        client.request(pcm(2000), id="a", connection="keep-alive")
        client.request(pcm(3000), id="b", connection="keep-alive")
        eventually(lambda: len(entries(journal)) == 2)
        node.drain()
        replies = client.replies()
    assert [text_or_code(reply) for reply in replies] == ["shutting_down"] * 2
    assert all("kept" in reply["error"]["message"] for reply in replies)
    assert not any("retry_after_seconds" in reply["error"] for reply in replies)
    node.stop()
    assert node.lines.written == []
    again = make_node(journal=journal)
    for name, text in (("a", "2000"), ("b", "3000")):
        line = again.lines.wait_for(name)
        assert (line["text"], line["recovered"]) == (text, True)
    eventually(lambda: entries(journal) == [])


def test_requests_being_written_at_the_end_are_kept(
    make_node: MakeNode,
    journal: Path,
    gate: Callable[[type, str], Gate],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The disk may need longer than the time for the last replies.
    monkeypatch.setattr("app.requests.shutdown.LAST_REPLIES_SECONDS", HANG)
    keeping = gate(Journal, "write")
    node = make_node(journal=journal, drain_seconds=0.1)
    with node.connect() as client:
        client.request(pcm(2000), id="a", connection="keep-alive")
        assert keeping.reached.wait(HANG)
        node.drain()
        eventually(lambda: node.engine.aborted)
        keeping.open()
        assert text_or_code(client.reply()) == "shutting_down"
    node.stop()
    assert len(entries(journal)) == 1
    assert node.lines.written == []


def test_requests_being_written_at_the_end_fail_without_a_journal(
    make_node: MakeNode, gate: Callable[[type, str], Gate]
) -> None:
    closing = gate(BodyFile, "append")
    node = make_node(drain_seconds=0.1)
    with node.connect() as client:
        # The body is complete, and the disk thread is writing the part beyond memory.
        client.request(pcm(LARGE)[: MEMORY_BYTES + 2], id="a", connection="keep-alive")
        assert closing.reached.wait(HANG)
        node.drain()
        eventually(lambda: node.engine.aborted)
        closing.open()
        assert [text_or_code(reply) for reply in client.replies()] == ["shutting_down"]
    assert node.lines.wait_for("a")["error"]["code"] == "shutting_down"


def test_broken_stdout_leaves_the_journal_as_it_was(make_node: MakeNode, journal: Path) -> None:
    node = make_node(journal=journal)
    node.lines.broken = True
    assert [text_or_code(reply) for reply in node.ask(pcm(500), id="a")] == ["500"]
    node.wait_until_stopped()
    node.stop()
    assert len(entries(journal)) == 1
    assert make_node(journal=journal).lines.wait_for("a")["recovered"] is True


# Recovery.


def fill(journal: Path, count: int, samples: int = 1000) -> None:
    disk = Disk(lambda: None)
    kept = Journal(journal, disk)
    for number in range(count):
        body = in_memory(pcm(samples + number))
        request = Request(f"r{number}", body.size, RawFormat("s16", 16_000, 1, "little"))
        kept.write(request, Origin("10.0.0.1:5", 1_700_000_000.0 + number, "http"), body)
        body.close()
    kept.close(clean=True)
    disk.start()
    assert disk.close(HANG)


def test_entries_are_done_after_a_crash_with_id_and_time(
    make_node: MakeNode, journal: Path, tmp_path: Path
) -> None:
    node = make_node(journal=journal)
    node.engine.hold()
    for number in range(5):
        node.ask(pcm(1000 + number), id=f"r{number}", reply="accepted")
    # The journal as a crash at this moment would leave it.
    shutil.copytree(journal, tmp_path / "found")
    again = make_node(journal=tmp_path / "found")
    for number in range(5):
        line = again.lines.wait_for(f"r{number}")
        assert (line["text"], line["recovered"]) == (str(1000 + number), True)
    eventually(lambda: entries(tmp_path / "found") == [])
    node.engine.release()
    for number in range(5):
        first, second = node.lines.wait_for(f"r{number}"), again.lines.of(f"r{number}")[0]
        assert (first["received_at"], first["peer"]) == (second["received_at"], second["peer"])


def test_entries_are_taken_oldest_first_and_never_fill_the_node(
    make_node: MakeNode, journal: Path
) -> None:
    fill(journal, 40)
    node = make_node(journal=journal, queue_size=4)
    node.engine.hold()
    node.engine.wait_for_calls(1)
    eventually(lambda: node.server.load.admitted == 2)
    # There is a place for a new client, which need not wait for the recovered requests.
    with node.connect() as client:
        client.request(pcm(900), id="new")
        eventually(lambda: node.server.load.admitted == 3)
        node.engine.release()
        assert [text_or_code(reply) for reply in client.replies()] == ["900"]
    eventually(lambda: len(node.lines.written) == 41)
    recovered = [line["id"] for line in node.lines.written if "recovered" in line]
    # Two run at a time and the shorter goes first, so the order is almost kept.
    assert len(recovered) == 40
    places = [int(name[1:]) for name in recovered]
    assert all(abs(place - index) <= 2 for index, place in enumerate(places))
    eventually(lambda: entries(journal) == [])


def test_short_request_waits_for_one_window_of_a_recovered_one(
    make_node: MakeNode, journal: Path
) -> None:
    """The same holds on the first connection, which has no relation to the recovered request."""
    fill(journal, 1, samples=16_000 * 70)
    node = make_node(journal=journal)
    node.engine.hold()
    node.engine.wait_for_calls(1)
    # The reply comes only after the worker has the request.
    assert [reply["status"] for reply in node.ask(pcm(900), id="new", reply="accepted")] == [
        "accepted"
    ]
    node.engine.step()
    node.engine.wait_for_calls(2)
    assert len(node.engine.calls[1][0]) == 900
    node.engine.release()
    assert node.lines.wait_for("new")["text"] == "900"
    assert node.lines.wait_for("r0")["status"] == "ok"


def test_single_place_is_given_to_recovered_requests_too(
    make_node: MakeNode, journal: Path
) -> None:
    fill(journal, 3)
    node = make_node(journal=journal, queue_size=1)
    for number in range(3):
        node.lines.wait_for(f"r{number}")
    assert [text_or_code(reply) for reply in node.ask(pcm(900))] == ["900"]


def test_unusable_entry_gets_a_line_and_is_quarantined(make_node: MakeNode, journal: Path) -> None:
    fill(journal, 4)
    first, second, third, _ = entries(journal)
    os.truncate(journal / "new" / first / "body", 10)
    (journal / "new" / second / "request.json").unlink()
    (journal / "new" / third).rename(journal / "new" / f"{third}.3")
    node = make_node(journal=journal, queue_size=2)
    assert node.lines.wait_for("r3")["text"] == "1003"
    codes = {"r0": "journal_damaged", None: "journal_damaged", "r2": "quarantined"}
    for name, code in codes.items():
        line = node.lines.wait_for(name)
        assert (line["error"]["code"], line["recovered"]) == (code, True)
    eventually(lambda: entries(journal) == [])
    assert entries(journal, "quarantine") == [first, second, f"{third}.3"]
    for entry in entries(journal, "quarantine"):
        eventually((journal / "quarantine" / entry / "note.txt").exists)
    eventually(lambda: node.server.load.admitted == 0)


def test_drain_leaves_entries_that_were_not_taken(make_node: MakeNode, journal: Path) -> None:
    fill(journal, 10)
    node = make_node(journal=journal, queue_size=2)
    node.engine.hold()
    node.engine.wait_for_calls(1)
    node.drain()
    eventually(lambda: node.server.load.draining)
    node.engine.release()
    node.wait_until_stopped()
    node.stop()
    done = len(node.lines.written)
    assert 1 <= done < 10
    assert len(entries(journal)) == 10 - done


def test_drain_ends_without_any_connection(make_node: MakeNode, journal: Path) -> None:
    # There is no connection whose end could trigger the end of the drain.
    fill(journal, 1)
    os.truncate(next((journal / "new").iterdir()) / "body", 1)
    node = make_node(journal=journal)
    node.drain()
    node.wait_until_stopped()


def test_worker_marks_the_entry_in_the_engine(make_node: MakeNode, journal: Path) -> None:
    node = make_node(journal=journal)
    node.engine.hold()
    node.ask(pcm(2000), id="a", reply="accepted")
    node.engine.wait_for_calls(1)
    [entry] = entries(journal)
    assert (journal / "engine").read_bytes().rstrip(b"\0").decode() == entry
    node.engine.release()
    node.lines.wait_for("a")
    eventually(lambda: not (journal / "engine").read_bytes().rstrip(b"\0"))


def test_many_clients_with_a_journal_get_their_own_answers(
    make_node: MakeNode, journal: Path
) -> None:
    """Each of many simultaneous clients gets the text of its own audio."""
    node = make_node(journal=journal)
    clients: list[Client] = [node.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        client.request(pcm(1000 + number), id=f"c{number}")
    for number, client in enumerate(clients):
        assert [text_or_code(reply) for reply in client.replies()] == [str(1000 + number)]
        client.close()
    eventually(lambda: entries(journal) == [])
