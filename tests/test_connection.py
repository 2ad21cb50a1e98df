"""One connection with an owner that records its calls: order of replies, interest, ends.

The behaviour of a whole node is tested in tests/test_server.py.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import HANG, RAW, UNHURRIED, Clock, frame, message
from structlog.testing import capture_logs

from app.messages import Accepted, Begin, BodyData, End, Event, Failure, Reply, Send
from app.network.connection import HEADER_BYTES, Connection
from app.network.connection_state import LINGER_BYTES, Lifecycle, ReadBlock
from app.network.loop import Loop
from app.network.outbox import MAX_SLOTS, MAX_UNSENT_BYTES
from app.network.ports import Peer, Port
from app.network.timeouts import LINGER_SECONDS, Awaited, Timeouts
from app.network.transport import PlainTransport
from app.protocols.base import Successor
from app.protocols.native.protocol import NativeProtocol


class Owner:
    """Accepts every body, unless `decides` is False, and sends no replies by itself."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.decides = True
        self.at_end: Callable[[Connection], None] = lambda _connection: None

    def on_event(self, connection: Connection, event: Event) -> None:
        if isinstance(event, Begin):
            self.calls.append(("begin", event.request.id))
            if self.decides:
                connection.decide(accept=True)
        elif isinstance(event, BodyData):
            self.calls.append("body")
        elif isinstance(event, End):
            self.calls.append("end")
        else:
            self.calls.append("refused")

    def on_protocol_error(self, connection: Connection, error: Any) -> None:
        self.calls.append("lost")
        failure = getattr(error, "failure", error)
        connection.answer(connection.expect(None, silent=False), failure, final=True)

    def on_end(self, connection: Connection, reset: bool) -> None:
        self.calls.append("reset" if reset else "end of stream")
        self.at_end(connection)

    def on_closed(self, connection: Connection) -> None:
        self.calls.append("closed")


