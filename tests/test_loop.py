"""The loop itself: sockets, timers, waking, deferring, signals, and exceptions in callbacks."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from fakes import HANG
from structlog.testing import capture_logs

from app.network.loop import READ, WRITE, Loop


class Seen:
    """A loop that records its callbacks. It stops by itself before a test could hang."""

    def __init__(self) -> None:
        self.wakes = 0
        self.signals: list[int] = []
        self.on_wake: Callable[[], None] = lambda: None
        self.loop = Loop()
        self.loop.on_wake, self.loop.on_signal = self._wake, self.signals.append
        self.hung = False

    def _wake(self) -> None:
        self.wakes += 1
        self.on_wake()

    def run(self) -> None:
        self.loop.call_at(time.monotonic() + HANG, self._give_up)
        self.loop.run()
        assert not self.hung

    def _give_up(self) -> None:
        self.hung = True
        self.loop.stop()


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen = Seen()
    yield seen
    seen.loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        ours.setblocking(False)
        yield ours, theirs


def test_timers_fire_in_order_of_deadline_and_creation(seen: Seen) -> None:
    order: list[str] = []
    now = time.monotonic()
    seen.loop.call_at(now + 0.02, lambda: order.append("late"))
    seen.loop.call_at(now + 0.03, seen.loop.stop)
    for name in ("first", "second", "third"):
        seen.loop.call_at(now, lambda name=name: order.append(name))  # type: ignore[misc]
    seen.run()
    assert order == ["first", "second", "third", "late"]


def test_timer_is_never_early(seen: Seen) -> None:
    deadline = time.monotonic() + 0.05
    at: list[float] = []
    seen.loop.call_at(deadline, lambda: (at.append(time.monotonic()), seen.loop.stop()))  # type: ignore[func-returns-value]
    seen.run()
    assert at[0] >= deadline


def test_cancelled_timer_does_not_fire(seen: Seen) -> None:
    called: list[int] = []
    now = time.monotonic()
    timer = seen.loop.call_at(now, lambda: called.append(1))
    other = seen.loop.call_at(now + 0.01, lambda: called.append(2))
    timer.cancel()
    seen.loop.call_at(now, other.cancel)
    seen.loop.call_at(now + 0.02, seen.loop.stop)
    seen.run()
    assert called == []


def test_timer_can_set_another(seen: Seen) -> None:
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        if count == 5:
            seen.loop.stop()
        else:
            seen.loop.call_at(time.monotonic(), again)

    again()
    seen.run()
    assert count == 5


def test_timer_that_is_always_due_does_not_block_others(seen: Seen) -> None:
    past = time.monotonic() - 1
    turns: list[str] = []

    def again() -> None:
        turns.append("timer")
        seen.loop.call_at(past, again)

    again()
    seen.loop.wake()
    seen.on_wake = seen.loop.stop
    seen.run()
    assert len(turns) < 5


def test_wake_works_from_another_thread(seen: Seen) -> None:
    seen.on_wake = seen.loop.stop
    thread = threading.Thread(target=seen.loop.wake, daemon=True)
    thread.start()
    seen.run()
    thread.join()
    assert seen.wakes == 1


def test_many_wakes_are_few_calls_and_none_is_lost(seen: Seen) -> None:
    for _ in range(100_000):
        # More than the socket pair holds: this must neither block nor raise.
        seen.loop.wake()
    seen.on_wake = seen.loop.stop
    seen.run()
    assert seen.wakes == 1
    seen.loop.wake()
    seen.run()
    assert seen.wakes == 2


def test_wake_after_the_end_does_nothing() -> None:
    seen = Seen()
    seen.loop.close()
    seen.loop.wake()


def test_signals_are_delivered_on_the_loop(seen: Seen) -> None:
    old = signal.getsignal(signal.SIGUSR2)
    try:
        seen.loop.handle_signals(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR2)
        assert seen.signals == [], "signals are not delivered in the handler"
        signal.raise_signal(signal.SIGUSR2)
        seen.on_wake = seen.loop.stop
        seen.run()
    finally:
        signal.signal(signal.SIGUSR2, old)
    assert seen.signals == [signal.SIGUSR2] * 2


def test_deferred_calls_run_at_the_end_of_the_turn(
    seen: Seen, pair: tuple[socket.socket, socket.socket]
) -> None:
    order: list[str] = []
    ours, theirs = pair

    def ready(_mask: int) -> None:
        seen.loop.defer(lambda: order.append("deferred"))
        seen.loop.defer(lambda: seen.loop.defer(lambda: (order.append("next"), seen.loop.stop())))  # type: ignore[func-returns-value]
        order.append("ready")
        seen.loop.watch(ours, 0, ready)

    seen.loop.call_at(time.monotonic(), lambda: order.append("timer"))
    theirs.send(b"x")
    seen.loop.watch(ours, READ, ready)
    seen.run()
    assert order == ["ready", "timer", "deferred", "next"]


def test_interest_can_change_and_end(seen: Seen, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    masks: list[int] = []

    def ready(mask: int) -> None:
        masks.append(mask)
        if len(masks) == 1:
            seen.loop.watch(ours, WRITE, ready)
        elif len(masks) == 2:
            seen.loop.watch(ours, READ | WRITE, ready)
        else:
            seen.loop.watch(ours, 0, ready)
            seen.loop.watch(ours, 0, ready)
            seen.loop.call_at(time.monotonic() + 0.02, seen.loop.stop)

    theirs.send(b"x")
    seen.loop.watch(ours, READ, ready)
    seen.run()
    assert masks == [READ, WRITE, READ | WRITE]


def test_exception_is_logged_and_other_callbacks_run(
    seen: Seen, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    called: list[str] = []

    def fail(*_: object) -> None:
        called.append("fail")
        seen.loop.watch(ours, 0, fail)
        raise ZeroDivisionError

    now = time.monotonic()
    theirs.send(b"x")
    seen.loop.watch(ours, READ, fail)
    seen.loop.call_at(now, fail)
    seen.loop.defer(fail)
    seen.on_wake = fail
    seen.loop.wake()
    seen.loop.call_at(now + 0.05, lambda: called.append("fine"))
    seen.loop.call_at(now + 0.06, seen.loop.stop)
    with capture_logs() as entries:
        seen.run()
    assert sorted(called) == ["fail"] * 4 + ["fine"]
    assert [entry["event"] for entry in entries] == ["a callback failed"] * 4
