"""app/decoding/raw_decoder.py: it refuses anything but the memory that it expects."""

from __future__ import annotations

import _ctypes
import types
from typing import Any

import _pywhispercpp
import pytest
import structlog

from app.decoding.raw_decoder import RawDecoder, RawDecoderError, attach


class Slot:
    """An object whose first field is another object, 16 bytes into it."""

    __slots__ = ("field",)

    def __init__(self, field: object) -> None:
        self.field = field


def binding(file: str = _pywhispercpp.__file__) -> Any:
    """What `attach` asks of the binding, for a model that nobody has loaded."""
    return types.SimpleNamespace(
        __file__=file,
        whisper_model_n_vocab=lambda _: 51_864,
        whisper_model_n_audio_ctx=lambda _: 1_500,
        whisper_model_n_text_ctx=lambda _: 448,
        whisper_token_beg=lambda _: 50_363,
    )


@pytest.mark.parametrize("handle", [[], (1,), 0.5, Slot([]), Slot(2**62)])
def test_an_object_of_another_layout_switches_it_off(handle: Any) -> None:
    with structlog.testing.capture_logs() as logs:
        assert attach(binding(), handle, 1) is None
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert logs[0]["reason"]


@pytest.mark.parametrize("file", ["/nowhere/_pywhispercpp.so", _ctypes.__file__])
def test_a_library_without_the_functions_switches_it_off(file: str) -> None:
    with structlog.testing.capture_logs() as logs:
        assert attach(binding(file), [], 1) is None
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_more_tokens_than_the_text_context_holds_are_refused() -> None:
    # Refused before the library is called: there is no model.
    decoder = RawDecoder(None, 0, 51_864, 448, 1)  # type: ignore[arg-type]
    with pytest.raises(RawDecoderError):
        decoder.feed([0] * 449)
