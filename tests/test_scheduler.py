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
        scheduler.add(job, connection=job, seconds=seconds)
    assert list(turns(scheduler, lengths))[:3] == [2, 3, 3]
    assert not scheduler


def test_a_short_one_that_comes_late_waits_for_one_window() -> None:
    scheduler = Scheduler()
    scheduler.add(1, connection=1, seconds=600.0)
    assert scheduler.next() == 1
    scheduler.update(1, 570.0)
    scheduler.add(2, connection=2, seconds=3.0)
    assert scheduler.next() == 2


def test_equals_go_in_the_order_they_came() -> None:
    scheduler = Scheduler()
    for job in (4, 5, 6):
        scheduler.add(job, connection=job, seconds=3.0)
    assert list(turns(scheduler, dict.fromkeys((4, 5, 6), 3.0))) == [4, 5, 6]


def test_within_a_connection_the_first_goes_first_however_long() -> None:
    scheduler = Scheduler()
    lengths = {1: 90.0, 2: 3.0, 3: 30.0}
    for job, seconds in lengths.items():
        scheduler.add(job, connection=9, seconds=seconds)
    assert list(turns(scheduler, lengths)) == [1, 1, 1, 2, 3]


def test_a_job_that_waits_behind_its_own_connection_does_not_hold_up_others() -> None:
    scheduler = Scheduler()
    scheduler.add(1, connection=1, seconds=600.0)
    scheduler.add(2, connection=1, seconds=1.0)
    scheduler.add(3, connection=2, seconds=30.0)
    assert scheduler.next() == 3


def test_removing_the_first_lets_the_next_of_its_connection_go() -> None:
    scheduler = Scheduler()
    scheduler.add(1, connection=1, seconds=600.0)
    scheduler.add(2, connection=1, seconds=1.0)
    scheduler.remove(1)
    assert 1 not in scheduler
    assert scheduler.next() == 2


def test_a_long_recording_does_not_starve_beside_an_endless_stream_of_commands() -> None:
    """As the comment of AGING_SECONDS promises, where the commands come one after the other."""
    scheduler = Scheduler()
    scheduler.add(0, connection=0, seconds=600.0)
    scheduler.add(1, connection=1, seconds=3.0)
    long_turns = [0]
    for turn in range(1, 200):
        job = scheduler.next()
        assert job is not None
        if job == 0:
            long_turns.append(turn)
            scheduler.update(0, 600.0 - 30 * (len(long_turns) % 20))
        else:
            scheduler.remove(job)
            scheduler.add(turn + 1, connection=turn + 1, seconds=3.0)
    assert max(b - a for a, b in itertools.pairwise(long_turns)) <= 12
    # And the short ones still get most of the turns.
    assert len(long_turns) < 100


def test_a_long_recording_does_not_starve_where_there_is_more_to_do_than_can_be_done() -> None:
    scheduler = Scheduler()
    scheduler.add(0, connection=0, seconds=600.0)
    long_turns = 0
    for number in range(1, 400):
        # One comes for every turn there is, so each turn of the long one leaves one more waiting.
        scheduler.add(number, connection=number, seconds=3.0)
        job = scheduler.next()
        assert job is not None
        if job == 0:
            long_turns += 1
        else:
            scheduler.remove(job)
    assert long_turns >= 15


def test_looking_again_without_progress_is_fair_among_equals() -> None:
    scheduler = Scheduler()
    for job in (1, 2, 3):
        scheduler.add(job, connection=job, seconds=300.0)
    seen = [scheduler.next() for _ in range(30)]
    assert {seen.count(job) for job in (1, 2, 3)} == {10}


JOBS = st.lists(
    st.tuples(st.integers(1, 5), st.floats(0, 20_000), st.integers(0, 30)), min_size=1, max_size=20
)


@given(JOBS)
def test_every_job_gets_all_its_turns_and_connections_keep_their_order(
    jobs: list[tuple[int, float, int]],
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
                scheduler.add(number, connection, seconds)
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
