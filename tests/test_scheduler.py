"""The choice of the next job: the client with the least engine time first, short before long, in
order within a connection; and no client starves."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from app.worker import scheduler as module
from app.worker.scheduler import HEAD_START, Scheduler


def turns(scheduler: Scheduler, left: dict[int, float], window: float = 30.0) -> Iterator[int]:
    """Give turns until all jobs are done. `left` has the remaining seconds of each job."""
    while (job := scheduler.next()) is not None:
        yield job
        left[job] -= window
        if left[job] <= 0:
            scheduler.remove(job)
        else:
            scheduler.update(job, left[job])


def test_empty_scheduler_has_no_next_job() -> None:
    scheduler = Scheduler()
    assert scheduler.next() is None
    assert not scheduler
    scheduler.remove(7)


def test_short_job_goes_before_a_long_one() -> None:
    scheduler = Scheduler()
    lengths = {1: 600.0, 2: 3.0, 3: 60.0}
    for job, seconds in lengths.items():
        scheduler.add(job, "a", connection=job, seconds=seconds)
    assert list(turns(scheduler, lengths))[:3] == [2, 3, 3]
    assert not scheduler


def test_late_short_job_waits_for_one_window() -> None:
    scheduler = Scheduler()
    scheduler.add(1, "a", connection=1, seconds=600.0)
    assert scheduler.next() == 1
    scheduler.update(1, 570.0)
    scheduler.add(2, "a", connection=2, seconds=3.0)
    assert scheduler.next() == 2


def test_equal_jobs_go_in_order_of_arrival() -> None:
    scheduler = Scheduler()
    for job in (4, 5, 6):
        scheduler.add(job, "a", connection=job, seconds=3.0)
    assert list(turns(scheduler, dict.fromkeys((4, 5, 6), 3.0))) == [4, 5, 6]


def test_jobs_of_a_connection_go_in_order_regardless_of_length() -> None:
    scheduler = Scheduler()
    lengths = {1: 90.0, 2: 3.0, 3: 30.0}
    for job, seconds in lengths.items():
        scheduler.add(job, "a", connection=9, seconds=seconds)
    assert list(turns(scheduler, lengths)) == [1, 1, 1, 2, 3]


def test_job_behind_its_own_connection_does_not_delay_others() -> None:
    scheduler = Scheduler()
    scheduler.add(1, "a", connection=1, seconds=600.0)
    scheduler.add(2, "a", connection=1, seconds=1.0)
    scheduler.add(3, "a", connection=2, seconds=30.0)
    assert scheduler.next() == 3


def test_removed_job_frees_the_next_of_its_connection() -> None:
    scheduler = Scheduler()
    scheduler.add(1, "a", connection=1, seconds=600.0)
    scheduler.add(2, "a", connection=1, seconds=1.0)
    scheduler.remove(1)
    assert scheduler.next() == 2


def test_long_recording_does_not_starve_beside_endless_commands() -> None:
    """The comment of AGING_SECONDS promises this bound. The commands arrive one by one."""
    scheduler = Scheduler()
    scheduler.add(0, "a", connection=0, seconds=600.0)
    scheduler.add(1, "a", connection=1, seconds=3.0)
    long_turns = [0]
    for turn in range(1, 200):
        job = scheduler.next()
        assert job is not None
        if job == 0:
            long_turns.append(turn)
            scheduler.update(0, 600.0 - 30 * (len(long_turns) % 20))
        else:
            scheduler.remove(job)
            scheduler.add(turn + 1, "a", connection=turn + 1, seconds=3.0)
    assert max(b - a for a, b in itertools.pairwise(long_turns)) <= 12
    # The short jobs still get most of the turns.
    assert len(long_turns) < 100


def test_long_recording_does_not_starve_under_overload() -> None:
    scheduler = Scheduler()
    scheduler.add(0, "a", connection=0, seconds=600.0)
    long_turns = 0
    for number in range(1, 400):
        # One job arrives for each turn, so each turn of the long job leaves one more waiting.
        scheduler.add(number, "a", connection=number, seconds=3.0)
        job = scheduler.next()
        assert job is not None
        if job == 0:
            long_turns += 1
        else:
            scheduler.remove(job)
    assert long_turns >= 10


def test_next_without_progress_alternates_between_equal_jobs() -> None:
    scheduler = Scheduler()
    for job in (1, 2, 3):
        scheduler.add(job, "a", connection=job, seconds=300.0)
    seen = [scheduler.next() for _ in range(30)]
    assert {seen.count(job) for job in (1, 2, 3)} == {10}


class Engine:
    """A stand-in for the worker. Records the turns and the engine seconds of each client."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.turns: list[str] = []
        self.seconds: Counter[str] = Counter()
        self._jobs: dict[int, tuple[str, int, float]] = {}
        self._numbers = itertools.count()

    def add(self, client: str, windows: int, cost: float, is_due: bool = False) -> None:
        """Add a file on a new connection, or a final. Each of its windows costs `cost` seconds."""
        number = next(self._numbers)
        self._jobs[number] = client, windows, cost
        self.scheduler.add(number, client, number, 30.0 * windows, is_due)

    def has(self, client: str) -> bool:
        return any(client == owner for owner, _, _ in self._jobs.values())

    def turn(self) -> tuple[str, float]:
        """Give one turn; return its client and its cost."""
        number = self.scheduler.next()
        assert number is not None
        client, windows, cost = self._jobs.pop(number)
        if windows == 1:
            self.scheduler.remove(number)
        else:
            self._jobs[number] = client, windows - 1, cost
            self.scheduler.update(number, 30.0 * (windows - 1))
        self.scheduler.charge(client, cost)
        self.turns.append(client)
        self.seconds[client] += cost
        return client, cost