class Bench:
    """A connection over TCP, its peer, and a loop that the test turns by hand."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname())
            self.ours, _ = listener.accept()
        self.peer.settimeout(HANG)
        self.loop = Loop()
        self.owner = Owner()
        port = Port("native", "", 0, lambda: NativeProtocol(1 << 24, lambda: "made"))
        self.transport = PlainTransport(self.ours)
        self.reads: list[int] = []
        receive = self.transport.receive

        def counted(count: int) -> bytes | None:
            data = receive(count)
            self.reads.append(len(data or b""))
            return data

        self.transport.receive = counted  # type: ignore[method-assign]
        self.connection = Connection(
            1,
            self.transport,
            Peer("127.0.0.1", "peer", port),
            self.loop,
            self.owner,
            timeouts or Timeouts(),
        )

    def turn_until(self, true: Callable[[], Any]) -> None:
        end = time.monotonic() + HANG

        def look() -> None:
            assert time.monotonic() < end, "timed out waiting for a condition"
            if true():
                self.loop.stop()
            else:
                self.loop.call_at(time.monotonic() + 0.002, look)

        look()
        if not true():
            self.loop.run()
        assert true()

    def turn_until_called(self, what: Any) -> None:
        self.turn_until(lambda: what in self.owner.calls)

    def receive_all(self) -> list[dict[str, Any]]:
        """Every reply up to the end of the stream, while the loop turns."""
        self.peer.setblocking(False)
        data = bytearray()
        ended = False

        def more() -> bool:
            nonlocal ended
            with contextlib.suppress(BlockingIOError):
                while not ended:
                    piece = self.peer.recv(1 << 20)
                    data.extend(piece)
                    ended = not piece
            return ended

        self.turn_until(more)
        replies = []
        while data:
            (length,) = struct.unpack("!H", data[:2])
            size = json.loads(data[2 : 2 + length])["content-length"]
            replies.append(json.loads(data[2 + length : 2 + length + size]))
            del data[: 2 + length + size]
        return replies

    def reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def close(self) -> None:
        self.peer.close()
        if "closed" not in self.owner.calls:
            self.connection.close_now()
        self.loop.close()


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(*arguments: Any) -> Bench:
        benches.append(Bench(*arguments))
        return benches[-1]

    with capture_logs() as entries:
        yield make
        for bench in benches:
            bench.close()
    assert [entry for entry in entries if entry["event"] == "a callback failed"] == []
    for bench in benches:
        assert bench.owner.calls.count("closed") == 1
        assert bench.ours.fileno() == -1


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


def test_connection_delivers_events_to_its_owner(bench: Bench) -> None:
    bench.peer.sendall(message(b"abc", id="1", connection="keep-alive") + message(b"", id="2"))
    bench.turn_until(lambda: bench.owner.calls.count("end") == 2)
    assert bench.owner.calls == [("begin", "1"), "body", "end", ("begin", "2"), "end"]


def test_replies_are_sent_in_the_order_of_their_requests(bench: Bench) -> None:
    first, silent, third = (
        bench.connection.expect(name, silent=name == "b") for name in ("a", "b", "c")
    )
    bench.connection.answer(third, Accepted(), final=True)
    bench.connection.answer(silent, Accepted(), final=True)
    bench.connection.answer(first, Failure("internal", "1"), final=False)
    bench.connection.answer(first, Failure("internal", "2"), final=True)
    bench.connection.finish()
    replies = bench.receive_all()
    assert [reply["id"] for reply in replies] == ["a", "a", "c"]
    assert [reply["error"]["message"] for reply in replies[:2]] == ["1", "2"]


def test_partial_reply_is_sent_at_once_in_its_turn(bench: Bench) -> None:
    slot = bench.connection.expect("a", silent=False)
    bench.connection.answer(slot, Accepted(), final=False)
    assert b'"accepted"' in bench.peer.recv(1000)
    assert not bench.connection.state.idle


def test_connection_is_not_read_while_a_body_waits_for_a_place(bench: Bench) -> None:
    bench.owner.decides = False
    bench.peer.sendall(message(b"abc", id="1"))
    bench.turn_until_called(("begin", "1"))
    assert not bench.connection.state.wants_read()
    assert "body" not in bench.owner.calls
    bench.connection.decide(accept=True)
    bench.turn_until_called("end")
    assert bench.owner.calls[-2:] == ["body", "end"]


def test_rejected_body_is_skipped(bench: Bench) -> None:
    bench.owner.decides = False
    bench.peer.sendall(message(b"abc", id="1", connection="keep-alive") + message(b"", id="2"))
    bench.turn_until_called(("begin", "1"))
    bench.connection.decide(accept=False)
    bench.turn_until_called(("begin", "2"))
    assert bench.owner.calls == [("begin", "1"), ("begin", "2")]


def test_connection_is_not_read_while_the_client_does_not_read(bench: Bench) -> None:
    assert bench.connection.state.wants_read()
    assert not bench.connection.state.wants_write()
    slot = bench.connection.expect("a", silent=False)
    bench.connection.answer(slot, Failure("internal", "x" * 8 * MAX_UNSENT_BYTES), final=True)
    assert bench.connection.state.wants_write()
    assert not bench.connection.state.wants_read()
    assert not bench.connection.state.idle
    bench.connection.finish()
    [reply] = bench.receive_all()
    assert len(reply["error"]["message"]) == 8 * MAX_UNSENT_BYTES
    assert not bench.connection.state.wants_write()


def small(count: int) -> bytes:
    """This number of messages that are rejected, about 50 bytes each."""
    return frame({"content-length": 0, "connection": "keep-alive"}) * count


def test_many_messages_in_one_read_do_not_block_the_loop(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input beyond one turn waits for the next."""
    monkeypatch.setattr("app.network.event_pump.TURN_SECONDS", 0.0)

    def turn() -> None:
        bench.owner.calls.append("turn")
        bench.loop.defer(turn)

    turn()
    bench.peer.sendall(small(20))
    bench.turn_until(lambda: bench.owner.calls.count("refused") == 20)
    first = bench.owner.calls.index("refused")
    assert all(call == "turn" for call in bench.owner.calls[first + 1 :: 2])


