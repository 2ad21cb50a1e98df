"""app/decoding/raw_decoder.py: it works only with the memory layout that it expects."""

from __future__ import annotations

import _ctypes
import types
from typing import Any

import _pywhispercpp
import pytest

from app.decoding.raw_decoder import RawDecoder, RawDecoderError, attach


class Slot:
    """An object whose first field is another object, 16 bytes into it."""

    __slots__ = ("field",)

    def __init__(self, field: object) -> None:
        self.field = field


def binding(file: str = _pywhispercpp.__file__) -> Any:
    """The part of the binding that `attach` uses, without a loaded model."""
    return types.SimpleNamespace(
        __file__=file,
        whisper_model_n_vocab=lambda _: 51_864,
        whisper_model_n_audio_ctx=lambda _: 1_500,
        whisper_model_n_text_ctx=lambda _: 448,
        whisper_token_beg=lambda _: 50_363,
    )


@pytest.mark.parametrize("handle", [[], (1,), 0.0, 0.5, 7, Slot([]), Slot(2**62)])
def test_raw_decoder_is_disabled_by_an_unknown_layout(handle: Any) -> None:
    with pytest.raises(RawDecoderError) as caught:
        attach(binding(), handle, 1)
    assert str(caught.value)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("/nowhere/_pywhispercpp.so", "cannot open"),
        (_ctypes.__file__, "undefined symbol: whisper_decode"),
    ],
)
def test_raw_decoder_is_disabled_by_missing_functions(file: str, reason: str) -> None:
    with pytest.raises(RawDecoderError, match=reason):
        attach(binding(file), [], 1)


def test_raw_decoder_rejects_more_tokens_than_the_context_holds() -> None:
    # The tokens are rejected before the library is called, so no model is needed.
    decoder = RawDecoder(None, 0, 51_864, 448, 1)  # type: ignore[arg-type]
    with pytest.raises(RawDecoderError):
        decoder.feed([0] * 449)