def between(turns: list[str], client: str) -> list[int]:
    """The number of turns of other clients between every two turns of a client."""
    mine = [place for place, who in enumerate(turns) if who == client]
    return [b - a - 1 for a, b in itertools.pairwise(mine)]


def test_clients_share_engine_seconds_instead_of_turns() -> None:
    engine = Engine()
    for _ in range(500):
        engine.add("costly", 1, 10.0)
    for _ in range(350):
        # The cheap jobs arrive one by one, each after the previous one was removed.
        if not engine.has("cheap"):
            engine.add("cheap", 1, 0.3)
        engine.turn()
    assert set(between(engine.turns, "costly")) <= {33, 34}
    assert abs(engine.seconds["costly"] - engine.seconds["cheap"]) <= 10.0


def test_clients_with_one_long_file_each_share_engine_seconds() -> None:
    engine = Engine()
    engine.add("costly", 500, 10.0)
    engine.add("cheap", 1000, 0.3)
    for _ in range(350):
        engine.turn()
    assert set(between(engine.turns, "costly")) <= {33, 34}


def test_cheap_job_waits_for_one_costly_window_at_most() -> None:
    """For example the voice commands of a client that returns from time to time."""
    engine = Engine()
    engine.add("costly", 500, 10.0)
    for _ in range(50):
        engine.turn()
        engine.add("cheap", 1, 0.3)
        engine.turn()
    assert engine.turns == ["costly", "cheap"] * 50


def test_client_with_many_files_does_not_delay_others() -> None:
    engine = Engine()
    for _ in range(500):
        engine.add("busy", 1, 1.0)
    for _ in range(100):
        engine.turn()
    engine.add("short", 1, 1.0)
    engine.add("long", 20, 1.0)
    for _ in range(30):
        engine.turn()
    order = engine.turns[100:]
    assert {"short", "long"} <= set(order[:3])
    assert order.count("long") >= 14, "every second turn, once the short one is done"


def test_short_job_of_a_new_client_goes_before_long_jobs() -> None:
    engine = Engine()
    for number in range(10):
        engine.add(f"client-{number}", 20, 9.0)
    for number in range(45):
        engine.turn()
        engine.add(f"new-{number}", 1, 0.3)
        assert engine.turn()[0] == f"new-{number}"


def test_absent_client_accumulates_no_credit() -> None:
    engine = Engine()
    engine.add("away", 1, 1.0)
    engine.add("here", 500, 1.0)
    for _ in range(100):
        engine.turn()
    engine.add("away", 500, 1.0)
    for _ in range(100):
        engine.turn()
    assert abs(engine.turns[100:].count("away") - 50) <= 1


def test_returning_client_is_still_charged() -> None:
    engine = Engine()
    engine.add("here", 500, 1.0)
    for _ in range(100):
        if not engine.has("back"):
            engine.add("back", 1, 1.0)
        engine.turn()
    assert engine.turns.count("back") == 50


