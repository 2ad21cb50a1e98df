"""whisper.cpp's decoder one step at a time: token numbers in, the next token's logits out.

`whisper_full` leaves the encoded audio behind, and `whisper_decode` reads it with whatever text it
is given. The binding exports both functions but cannot pass an array of tokens or return the
logits, so this module calls the library itself, by ctypes. The context's address is taken from the
binding's wrapper object. Before it is used, the memory there is compared with what the binding says
of the model. Anything unexpected switches the decoder off with one log line. Worker thread.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

Logits = npt.NDArray[np.float32]

_VALUE_OFFSET = 16
"""Where a pybind11 object holds the address of its C++ object: behind the reference count and the
type, on 64-bit CPython."""

_CONTEXT_BYTES = 256
"""Of whisper.cpp's context, from its start: load times, types, parameters, the model's sizes."""

_log = structlog.get_logger("engine")


class RawDecoderError(Exception):
    """whisper.cpp refused a step."""


class RawDecoder:
    """The decoder of one loaded model, on the audio that was encoded last.

    `vocabulary` is the number of tokens, `most` the number of positions of the text context.
    """

    def __init__(
        self, library: ctypes.CDLL, context: int, vocabulary: int, most: int, threads: int
    ) -> None:
        self._library = library
        self._context = context
        self._vocabulary = vocabulary
        self._most = most
        self._threads = threads
        self._past = 0
        self.steps = 0
        """Decoder calls so far."""

    @property
    def past(self) -> int:
        """Tokens fed since the last rewind to 0."""
        return self._past

    def rewind(self, past: int) -> None:
        """Forget all but the first `past` tokens."""
        self._past = past

    def feed(self, tokens: Sequence[int]) -> Logits:
        """Append `tokens`, at least one; the logits of the token after them, shape [vocabulary].

        The array is whisper.cpp's own memory, valid until the next call. Raises `RawDecoderError`
        if whisper.cpp fails or the text context is full.
        """
        if self._past + len(tokens) > self._most:
            raise RawDecoderError("the text context is full")
        array = (ctypes.c_int * len(tokens))(*tokens)
        code = self._library.whisper_decode(
            self._context, array, len(tokens), self._past, self._threads
        )
        if code != 0:
            raise RawDecoderError(f"whisper_decode failed with code {code}")
        self._past += len(tokens)
        self.steps += 1
        rows = self._library.whisper_get_logits(self._context)
        # One row a token, of which whisper.cpp fills in the last.
        size = self._vocabulary * len(tokens)
        logits: Logits = np.ctypeslib.as_array(rows, shape=(size,))[-self._vocabulary :]
        return logits


def attach(pw: Any, handle: Any, threads: int) -> RawDecoder | None:
    """The decoder behind the binding's context `handle`; None where it cannot be reached safely.

    `pw` is the binding's module, already imported.
    """
    vocabulary, most = pw.whisper_model_n_vocab(handle), pw.whisper_model_n_text_ctx(handle)
    try:
        library = _library(Path(pw.__file__))
        context = _address(
            handle, struct.pack("=ii", vocabulary, pw.whisper_model_n_audio_ctx(handle))
        )
        if library.whisper_token_beg(context) != pw.whisper_token_beg(handle):
            raise RawDecoderError("the library is not the one that the binding uses")
    except (OSError, AttributeError, RawDecoderError) as error:
        _log.warning("long segments are split without the decoder's help", reason=str(error))
        return None
    return RawDecoder(library, context, vocabulary, most, threads)


def _library(module: Path) -> ctypes.CDLL:
    # A symbol is looked up in the extension module's own dependencies, whatever they are called.
    library = ctypes.CDLL(str(module))
    library.whisper_decode.restype = ctypes.c_int
    library.whisper_decode.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_int),
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
    ]
    library.whisper_get_logits.restype = ctypes.POINTER(ctypes.c_float)
    library.whisper_get_logits.argtypes = [ctypes.c_void_p]
    library.whisper_token_beg.restype = ctypes.c_int
    library.whisper_token_beg.argtypes = [ctypes.c_void_p]
    return library


def _address(handle: Any, sizes: bytes) -> int:
    """The context's address. `sizes` stands in its first bytes: the model's vocabulary and audio
    context, one after the other (whisper.cpp's whisper_hparams)."""
    # By file and not by pointer: an address that is none gives an error instead of a crash.
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        wrapper = _pointer(memory, id(handle) + _VALUE_OFFSET)
        context = _pointer(memory, wrapper)
        if sizes not in os.pread(memory, _CONTEXT_BYTES, context):
            raise RawDecoderError("the binding's objects are laid out in another way")
    finally:
        os.close(memory)
    return context


def _pointer(memory: int, address: int) -> int:
    try:
        (value,) = struct.unpack("=Q", os.pread(memory, 8, address))
    except (struct.error, OverflowError) as error:
        raise RawDecoderError("the binding's objects are laid out in another way") from error
    return int(value)
