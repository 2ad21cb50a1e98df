"""The samples that a live stream holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.held_samples import HeldSamples


@given(st.lists(st.integers(0, 20), min_size=1, max_size=20), st.data())
def test_slices_are_those_of_the_stream(sizes: list[int], data: st.DataObject) -> None:
    stream = np.arange(sum(sizes), dtype=np.float32)
    held = HeldSamples()
    at = dropped = 0
    for size in sizes:
        held.append(stream[at : at + size])
        at += size
        dropped = max(dropped, data.draw(st.integers(0, at)))
        held.drop(dropped)
        start = data.draw(st.integers(dropped, at))
        end = data.draw(st.integers(start, at))
        part = held.slice(start, end)
        assert np.array_equal(part, stream[start:end])
        assert part.flags.c_contiguous
        assert held.end == at
        # Less than one block more than needed.
        assert at - dropped <= len(held) < at - dropped + max(sizes) + 1


def test_slice_is_a_copy() -> None:
    held = HeldSamples()
    block = np.ones(10, dtype=np.float32)
    held.append(block)
    held.slice(0, 10)[:] = 0
    assert block.all()


def test_slice_outside_is_an_error() -> None:
    held = HeldSamples()
    held.append(np.ones(10, dtype=np.float32))
    held.append(np.ones(10, dtype=np.float32))
    held.drop(10)
    for start, end in ((5, 15), (15, 21), (15, 12)):
        with pytest.raises(ValueError, match="not within"):
            held.slice(start, end)