def test_charges_are_forgotten_when_the_engine_rests() -> None:
    engine = Engine()
    engine.add("first", 1, 10.0)
    engine.turn()
    engine.scheduler.settle()
    engine.add("second", 20, 1.0)
    engine.add("first", 1, 1.0)
    assert engine.turn()[0] == "first"


def test_endless_new_clients_do_not_starve_waiting_ones() -> None:
    engine = Engine()
    engine.add("patient", 500, 1.0)
    engine.add("impatient", 500, 1.0)
    for number in range(500):
        engine.add(f"client-{number}", 1, 1.0)
        engine.turn()
        # More jobs arrive than can be done, so some stay for a while.
        if number % 20 == 0:
            engine.add(f"another-{number}", 1, 1.0)
    for client in ("patient", "impatient"):
        assert engine.turns.count(client) >= 10


def test_new_clients_do_not_starve_others_after_many_cancellations() -> None:
    """While they wait beside the served client, the fair time advances at half its speed."""
    scheduler = Scheduler()
    scheduler.add(0, "patient", connection=0, seconds=600.0)
    for number in range(1, 300):
        assert scheduler.next() == 0
        scheduler.charge("patient", 0.0)
        scheduler.add(number, f"gone-{number}", connection=number, seconds=6000.0)
        assert scheduler.next() == 0
        scheduler.charge("patient", 1.0)
        scheduler.remove(number)
    order = []
    for number in range(300, 400):
        scheduler.add(number, f"client-{number}", connection=number, seconds=3.0)
        order.append(job := scheduler.next())
        if job:
            scheduler.remove(job)
        scheduler.charge(f"client-{job}" if job else "patient", 1.0)
    assert order.index(0) <= 2 * (HEAD_START + 3)


def test_final_goes_before_windows_of_clients_with_less_time() -> None:
    engine = Engine()
    engine.add("speaker", 1, HEAD_START - 1.0, is_due=True)
    engine.add("files", 500, 0.1)
    assert engine.turn()[0] == "speaker"
    engine.turn()
    engine.add("speaker", 1, 0.5, is_due=True)
    assert engine.turn()[0] == "speaker"


def test_speculation_waits_for_clients_with_less_time() -> None:
    engine = Engine()
    engine.add("speaker", 1, 5.0)
    engine.add("files", 500, 1.0)
    assert engine.turn()[0] == "speaker"
    engine.add("speaker", 1, 0.5)
    assert [engine.turn()[0] for _ in range(6)] == ["files"] * 5 + ["speaker"]


def test_finals_beyond_the_head_start_wait_for_windows() -> None:
    """A client that takes more than its share keeps the lead, and gets no more."""
    engine = Engine()
    engine.add("files", 500, 1.0)
    for _ in range(100):
        if not engine.has("speakers"):
            engine.add("speakers", 1, 1.0, is_due=True)
        engine.turn()
    assert abs(engine.turns.count("speakers") - engine.turns.count("files") - HEAD_START) <= 2
    assert set(between(engine.turns[30:], "files")) == {1}


def test_finals_of_two_clients_go_by_their_time() -> None:
    engine = Engine()
    engine.add("much", 1, 3.0, is_due=True)
    engine.add("little", 1, 0.1, is_due=True)
    engine.add("files", 500, 1.0)
    engine.turn()
    engine.turn()
    engine.add("much", 1, 3.0, is_due=True)
    engine.add("little", 1, 0.1, is_due=True)
    assert engine.turns == ["much", "little"]
    assert [engine.turn()[0], engine.turn()[0]] == ["little", "much"]


def test_file_does_not_starve_beside_endless_finals_of_its_client() -> None:
    """The comment of DUE_SECONDS promises this share."""
    engine = Engine()
    engine.add("both", 20, 1.0)
    scheduler, order = engine.scheduler, []
    for number in range(1000, 1200):
        scheduler.add(number, "both", number, 3.0, is_due=True)
        order.append(job := scheduler.next())
        if job == 0:
            scheduler.update(0, 600.0)
            job = number
        scheduler.remove(job or number)
    turns_of_file = [place for place, job in enumerate(order) if job == 0]
    gaps = [b - a for a, b in itertools.pairwise([-1, *turns_of_file])]
    assert 18 <= max(gaps) <= 23


