"""Places and bytes: the order of waiting requests, and no place is given out twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.requests.quota import STEP_BYTES, STREAM_BYTES, Quota


def let_in(quota: Quota) -> list[int]:
    """Admit all requests that fit now; return them in order."""
    return list(iter(quota.admit_next, None))


def test_quota_admits_a_client_in_order_of_arrival() -> None:
    quota = Quota(places=2, capacity=1000)
    for number in (5, 3, 9):
        quota.enqueue(number, "a", 10)
    assert let_in(quota) == [5, 3]
    assert (quota.admitted, quota.waiting, quota.claimed_bytes) == (2, 1, 20)
    quota.release(5)
    assert let_in(quota) == [9]


def test_client_with_fewer_places_goes_before_one_with_more() -> None:
    quota = Quota(places=3, capacity=1000)
    for number in range(10):
        quota.enqueue(number, "busy", 10)
    assert let_in(quota) == [0, 1, 2]
    quota.enqueue(100, "single", 10)
    quota.enqueue(101, "other", 10)
    quota.release(0)
    assert let_in(quota) == [100]
    quota.release(1)
    assert let_in(quota) == [101]
    quota.release(2)
    assert let_in(quota) == [3]


def test_single_client_does_not_get_the_last_places() -> None:
    quota = Quota(places=8, capacity=1000)
    for number in range(20):
        quota.enqueue(number, "trickling", 10)
    assert let_in(quota) == [0, 1, 2, 3, 4, 5]
    quota.enqueue(100, "honest", 10)
    assert let_in(quota) == [100]


def test_single_client_does_not_get_the_last_bytes() -> None:
    quota = Quota(places=64, capacity=1000)
    for number in range(3):
        quota.enqueue(number, "hoarding", 300)
    assert let_in(quota) == [0, 1]
    quota.enqueue(100, "honest", 250)
    assert let_in(quota) == [100]


def test_single_body_may_take_all_bytes() -> None:
    quota = Quota(places=64, capacity=1000)
    quota.enqueue(1, "a", 1000)
    assert let_in(quota) == [1]


def test_first_request_that_does_not_fit_is_waited_for() -> None:
    quota = Quota(places=64, capacity=1000)
    quota.enqueue(1, "a", 600)
    quota.enqueue(2, "b", 500)
    quota.enqueue(3, "c", 10)
    assert let_in(quota) == [1]
    assert quota.full
    quota.release(1)
    assert let_in(quota) == [2, 3]
    assert not quota.full


def test_request_that_leaves_the_line_does_not_block_others() -> None:
    quota = Quota(places=64, capacity=1000)
    quota.enqueue(1, "a", 600)
    quota.enqueue(2, "b", 500)
    quota.enqueue(3, "c", 10)
    assert let_in(quota) == [1]
    quota.release(2)
    quota.release(2)
    assert let_in(quota) == [3]


def test_unknown_lengths_grow_in_steps_up_to_the_limit() -> None:
    quota = Quota(places=64, capacity=3 * STEP_BYTES)
    quota.enqueue(1, "a", None)
    quota.enqueue(2, "b", None)
    assert let_in(quota) == [1, 2]
    assert quota.claimed_bytes == 2 * STEP_BYTES
    assert quota.grow(1, STEP_BYTES)
    assert quota.claimed_bytes == 2 * STEP_BYTES
    assert quota.grow(1, STEP_BYTES + 1)
    assert quota.claimed_bytes == 3 * STEP_BYTES
    assert not quota.grow(2, STEP_BYTES + 1)
    assert quota.grow(1, 2 * STEP_BYTES)
    quota.shrink(1, STEP_BYTES)
    assert quota.grow(2, STEP_BYTES + 1)
    quota.release(1)
    quota.release(2)
    assert quota.claimed_bytes == 0


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
def test_quota_keeps_its_bounds_and_admits_everybody(
    asks: list[tuple[str, int | None, int, bool]], places: int, steps: int
) -> None:
    quota = Quota(places, steps * STEP_BYTES)
    inside: list[int] = []
    left = 0
    for number, (client, size, grown, leaves) in enumerate(asks):
        quota.enqueue(number, client, size)
        inside += let_in(quota)
        if inside:
            quota.grow(inside[-1], grown)
        if leaves and inside:
            quota.release(inside.pop(0))
            left += 1
        assert quota.admitted == len(inside) <= places
        assert 0 <= quota.claimed_bytes <= steps * STEP_BYTES
    while quota.waiting or inside:
        inside += let_in(quota)
        assert inside, "no place is taken, but no client is admitted"
        quota.release(inside.pop(0))
        left += 1
    assert left == len(asks)
    assert quota.claimed_bytes == 0
    assert not quota.full


def test_stream_takes_bytes_but_no_place() -> None:
    quota = Quota(places=1, capacity=3 * STREAM_BYTES)
    quota.enqueue(1, "a", 0)
    quota.enqueue(2, "b", 0)
    for number in (3, 4):
        quota.enqueue_stream(number, "c")
    assert let_in(quota) == [1, 3, 4]
    assert (quota.admitted, quota.streams, quota.waiting) == (1, 2, 1)
    assert quota.claimed_bytes == 2 * STREAM_BYTES
    quota.release(3)
    quota.release(1)
    assert let_in(quota) == [2]
    quota.release(2)
    quota.release(4)
    assert (quota.admitted, quota.streams, quota.claimed_bytes) == (0, 0, 0)


def test_streams_of_one_client_leave_bytes_for_others() -> None:
    quota = Quota(places=8, capacity=8 * STREAM_BYTES)
    for number in range(8):
        quota.enqueue_stream(number, "a")
    quota.enqueue_stream(100, "b")
    quota.enqueue(200, "c", STREAM_BYTES)
    assert let_in(quota) == [0, 100, 200, 1, 2, 3, 4, 5]
    assert quota.full is False, "streams in line do not fill the queue"


def test_streams_may_be_held_back_alone() -> None:
    quota = Quota(places=8, capacity=8 * STREAM_BYTES)
    quota.enqueue_stream(1, "a")
    quota.enqueue(2, "a", 10)
    assert quota.admit_next(streams=False) == 2
    assert quota.admit_next(streams=False) is None
    assert quota.admit_next() == 1


def test_body_of_a_client_with_a_stream_may_take_the_other_bytes() -> None:
    quota = Quota(places=8, capacity=4 * STREAM_BYTES)
    quota.enqueue_stream(1, "a")
    quota.enqueue(2, "a", 3 * STREAM_BYTES)
    assert let_in(quota) == [1, 2]


def test_stream_fits_into_any_capacity() -> None:
    quota = Quota(places=1, capacity=1000)
    quota.enqueue_stream(1, "a")
    assert let_in(quota) == [1]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.one_of(st.none(), st.integers(0, 2 * STREAM_BYTES)),
            st.booleans(),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_streams_and_requests_keep_the_bounds_and_all_are_admitted(
    asks: list[tuple[str, int | None, bool, bool]],
) -> None:
    quota = Quota(4, 6 * STREAM_BYTES)
    kinds: dict[int, bool] = {}
    inside: list[int] = []
    for number, (client, size, leaves, held_back) in enumerate(asks):
        kinds[number] = size is None
        if size is None:
            quota.enqueue_stream(number, client)
        else:
            quota.enqueue(number, client, size)
        while (admitted := quota.admit_next(streams=not held_back)) is not None:
            assert not (held_back and kinds[admitted])
            inside.append(admitted)
        if leaves and inside:
            quota.release(inside.pop(0))
        assert quota.streams == sum(kinds[number] for number in inside)
        assert quota.admitted == len(inside) - quota.streams <= 4
        assert 0 <= quota.claimed_bytes <= 6 * STREAM_BYTES
    while quota.waiting or inside:
        inside += let_in(quota)
        assert inside, "nothing is held, but nobody is admitted"
        quota.release(inside.pop(0))
    assert quota.claimed_bytes == 0
    assert not quota.full
