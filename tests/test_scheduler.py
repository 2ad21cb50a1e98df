"""Which job goes next: short before long, in order within a connection, and nobody starves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from app.scheduler import Scheduler


def turns(scheduler: Scheduler, left: dict[int, float], window: float = 30.0) -> Iterator[int]:
    """Give turns until all is done; `left` is what the jobs have left, in seconds."""
    while (job := scheduler.next()) is not None:
        yield job
        left[job] -= window
        if left[job] <= 0:
            scheduler.remove(job)
        else:
            scheduler.update(job, left[job])


def test_nothing_to_do() -> None:
    scheduler = Scheduler()
    assert scheduler.next() is None
    assert not scheduler
    scheduler.remove(7)


def test_short_goes_before_long() -> None:
    scheduler = Scheduler()
    lengths = {1: 600.0, 2: 3.0, 3: 60.0}
    for job, seconds in lengths.items():
        scheduler.add(job, "a", connection=job, seconds=seconds)
    assert list(turns(scheduler, lengths))[:3] == [2, 3, 3]
    assert not scheduler


def test_a_short_one_that_comes_late_waits_for_one_window() -> None:
    scheduler = Scheduler()
    scheduler.add(1, "a", connection=1, seconds=600.0)
    assert scheduler.next() == 1
    scheduler.update(1, 570.0)
    scheduler.add(2, "a", connection=2, seconds=3.0)
    assert scheduler.next() == 2


def test_equals_go_in_the_order_they_came() -> None:
    scheduler = Scheduler()
    for job in (4, 5, 6):
        scheduler.add(job, "a", connection=job, seconds=3.0)
    assert list(turns(scheduler, dict.fromkeys((4, 5, 6), 3.0))) == [4, 5, 6]


def test_within_a_connection_the_first_goes_first_however_long() -> None:
    scheduler = Scheduler()
    lengths = {1: 90.0, 2: 3.0, 3: 30.0}
    for job, seconds in lengths.items():
        scheduler.add(job, "a", connection=9, seconds=seconds)
    assert list(turns(scheduler, lengths)) == [1, 1, 1, 2, 3]


def test_a_job_that_waits_behind_its_own_connection_does_not_hold_up_others() -> None:
    scheduler = Scheduler()
    scheduler.add(1, "a", connection=1, seconds=600.0)
    scheduler.add(2, "a", connection=1, seconds=1.0)
    scheduler.add(3, "a", connection=2, seconds=30.0)
    assert scheduler.next() == 3


def test_removing_the_first_lets_the_next_of_its_connection_go() -> None:
    scheduler = Scheduler()
    scheduler.add(1, "a", connection=1, seconds=600.0)
    scheduler.add(2, "a", connection=1, seconds=1.0)
    scheduler.remove(1)
    assert scheduler.next() == 2


def test_a_long_recording_does_not_starve_beside_an_endless_stream_of_commands() -> None:
    """As the comment of AGING_SECONDS promises, where the commands come one after the other."""
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
    # And the short ones still get most of the turns.
    assert len(long_turns) < 100


def test_a_long_recording_does_not_starve_where_there_is_more_to_do_than_can_be_done() -> None:
    scheduler = Scheduler()
    scheduler.add(0, "a", connection=0, seconds=600.0)
    long_turns = 0
    for number in range(1, 400):
        # One comes for every turn there is, so each turn of the long one leaves one more waiting.
        scheduler.add(number, "a", connection=number, seconds=3.0)
        job = scheduler.next()
        assert job is not None
        if job == 0:
            long_turns += 1
        else:
            scheduler.remove(job)
    assert long_turns >= 10


def test_looking_again_without_progress_is_fair_among_equals() -> None:
    scheduler = Scheduler()
    for job in (1, 2, 3):
        scheduler.add(job, "a", connection=job, seconds=300.0)
    seen = [scheduler.next() for _ in range(30)]
    assert {seen.count(job) for job in (1, 2, 3)} == {10}


def test_clients_are_served_in_turn_whatever_they_have_queued() -> None:
    """500 files over 500 connections of one address do not hold up another's single ones."""
    scheduler = Scheduler()
    lengths = dict.fromkeys(range(500), 3.0)
    for job in lengths:
        scheduler.add(job, "busy", connection=job, seconds=3.0)
    for _ in range(100):
        # So that those who still wait have been passed over many times.
        job = scheduler.next()
        assert job is not None
        scheduler.remove(job)
    for job, client, seconds in ((1000, "short", 3.0), (1001, "long", 600.0)):
        scheduler.add(job, client, connection=job, seconds=seconds)
        lengths[job] = seconds
    order = list(itertools.islice(turns(scheduler, lengths), 30))
    assert {1000, 1001} < set(order[:3])
    assert order.count(1001) >= 14, "every second turn, once the short one is done"


def test_a_short_one_of_a_new_client_goes_before_the_long_ones_of_others() -> None:
    scheduler = Scheduler()
    for job in range(10):
        scheduler.add(job, f"client-{job}", connection=job, seconds=600.0)
        assert scheduler.next() is not None
    scheduler.add(99, "new", connection=99, seconds=3.0)
    assert scheduler.next() == 99


def test_a_long_recording_does_not_starve_beside_new_clients_without_end() -> None:
    scheduler = Scheduler()
    scheduler.add(0, "patient", connection=0, seconds=600.0)
    assert scheduler.next() == 0
    long_turns = 0
    for number in range(1, 200):
        scheduler.add(number, f"client-{number}", connection=number, seconds=3.0)
        job = scheduler.next()
        assert job is not None
        if job == 0:
            long_turns += 1
        else:
            scheduler.remove(job)
    assert long_turns >= 10


def test_a_client_is_forgotten_with_its_last_job() -> None:
    scheduler = Scheduler()
    for job in range(100):
        scheduler.add(job, f"client-{job % 50}", connection=job, seconds=3.0)
    for job in range(100):
        scheduler.remove(job)
        scheduler.remove(job)
    assert not scheduler._clients


JOBS = st.lists(
    st.tuples(st.integers(1, 5), st.floats(0, 20_000), st.integers(0, 30)), min_size=1, max_size=20
)


@given(JOBS, st.lists(st.sampled_from("abc"), min_size=6, max_size=6))
def test_every_job_gets_all_its_turns_and_connections_keep_their_order(
    jobs: list[tuple[int, float, int]], clients: list[str]
) -> None:
    """Jobs of any length arrive at any time; what is added last is what is asked first."""
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
