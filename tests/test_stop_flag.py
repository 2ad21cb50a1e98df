"""app/decoding/stop_flag.py, and the symbols by which the node recognises a patched engine."""

from __future__ import annotations

import ctypes
import types
from typing import Any

import numpy as np

from app.decoding.raw_decoder import RawDecoder
from app.decoding.stop_flag import StopFlag


class Function:
    """A function of a library, whose types ctypes users set."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


def test_flag_is_read_at_its_address_by_a_patched_engine() -> None:
    connected: list[tuple[int, int]] = []
    library: Any = types.SimpleNamespace(
        node_whisper_set_stop_flag=Function(lambda *both: connected.append(both))
    )
    flag = StopFlag()
    assert not flag.is_read
    flag.connect(library, 42)
    assert flag.is_read
    ((context, address),) = connected
    assert context == 42
    value = ctypes.c_int32.from_address(address)
    assert value.value == 0
    flag.set()
    assert value.value != 0
    flag.clear()
    assert value.value == 0


def test_flag_is_not_read_by_the_wheel() -> None:
    flag = StopFlag()
    flag.is_read = True
    flag.connect(types.SimpleNamespace(), 42)  # type: ignore[arg-type]
    assert not flag.is_read


def rows(*values: float) -> Any:
    """An array of rows of four logits, as a pointer."""
    return (ctypes.c_float * (4 * len(values)))(*np.repeat(values, 4))


def decoder(**functions: Any) -> RawDecoder:
    library: Any = types.SimpleNamespace(whisper_decode=lambda *_: 0, **functions)
    return RawDecoder(library, 0, 4, 8, 1)


def test_last_row_of_the_wheel_is_that_of_the_last_token() -> None:
    memory = ctypes.cast(rows(1, 2, 3), ctypes.POINTER(ctypes.c_float))
    wheel = decoder(whisper_get_logits=lambda _: memory)
    assert wheel.feed((7, 8, 9)).tolist() == [3, 3, 3, 3]
    assert wheel.logits().tolist() == [1, 1, 1, 1]


def test_patched_engine_says_where_the_last_row_is() -> None:
    memory = ctypes.cast(rows(5), ctypes.POINTER(ctypes.c_float))
    patched = decoder(node_whisper_last_logits=lambda _: memory, whisper_get_logits=None)
    assert patched.feed((7, 8, 9)).tolist() == [5, 5, 5, 5]
