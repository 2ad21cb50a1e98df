"""app/startup/systemd.py with a socket like that of systemd, and with a real worker."""

from __future__ import annotations

import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import RATE, FakeDetector, FakeEngine, body_of, eventually, pcm
from structlog.testing import capture_logs

from app.messages import RawFormat, Request
from app.network.loop import Loop
from app.startup.systemd import Notifier, Watchdog
from app.worker.health import LONGEST_TURN_SECONDS, Health
from app.worker.job import Job, JobSettings
from app.worker.worker import Worker


class Systemd:
    """A socket that receives notifications like systemd."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self.socket.settimeout(30)

    def receive(self) -> str:
        return self.socket.recv(4096).decode()

    def receive_all(self) -> list[str]:
        """Read all messages that have arrived."""
        messages = []
        while select.select([self.socket], [], [], 0)[0]:
            messages.append(self.receive())
        return messages


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    name = str(tmp_path / "s") if request.param == "path" else f"@test-{secrets.token_hex(8)}"
    end = Systemd(name)
    yield end
    end.socket.close()


@pytest.fixture
def make(systemd: Systemd) -> Iterator[Callable[..., Notifier]]:
    made: list[Notifier] = []

    def make(**environment: str) -> Notifier:
        made.append(Notifier({"NOTIFY_SOCKET": systemd.name, **environment}))
        return made[-1]

    yield make
    for notifier in made:
        notifier.close()
        notifier.close()


def test_notifier_sends_ready_stopping_and_watchdog(
    systemd: Systemd, make: Callable[..., Notifier]
) -> None:
    notifier = make()
    notifier.ready("port 7, tiny.en")
    notifier.alive()
    notifier.stopping("2 to finish")
    assert systemd.receive_all() == [
        "READY=1\nSTATUS=port 7, tiny.en",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=2 to finish",
    ]


@pytest.mark.parametrize("name", [None, "", "vsock:2:1234", "relative"])
def test_notifier_sends_nothing_without_systemd(name: str | None) -> None:
    environment = {} if name is None else {"NOTIFY_SOCKET": name}
    notifier = Notifier(environment | {"WATCHDOG_USEC": "1000000"})
    assert notifier.watchdog_seconds is None
    notifier.ready("")
    notifier.stopping("")
    notifier.close()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "often"}, None),
    ],
)
def test_watchdog_interval_is_read_from_the_environment(
    make: Callable[..., Notifier], environment: dict[str, str], seconds: float | None
) -> None:
    assert make(**environment).watchdog_seconds == seconds


def test_notifier_ignores_a_missing_socket(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nothing")})
    with capture_logs() as log:
        notifier.ready("")
    assert [(entry["log_level"], entry["message"]) for entry in log] == [("warning", "READY=1")]
    notifier.close()


def test_notifier_does_not_block_on_a_full_socket(
    systemd: Systemd, make: Callable[..., Notifier]
) -> None:
    notifier = make()
    with capture_logs() as log:
        for _ in range(10_000):
            notifier.alive()
            if log:
                break
    assert log
    assert set(systemd.receive_all()) == {"WATCHDOG=1"}


class Pulse:
    """A worker with the attributes that its health is read from."""

    def __init__(self) -> None:
        self.alive = True
        self.turn: tuple[int, float] | None = None
        self.cpu = 0.0

    def cpu_seconds(self) -> float:
        return self.cpu


@pytest.fixture
def pulse() -> Pulse:
    return Pulse()


@pytest.fixture
def health(pulse: Pulse) -> Health:
    """The health that a watchdog asks, which only the test calls."""
    return Health(pulse)


def faults(health: Health, *changes: Callable[[], Any]) -> list[bool]:
    """Return after each of `changes` whether there is a fault."""
    found = []
    for change in changes:
        change()
        found.append(health.fault() is not None)
    return found


def test_idle_worker_is_no_fault(health: Health) -> None:
    assert faults(health, *[lambda: None] * 3) == [False] * 3


def test_ended_worker_is_a_fault(health: Health, pulse: Pulse) -> None:
    pulse.alive = False
    assert health.fault() == "the worker thread has ended"


def test_long_window_is_no_fault_while_it_computes(health: Health, pulse: Pulse) -> None:
    pulse.turn = 7, time.monotonic() - 600
    busy = lambda: setattr(pulse, "cpu", pulse.cpu + 0.01)  # noqa: E731
    assert faults(health, *[busy] * 20) == [False] * 20


def test_window_without_computation_is_a_fault(health: Health, pulse: Pulse) -> None:
    pulse.turn = 7, time.monotonic()
    nothing = lambda: None  # noqa: E731
    # The first call only remembers the state.
    assert faults(health, nothing, nothing, nothing) == [False, True, True]
    # The worker computes again.
    assert faults(health, lambda: setattr(pulse, "cpu", 1.0), nothing) == [False, True]
    # A new window: that it has not computed in it yet is no fault.
    pulse.turn = 8, time.monotonic()
    assert faults(health, nothing, nothing) == [False, True]
    pulse.turn = None
    assert faults(health, nothing, nothing) == [False, False]


def test_window_over_the_longest_turn_is_a_fault(health: Health, pulse: Pulse) -> None:
    pulse.turn = 7, time.monotonic() - LONGEST_TURN_SECONDS - 1
    pulse.cpu = 5000.0
    assert health.fault() == "one window exceeds the time limit"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def worker(engine: FakeEngine) -> Iterator[Worker]:
    limits = JobSettings(3600.0, 0.5, "en", "", "fake")
    worker = Worker(engine, FakeDetector, limits, lambda: None)
    yield worker
    engine.release()
    worker.stop()
    if worker.alive:
        assert worker.join(30)


def job(number: int) -> Job:
    request = Request(f"r{number}", 2 * RATE, RawFormat("s16", RATE, 1, "little"))
    return Job(number, number, request, body_of(pcm(RATE)), time.monotonic())


def test_worker_reports_turn_and_processor_time(worker: Worker, engine: FakeEngine) -> None:
    (seat,) = worker.seats
    assert (worker.alive, seat.turn, seat.cpu_seconds()) == (False, None, 0.0)
    worker.start()
    assert worker.alive
    engine.hold()
    before = time.monotonic()
    worker.submit(job(1))
    engine.wait_for_calls(1)
    assert seat.turn is not None
    number, began = seat.turn
    assert before <= began <= time.monotonic()
    engine.release()
    eventually(lambda: seat.turn is None)
    assert seat.cpu_seconds() > 0
    engine.hold()
    worker.submit(job(2))
    engine.wait_for_calls(2)
    assert seat.turn is not None
    assert seat.turn[0] > number
    engine.release()
    worker.stop()
    assert worker.join(30)
    assert (worker.alive, seat.turn) == (False, None)
    assert seat.cpu_seconds() >= 0


def test_hanging_engine_is_detected(worker: Worker, engine: FakeEngine) -> None:
    hangs = threading.Event()
    engine.answer = lambda *_: hangs.wait(60)  # type: ignore[assignment,return-value]
    loop = Loop()
    health = Health(*worker.threads)
    worker.start()
    worker.submit(job(1))
    engine.wait_for_calls(1)
    # The first call may come before the thread is idle.
    eventually(lambda: health.fault() == "the worker is stuck in a window")
    hangs.set()
    eventually(lambda: worker.seats[0].turn is None)
    assert health.fault() is None
    loop.close()


def test_loop_feeds_the_watchdog_while_the_worker_is_well(
    systemd: Systemd, make: Callable[..., Notifier], pulse: Pulse
) -> None:
    loop = Loop()
    Watchdog(loop, make(WATCHDOG_USEC="20000"), pulse)
    thread = threading.Thread(target=loop.run, daemon=True)
    with capture_logs() as log:
        thread.start()
        assert [systemd.receive() for _ in range(5)] == ["WATCHDOG=1"] * 5
        assert log == []
        pulse.alive = False
        eventually(lambda: log)
        systemd.receive_all()
        # It continues to watch without feeding, and logs the fault only once.
        time.sleep(0.1)
        assert systemd.receive_all() == []
        assert [entry["reason"] for entry in log] == ["the worker thread has ended"]
        pulse.alive = True
        assert systemd.receive() == "WATCHDOG=1"
    loop.stop()
    thread.join(30)
    loop.close()
