"""Places and bytes: who is next, who waits, and that nothing is ever given out twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.requests.quota import STEP_BYTES, Admission


def let_in(admission: Admission) -> list[int]:
    """All who fit now, in order."""
    return list(iter(admission.next, None))


def test_order_of_arrival_within_a_client() -> None:
    admission = Admission(places=2, capacity=1000)
    for number in (5, 3, 9):
        admission.line_up(number, "a", 10)
    assert let_in(admission) == [5, 3]
    assert (admission.admitted, admission.waiting, admission.reserved) == (2, 1, 20)
    admission.leave(5)
    assert let_in(admission) == [9]


def test_a_client_with_fewer_places_goes_before_one_with_more() -> None:
    admission = Admission(places=3, capacity=1000)
    for number in range(10):
        admission.line_up(number, "busy", 10)
    assert let_in(admission) == [0, 1, 2]
    admission.line_up(100, "single", 10)
    admission.line_up(101, "other", 10)
    admission.leave(0)
    assert let_in(admission) == [100]
    admission.leave(1)
    assert let_in(admission) == [101]
    admission.leave(2)
    assert let_in(admission) == [3]


def test_one_client_alone_does_not_get_the_last_places() -> None:
    admission = Admission(places=8, capacity=1000)
    for number in range(20):
        admission.line_up(number, "trickling", 10)
    assert let_in(admission) == [0, 1, 2, 3, 4, 5]
    admission.line_up(100, "honest", 10)
    assert let_in(admission) == [100]


def test_one_client_alone_does_not_get_the_last_bytes() -> None:
    admission = Admission(places=64, capacity=1000)
    for number in range(3):
        admission.line_up(number, "hoarding", 300)
    assert let_in(admission) == [0, 1]
    admission.line_up(100, "honest", 250)
    assert let_in(admission) == [100]


def test_a_single_body_may_take_all_the_bytes() -> None:
    admission = Admission(places=64, capacity=1000)
    admission.line_up(1, "a", 1000)
    assert let_in(admission) == [1]


def test_who_is_first_and_does_not_fit_is_waited_for() -> None:
    admission = Admission(places=64, capacity=1000)
    admission.line_up(1, "a", 600)
    admission.line_up(2, "b", 500)
    admission.line_up(3, "c", 10)
    assert let_in(admission) == [1]
    assert admission.full
    admission.leave(1)
    assert let_in(admission) == [2, 3]
    assert not admission.full


def test_who_gives_up_waiting_does_not_hold_up_the_others() -> None:
    admission = Admission(places=64, capacity=1000)
    admission.line_up(1, "a", 600)
    admission.line_up(2, "b", 500)
    admission.line_up(3, "c", 10)
    assert let_in(admission) == [1]
    admission.leave(2)
    admission.leave(2)
    assert let_in(admission) == [3]


def test_unknown_lengths_grow_in_steps_until_there_is_no_more() -> None:
    admission = Admission(places=64, capacity=3 * STEP_BYTES)
    admission.line_up(1, "a", None)
    admission.line_up(2, "b", None)
    assert let_in(admission) == [1, 2]
    assert admission.reserved == 2 * STEP_BYTES
    assert admission.grow(1, STEP_BYTES)
    assert admission.reserved == 2 * STEP_BYTES
    assert admission.grow(1, STEP_BYTES + 1)
    assert admission.reserved == 3 * STEP_BYTES
    assert not admission.grow(2, STEP_BYTES + 1)
    assert admission.grow(1, 2 * STEP_BYTES)
    admission.shrink(1, STEP_BYTES)
    assert admission.grow(2, STEP_BYTES + 1)
    admission.leave(1)
    admission.leave(2)
    assert admission.reserved == 0


ASKS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.one_of(st.none(), st.integers(0, 4 * STEP_BYTES)),
        st.integers(0, 4 * STEP_BYTES),
        st.booleans(),
    ),
    max_size=40,
)


@given(ASKS, st.integers(1, 8), st.integers(4, 12))
def test_bounds_hold_and_everybody_gets_in(
    asks: list[tuple[str, int | None, int, bool]], places: int, steps: int
) -> None:
    admission = Admission(places, steps * STEP_BYTES)
    inside: list[int] = []
    left = 0
    for number, (client, size, grown, leaves) in enumerate(asks):
        admission.line_up(number, client, size)
        inside += let_in(admission)
        if inside:
            admission.grow(inside[-1], grown)
        if leaves and inside:
            admission.leave(inside.pop(0))
            left += 1
        assert admission.admitted == len(inside) <= places
        assert 0 <= admission.reserved <= steps * STEP_BYTES
    while admission.waiting or inside:
        inside += let_in(admission)
        assert inside, "nobody holds anything, and yet nobody gets in"
        admission.leave(inside.pop(0))
        left += 1
    assert left == len(asks)
    assert admission.reserved == 0
    assert not admission.full