def test_connection_with_undelivered_input_is_not_idle(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draining node closes idle connections, and these messages would get no reply."""
    monkeypatch.setattr("app.network.event_pump.TURN_SECONDS", 0.0)
    seen = []

    def look(connection: Connection, _event: Event) -> None:
        # Between this turn's messages and those of the next.
        bench.loop.defer(
            lambda: seen.append((connection.state.idle, connection.state.wants_read()))
        )

    bench.owner.on_event = look  # type: ignore[method-assign]
    bench.peer.sendall(small(2))
    bench.turn_until(lambda: len(seen) == 2)
    assert seen[0] == (False, False)
    bench.turn_until(lambda: bench.connection.state.idle)
    assert bench.connection.state.wants_read()


def test_unsent_replies_to_many_short_messages_are_bounded(bench: Bench) -> None:
    """This holds for the messages of one read: 300 replies are 20 times the allowed amount."""
    length = MAX_UNSENT_BYTES // 16

    def answer(connection: Connection, _event: Event) -> None:
        bench.owner.calls.append("refused")
        failure = Failure("internal", "x" * length)
        connection.answer(connection.expect(None, silent=False), failure, final=True)

    bench.owner.on_event = answer  # type: ignore[method-assign]
    send, bench.transport.send = bench.transport.send, lambda _data: 0  # type: ignore[method-assign]
    bench.peer.sendall(small(300))
    bench.turn_until(lambda: len(bench.owner.calls) >= 16)
    later = time.monotonic() + 0.1
    bench.turn_until(lambda: time.monotonic() > later)
    assert len(bench.owner.calls) == 16
    bench.transport.send = send  # type: ignore[method-assign]
    bench.peer.shutdown(socket.SHUT_WR)
    replies = bench.receive_all()
    assert [len(reply["error"]["message"]) for reply in replies] == [length] * 300


# Ends.


def test_connection_lingers_after_the_last_reply_until_the_clients_end(bench: Bench) -> None:
    bench.connection.answer(bench.connection.expect("a", silent=False), Accepted(), final=True)
    bench.connection.finish()
    bench.peer.sendall(b"nobody reads this")
    assert [reply["id"] for reply in bench.receive_all()] == ["a"]
    assert "closed" not in bench.owner.calls
    bench.peer.close()
    bench.turn_until_called("closed")
    assert bench.owner.calls == ["closed"]


def test_lingering_ends_after_its_timeout(bench: Bench, clock: Clock) -> None:
    bench.connection.finish()
    assert bench.receive_all() == []
    clock.pass_by(LINGER_SECONDS)
    bench.turn_until_called("closed")


def test_lingering_ends_after_too_much_input(bench: Bench) -> None:
    bench.connection.finish()
    bench.peer.setblocking(False)
    sent = 0

    def push() -> bool:
        nonlocal sent
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sent += bench.peer.send(bytes(1 << 16))
        return "closed" in bench.owner.calls

    bench.turn_until(push)
    assert sent > LINGER_BYTES


def test_end_of_stream_is_reported_and_replies_are_still_sent(bench: Bench) -> None:
    slot = bench.connection.expect("a", silent=False)
    bench.peer.shutdown(socket.SHUT_WR)
    bench.turn_until_called("end of stream")
    assert not bench.connection.state.wants_read()
    bench.connection.answer(slot, Accepted(), final=True)
    assert [reply["id"] for reply in bench.receive_all()] == ["a"]
    bench.turn_until_called("closed")


def test_reset_is_reported_and_closes(bench: Bench) -> None:
    bench.connection.expect("a", silent=False)
    bench.reset()
    bench.turn_until_called("closed")
    assert bench.owner.calls == ["reset", "closed"]


@pytest.mark.parametrize(
    "part",
    [b"\0", b"\0\x40{", frame({**RAW, "content-length": 9, "id": "x"}, b"12")],
    ids=["length", "header", "body"],
)
def test_reset_noticed_by_a_reply_is_reported_once(bench: Bench, part: bytes) -> None:
    """The owner's next reply on the connection must not run into the reset again."""
    first = bench.connection.expect("a", silent=False)
    bench.peer.sendall(part)
    bench.turn_until(lambda: not bench.connection.protocol.idle)

    def say_more(connection: Connection) -> None:
        slot = connection.expect("b", silent=False)
        connection.answer(slot, Failure("incomplete", "x"), final=True)

    bench.owner.at_end = say_more
    bench.reset()
    # The reply bypasses the loop, which would see the reset first.
    time.sleep(0.05)
    bench.connection.answer(first, Accepted(), final=True)
    bench.turn_until_called("closed")
    assert bench.owner.calls.count("reset") == 1


def test_replies_after_a_reset_are_not_sent(bench: Bench) -> None:
    """Every attempt to send fails; the end is reported once."""

    def fail(_data: memoryview) -> int:
        raise ConnectionResetError

    def say_more(connection: Connection) -> None:
        assert bench.owner.calls.count("reset") == 1
        slot = connection.expect("b", silent=False)
        connection.answer(slot, Failure("incomplete", "x"), final=True)

    bench.transport.send = fail  # type: ignore[method-assign]
    bench.owner.at_end = say_more
    bench.connection.answer(bench.connection.expect("a", silent=False), Accepted(), final=True)
    bench.turn_until_called("closed")
    assert bench.owner.calls == ["reset", "closed"]


def test_timeouts_rest_while_too_many_replies_are_due(
    make_bench: Callable[..., Bench],
) -> None:
    """A header that is not read because too many replies are due is not late."""
    bench = make_bench(Timeouts(0.05, 0.05, 0.05, 0.05))
    slots = [bench.connection.expect(str(number), silent=False) for number in range(MAX_SLOTS)]
    bench.peer.sendall(b"\0\x40{")
    later = time.monotonic() + 0.3
    bench.turn_until(lambda: time.monotonic() > later)
    assert bench.owner.calls == []
    for slot in slots:
        bench.connection.answer(slot, Accepted(), final=True)
    assert bench.receive_all()[-1]["error"]["code"] == "timeout"


def test_pause_stops_reading_and_timeouts_until_resume(
    make_bench: Callable[..., Bench], clock: Clock
) -> None:
    bench = make_bench(UNHURRIED)
    data = message(bytes(1 << 20), id="1", connection="keep-alive")
    bench.peer.sendall(data[:50_000])
    bench.turn_until_called("body")
    bench.connection.pause()
    assert not bench.connection.state.wants_read()
    calls = list(bench.owner.calls)
    clock.pass_by(2 * UNHURRIED.body)
    turns = iter(range(5))
    bench.turn_until(lambda: next(turns, None) is None)
    assert bench.owner.calls == calls
    bench.connection.resume()
    bench.peer.setblocking(False)
    rest = memoryview(data)[50_000:]

    def push() -> bool:
        nonlocal rest
        with contextlib.suppress(BlockingIOError):
            rest = rest[bench.peer.send(rest) :]
        return "end" in bench.owner.calls

    bench.turn_until(push)
    assert "lost" not in bench.owner.calls


def test_waiting_connection_holds_little(bench: Bench) -> None:
    """After a header, no more bytes are read than at once outside of a body."""
    bench.owner.decides = False
    bench.peer.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        bench.peer.sendall(message(bytes(1 << 20), id="1"))
    bench.turn_until_called(("begin", "1"))
    assert max(bench.reads) <= HEADER_BYTES
    assert sum(bench.reads) < 2 * HEADER_BYTES


def test_replies_after_the_end_are_dropped(bench: Bench) -> None:
    slot = bench.connection.expect("a", silent=False)
    bench.reset()
    bench.turn_until_called("closed")
    bench.connection.answer(slot, Accepted(), final=True)
    bench.connection.finish()
    assert bench.owner.calls.count("closed") == 1


def test_lost_position_gets_an_error_and_ends_the_connection(bench: Bench) -> None:
    bench.peer.sendall(b"\0\0more of it")
    [reply] = bench.receive_all()
    assert (reply["id"], reply["error"]["code"]) == (None, "bad_header")
    assert bench.owner.calls == ["lost"]


def test_missing_header_times_out(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(Timeouts(header=0.05))
    [reply] = bench.receive_all()
    assert reply["error"]["code"] == "timeout"


def test_no_timeout_runs_while_the_node_works(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(Timeouts(0.05, 0.05, 0.05, 0.05))
    slot = bench.connection.expect("a", silent=False)
    bench.peer.sendall(message(b"abc", id="1", connection="keep-alive"))
    bench.turn_until_called("end")
    later = time.monotonic() + 0.3
    bench.turn_until(lambda: time.monotonic() > later)
    assert "lost" not in bench.owner.calls
    assert not bench.connection.state.closed
    bench.connection.answer(slot, Accepted(), final=True)
    # The client sends nothing further, so the connection is closed without a reply.
    assert [reply["id"] for reply in bench.receive_all()] == ["a"]
    assert "lost" not in bench.owner.calls


def test_idle_connection_owes_no_reply(bench: Bench) -> None:
    assert bench.connection.state.idle
    slot = bench.connection.expect("a", silent=True)
    assert not bench.connection.state.idle
    bench.connection.answer(slot, Accepted(), final=True)
    assert bench.connection.state.idle
    bench.peer.sendall(b"\0")
    bench.turn_until(lambda: not bench.connection.state.idle)


# The lifecycle.


def test_connection_goes_through_its_states_in_order(bench: Bench) -> None:
    slot = bench.connection.expect("a", silent=False)
    assert bench.connection.state.lifecycle is Lifecycle.OPEN
    bench.connection.finish()
    assert bench.connection.state.lifecycle is Lifecycle.FINISHING
    bench.connection.answer(slot, Accepted(), final=True)
    assert bench.connection.state.lifecycle is Lifecycle.LINGERING
    bench.peer.close()
    bench.turn_until_called("closed")
    assert bench.connection.state.lifecycle is Lifecycle.CLOSED


def test_finishing_connection_skips_lingering_after_the_clients_end(bench: Bench) -> None:
    slot = bench.connection.expect("a", silent=False)
    bench.peer.shutdown(socket.SHUT_WR)
    bench.turn_until_called("end of stream")
    assert bench.connection.state.lifecycle is Lifecycle.FINISHING
    bench.connection.answer(slot, Accepted(), final=True)
    assert bench.connection.state.lifecycle is Lifecycle.CLOSED


def test_read_block_names_the_reason(bench: Bench) -> None:
    state = bench.connection.state
    assert state.read_block() is None
    bench.connection.pause()
    assert state.read_block() is ReadBlock.PAUSED
    bench.connection.resume()
    bench.owner.decides = False
    bench.peer.sendall(message(b"abc", id="1", connection="keep-alive"))
    bench.turn_until_called(("begin", "1"))
    assert state.read_block() is ReadBlock.UNDECIDED
    bench.connection.decide(accept=True)
    bench.turn_until_called("end")
    bench.turn_until(lambda: state.read_block() is None)
    slots = [bench.connection.expect(str(number), silent=True) for number in range(MAX_SLOTS)]
    assert state.read_block() is ReadBlock.REPLIES_DUE
    for slot in slots:
        bench.connection.answer(slot, Accepted(), final=True)
    bench.connection.finish()
    assert state.read_block() is None  # to notice the end
    bench.peer.shutdown(socket.SHUT_WR)
    bench.turn_until_called("closed")
    assert state.read_block() is ReadBlock.CLOSED


# Another protocol.


class Numbers:
    """A tiny protocol. Each byte is a message, and the protocol itself answers it."""

    end_means_gone = True
    full = False
    reading_body = False

    def __init__(self) -> None:
        self.input = b""

    @property
    def idle(self) -> bool:
        return not self.input

    def feed(self, data: bytes) -> None:
        self.input += data

    def next_event(self) -> Event | None:
        if not self.input:
            return None
        first, self.input = self.input[:1], self.input[1:]
        return Send(b"got " + first + b"\n")

    def accept(self) -> bytes:
        raise AssertionError("no message has a body")

    def reject(self) -> None:
        raise AssertionError("no message has a body")

    def abandon(self) -> None:
        self.input = b""

    def encode(self, request_id: str | None, reply: Reply) -> bytes:
        return b"reply\n"

    def farewell(self) -> bytes:
        return b"bye\n"


def numbers(unread: bytes = b"") -> Successor:
    return Successor(b"", Numbers(), unread)


def read_lines(peer: socket.socket, count: int) -> bytes:
    data = b""
    while data.count(b"\n") < count:
        data += peer.recv(100)
    return data


def test_switch_protocol_continues_with_the_unread_input(bench: Bench) -> None:
    bench.connection.switch_protocol(Successor(b"switching\n", Numbers(), b"1"))
    bench.peer.sendall(b"23")
    bench.turn_until(lambda: bench.connection.state.idle and sum(bench.reads) == 2)
    assert read_lines(bench.peer, 4) == b"switching\ngot 1\ngot 2\ngot 3\n"
    slot = bench.connection.expect("a", silent=False)
    bench.connection.answer(slot, Accepted(), final=True)
    assert bench.peer.recv(100) == b"reply\n"


def test_switch_protocol_within_an_event_delivers_the_rest_by_the_new_one(bench: Bench) -> None:
    def switch(connection: Connection, event: Event) -> None:
        bench.owner.calls.append(type(event).__name__)
        if isinstance(event, End):
            connection.switch_protocol(numbers(b"78"))
        elif isinstance(event, Begin):
            connection.decide(accept=True)

    bench.owner.on_event = switch  # type: ignore[method-assign]
    bench.peer.sendall(message(b"", id="1", connection="keep-alive"))
    bench.turn_until_called("End")
    bench.turn_until(lambda: bench.connection.state.idle)
    bench.peer.sendall(b"9")
    bench.turn_until(lambda: bench.reads[-1:] == [1] and bench.connection.state.idle)
    assert bench.peer.recv(100) == b"got 7\ngot 8\ngot 9\n"
    assert bench.owner.calls == ["Begin", "End"]


def test_switch_protocol_happens_once_and_only_while_nothing_is_due(bench: Bench) -> None:
    slot = bench.connection.expect("a", silent=False)
    with pytest.raises(RuntimeError, match="no reply due"):
        bench.connection.switch_protocol(numbers())
    bench.connection.answer(slot, Accepted(), final=True)
    bench.connection.switch_protocol(numbers())
    with pytest.raises(RuntimeError, match="once"):
        bench.connection.switch_protocol(numbers())


def test_switch_protocol_is_rejected_while_the_connection_ends(bench: Bench) -> None:
    bench.connection.finish()
    with pytest.raises(RuntimeError, match="open"):
        bench.connection.switch_protocol(numbers())


def test_session_says_farewell_when_the_node_ends_it(bench: Bench) -> None:
    bench.connection.switch_protocol(numbers())
    bench.connection.finish()
    bench.connection.finish()
    assert bench.peer.recv(100) == b"bye\n"


def test_session_with_a_reply_due_says_farewell_by_its_protocol(bench: Bench) -> None:
    bench.connection.switch_protocol(numbers())
    slot = bench.connection.expect("a", silent=False)
    bench.connection.finish()
    bench.connection.answer(slot, Accepted(), final=True)
    assert bench.peer.recv(100) == b"reply\n"


def test_session_waits_for_audio_only(bench: Bench) -> None:
    """Neither other input nor a reply that is due changes the time for the next audio."""
    bench.connection.switch_protocol(numbers())
    assert bench.connection.state.awaited() is Awaited.AUDIO
    bench.connection.expect("a", silent=False)
    assert bench.connection.state.awaited() is Awaited.AUDIO