def test_due_job_behind_its_own_connection_gives_no_lead() -> None:
    scheduler = Scheduler()
    scheduler.add(1, "a", connection=1, seconds=600.0)
    scheduler.add(2, "a", 1, 3.0, is_due=True)
    scheduler.charge("a", 1.0)
    scheduler.add(3, "b", connection=2, seconds=600.0)
    assert scheduler.next() == 3


@settings(max_examples=50)
@given(
    lasting=st.lists(st.sampled_from([0.1, 0.5, 1.0, 4.0]), min_size=1, max_size=4),
    passing=st.lists(st.sampled_from([0.1, 0.5, 1.0, 4.0]), min_size=1, max_size=5),
    coming=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    windows=st.integers(1, 3),
    names=st.sampled_from([7, 1_000_000]),
    places=st.integers(2, 8),
    finals=st.tuples(st.booleans(), st.booleans()),
)
def test_every_client_with_work_gets_a_turn_within_the_bound(
    lasting: list[float],
    passing: list[float],
    coming: list[int],
    windows: int,
    names: int,
    places: int,
    finals: tuple[bool, bool],
) -> None:
    """The module promises these bounds for any pattern of arrivals. The lasting clients always have
    work. `coming` has the number of passing clients that arrive at each turn, with `windows` each.
    They have one of `names` names, so that some return, and fill the free ones of `places`.
    `finals` says whether the work of every second lasting client is finals, and of the passing."""
    engine = Engine()
    lasting = lasting[:places]
    for number, cost in enumerate(lasting):
        engine.add(f"lasting-{number}", 1000, cost, is_due=finals[0] and number % 2 == 1)
    waited = {f"lasting-{number}": 0.0 for number in range(len(lasting))}
    costs = itertools.cycle(passing)
    passed = itertools.count()
    longest = 3 * max(lasting + passing)
    bounds = dict.fromkeys(waited, (3 if any(finals) else 1) * HEAD_START + longest)
    bounds |= {
        client: 5 * HEAD_START + longest
        for number, client in enumerate(bounds)
        if finals[0] and number % 2 == 1
    }
    other = (5 if finals[1] else 3 if finals[0] else 1) * HEAD_START + longest
    for _, arrivals in zip(range(400), itertools.cycle(coming), strict=False):
        for _ in range(arrivals):
            client = f"passing-{next(passed) % names}"
            if len(waited) < places and client not in waited:
                engine.add(client, windows, next(costs), is_due=finals[1])
                waited[client] = 0.0
        served, cost = engine.turn()
        for client in waited:
            waited[client] += cost
        waited[served] = 0.0
        if not engine.has(served):
            del waited[served]
        for client, seconds in waited.items():
            assert seconds <= places * bounds.get(client, other)


def test_client_without_jobs_is_remembered_for_a_limited_time() -> None:
    scheduler = Scheduler()
    scheduler.add(0, "here", connection=0, seconds=3.0)
    for job in range(1, 2 * module._REMEMBERED):
        scheduler.add(job, f"client-{job}", connection=job, seconds=3.0)
        scheduler.remove(job)
        scheduler.remove(job)
    assert set(scheduler._clients) == {"here"}
    assert len(scheduler._left) == module._REMEMBERED
    scheduler.remove(0)
    scheduler.settle()
    assert not scheduler._left


JOBS = st.lists(
    st.tuples(st.integers(1, 5), st.floats(0, 20_000), st.integers(0, 30)), min_size=1, max_size=20
)


@given(JOBS, st.lists(st.sampled_from("abc"), min_size=6, max_size=6))
def test_every_job_finishes_and_connections_keep_their_order(
    jobs: list[tuple[int, float, int]], clients: list[str]
) -> None:
    """Jobs of any length arrive at any time, immediately before the scheduler is asked."""
    scheduler = Scheduler()
    arrivals = dict(enumerate(jobs))
    left: dict[int, float] = {}
    finished: list[int] = []
    for tick in range(100_000):
        for number, (connection, seconds, at) in arrivals.items():
            if at == tick:
                left[number] = seconds
                scheduler.add(number, clients[connection], connection, seconds)
        job = scheduler.next()
        if job is None:
            if tick > 30:
                break
            continue
        left[job] -= 30
        if left[job] <= 0:
            scheduler.remove(job)
            finished.append(job)
        else:
            scheduler.update(job, left[job])
    assert sorted(finished) == sorted(arrivals)
    for connection in range(1, 6):
        mine = [job for job in finished if arrivals[job][0] == connection]
        came = sorted(mine, key=lambda job: (arrivals[job][2], job))
        assert mine == came


# Several engines.


class Engines:
    """`count` engines that take turns from one scheduler; the time is virtual."""

    def __init__(self, count: int) -> None:
        self.scheduler = Scheduler()
        self.costs: dict[int, tuple[str, float]] = {}
        self.now = 0.0
        self.served: Counter[str] = Counter()
        self.begun: list[str] = []
        self._free = count
        self._running: list[tuple[float, int]] = []
        self._numbers = itertools.count()
        self._left: dict[int, int] = {}

    def add(self, client: str, windows: int, cost: float) -> None:
        """Add a job of so many windows, each `cost` seconds."""
        number = next(self._numbers)
        self.costs[number] = client, cost
        self.scheduler.add(number, client, number, windows * 30.0)
        self._left[number] = windows

    def step(self) -> None:
        """Begin turns on all free engines; then let the first turn in progress end."""
        while self._free and (job := self.scheduler.next()) is not None:
            assert job not in [running for _, running in self._running]
            self.scheduler.begin(job)
            self._free -= 1
            client, cost = self.costs[job]
            self.begun.append(client)
            self._running.append((self.now + cost, job))
        self._running.sort()
        self.now, job = self._running.pop(0)
        client, cost = self.costs[job]
        self._free += 1
        self._left[job] -= 1
        if not self._left[job]:
            self.scheduler.remove(job)
        self.scheduler.end(job)
        self.scheduler.charge(client, cost)
        self.served[client] += cost


def test_two_engines_serve_two_clients_evenly() -> None:
    """One client has many files, the other one; each gets one engine."""
    engines = Engines(2)
    for _ in range(10):
        engines.add("many", 100, 1.0)
    engines.add("one", 100, 1.0)
    for _ in range(60):
        engines.step()
    assert abs(engines.served["many"] - engines.served["one"]) <= 2.0


def test_two_engines_share_seconds_among_three_clients() -> None:
    engines = Engines(2)
    for client, cost in (("a", 0.3), ("b", 1.0), ("c", 4.0)):
        for _ in range(4):
            engines.add(client, 1000, cost)
    for _ in range(600):
        engines.step()
    seconds = sorted(engines.served.values())
    assert seconds[-1] - seconds[0] <= 2 * 4.0


def test_job_has_one_turn_at_a_time() -> None:
    scheduler = Scheduler()
    scheduler.add(1, "a", connection=1, seconds=600.0)
    scheduler.add(2, "a", connection=1, seconds=1.0)
    assert scheduler.next() == 1
    scheduler.begin(1)
    # Its connection waits as well.
    assert scheduler.next() is None
    assert not scheduler.has_next()
    scheduler.add(3, "a", connection=2, seconds=900.0)
    assert scheduler.next() == 3
    assert scheduler.next(frozenset({3})) is None
    scheduler.end(1)
    assert scheduler.next() == 1


@settings(max_examples=40)
@given(
    count=st.integers(2, 4),
    costs=st.lists(st.sampled_from([0.1, 0.5, 1.0, 4.0]), min_size=2, max_size=5),
    files=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    coming=st.lists(st.integers(0, 2), min_size=1, max_size=5),
)
def test_no_client_starves_with_several_engines(
    count: int, costs: list[float], files: list[int], coming: list[int]
) -> None:
    """The module's bound: with M engines a turn counts M times, and the wait is in seconds of all
    engines together. The first clients always have work, others come and go."""
    engines = Engines(count)
    lasting = [f"lasting-{number}" for number in range(min(len(costs), len(files)))]
    for client, cost, number in zip(lasting, costs, files, strict=False):
        for _ in range(number):
            engines.add(client, 1000, cost)
    last = dict.fromkeys(lasting, 0.0)
    names = itertools.cycle(range(3))
    for _, arrivals in zip(range(300), itertools.cycle(coming), strict=False):
        for _ in range(arrivals):
            engines.add(f"passing-{next(names)}", 1, costs[0])
        before = len(engines.begun)
        engines.step()
        for client in engines.begun[before:]:
            if client in last:
                last[client] = engines.now
        clients = len(lasting) + 3
        bound = clients * (HEAD_START + 3 * count * max(costs)) / count
        for client, at in last.items():
            assert engines.now - at <= bound, client
